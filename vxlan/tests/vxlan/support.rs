//! Two hosts with a tunnel between them, and frames to carry.

use std::net::{IpAddr, Ipv6Addr};

use vswitch_frame::checksum::Sum;
use vswitch_frame::{DropReason, Frame, Instant, Mac, Pool};
use vswitch_vxlan::{
    Decapsulator, Encapsulator, Limits, Received, Record, Sender, Settings, Tunnel, Tunnels, Vni,
};

pub(crate) const ALICE: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const BOB: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub(crate) const NOW: Instant = Instant::from_nanos(1_000_000_000);

pub(crate) fn vni() -> Vni {
    Vni::new(5000).expect("24 bits")
}

/// VTEP of a host, over IPv4.
pub(crate) fn vtep(host: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, host])
}

/// VTEP of a host, over IPv6.
pub(crate) fn vtep6(host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into()
}

pub(crate) fn settings(local: IpAddr) -> Settings {
    Settings { vni: vni(), local, underlay_mtu: 1500, tags: false, learning: false }
}

/// Host 1's tunnels: one network with the peers 2 and 3.
pub(crate) fn tunnels(settings: Settings) -> Tunnels {
    let mut tunnels = Tunnels::new(Limits::default(), 7);
    let tunnel = tunnels.add(settings).expect("the first");
    for peer in [2, 3] {
        let peer = if settings.local.is_ipv4() { vtep(peer) } else { vtep6(u16::from(peer)) };
        tunnel.add_peer(peer).expect("another host");
    }
    tunnels
}

pub(crate) fn tunnel(tunnels: &mut Tunnels) -> &mut Tunnel {
    tunnels.get_mut(vni()).expect("it was made")
}

pub(crate) fn record(mac: Mac, addresses: &[&str], vtep: IpAddr, version: u64) -> Record {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Record { mac, addresses, vtep, version }
}

/// A UDP datagram over IPv4 between these MACs, right in every field.
pub(crate) fn datagram(destination: Mac, source: Mac, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + payload.len()).expect("short");
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&(20 + udp).to_be_bytes());
    let sum = Sum::ZERO.add_bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut message = [port.to_be_bytes(), 9u16.to_be_bytes(), udp.to_be_bytes(), [0; 2]].concat();
    message.extend(payload);
    let pseudo = Sum::ZERO.add_bytes(&ip[12..]).add_word(17).add_word(udp);
    let sum = pseudo.add_bytes(&message).checksum();
    message[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    [&destination.0[..], &source.0, &[8, 0], &ip, &message].concat()
}

/// A frame with an 802.1Q tag put behind its addresses.
pub(crate) fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

/// Frames as the switch has them.
pub(crate) fn frames(all: &[Vec<u8>]) -> Vec<Frame> {
    let mut pool = Pool::new(all.len());
    let mut made = Vec::new();
    for bytes in all {
        let mut frame = pool.take().expect("a slot");
        frame.fill(bytes);
        frame.parse().expect("well-formed");
        made.push(frame);
    }
    made
}

/// A send as it goes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) to: IpAddr,
    pub(crate) socket: u16,
    pub(crate) datagrams: Vec<Vec<u8>>,
}

/// The datagrams that a burst becomes on the wire, and the frames of it that are refused.
pub(crate) fn sent(
    tunnel: &Tunnel,
    sender: Sender,
    burst: &[Vec<u8>],
) -> (Vec<Wire>, Vec<(usize, DropReason)>) {
    let frames = frames(burst);
    let mut encapsulator = Encapsulator::new(sender, 3);
    encapsulator.plan(tunnel, &frames);
    let wire = |send: &vswitch_vxlan::Send| {
        let bytes: Vec<u8> = encapsulator.pieces(send, &frames).flatten().copied().collect();
        assert_eq!(send.to.port(), sender.port);
        let datagrams: Vec<Vec<u8>> = bytes.chunks(usize::from(send.size)).map(<[u8]>::to_vec).collect();
        assert_eq!(datagrams.len(), send.count());
        Wire { to: send.to.ip(), socket: send.socket, datagrams }
    };
    (encapsulator.sends().iter().map(wire).collect(), encapsulator.refused().to_vec())
}

/// A datagram that was dropped: its network, if there is a tunnel for it, and why.
pub(crate) type Dropped = (Option<Vni>, DropReason);

/// The frames in a buffer, each in one piece, and why datagrams were dropped.
pub(crate) fn opened(
    tunnels: &mut Tunnels,
    from: IpAddr,
    size: Option<u16>,
    bytes: &[u8],
) -> (Vec<Vec<u8>>, Vec<Dropped>) {
    let mut buffer = bytes.to_vec();
    let mut decapsulator = Decapsulator::new();
    decapsulator.open(tunnels, Received { from, size }, &mut buffer, NOW);
    let whole = |inner: &vswitch_vxlan::Inner| {
        let bytes: Vec<u8> = inner.pieces().flat_map(|piece| buffer[piece].to_vec()).collect();
        assert_eq!(bytes.len(), inner.len());
        bytes
    };
    (decapsulator.inners().iter().map(whole).collect(), decapsulator.dropped().to_vec())
}

/// A VXLAN packet of the network: what a peer sends.
pub(crate) fn packet(inner: &[u8]) -> Vec<u8> {
    [&[0x08, 0, 0, 0][..], &(vni().get() << 8).to_be_bytes(), inner].concat()
}
