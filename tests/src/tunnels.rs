//! Laws of frames that pass through a tunnel, and of any bytes that come to its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::{Accepts, Frame, Headers, Instant, Offload, Pool};
use vswitch_vxlan::encapsulate::BYTES_MAX;
use vswitch_vxlan::{Decapsulator, Encapsulator, Limits, Received, Sender, Settings, Tunnels, Vni};

use crate::bursts::{Sent, burst};
use crate::fuzz::{assert_same_order, check_super_frame, split, with_pool};

/// The network of these tests.
///
/// # Panics
/// Never.
pub fn vni() -> Vni {
    Vni::new(5000).expect("24 bits")
}

/// The VTEP of a host.
pub fn vtep(host: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)).into()
    } else {
        Ipv4Addr::new(192, 0, 2, host).into()
    }
}

/// The tunnels of one of two hosts, each the other's peer, over an underlay for jumbo frames.
///
/// # Panics
/// Never.
pub fn host(local: u8, peer: u8, ipv6: bool, tags: bool) -> Tunnels {
    let mut tunnels = Tunnels::new(Limits::default(), 7);
    let settings =
        Settings { vni: vni(), local: vtep(local, ipv6), underlay_mtu: 9000, tags, learning: true };
    let tunnel = tunnels.add(settings).expect("the first");
    tunnel.add_peer(vtep(peer, ipv6)).expect("another host");
    tunnels
}

/// One send as the wire has it: the size of its datagrams but the last, and the bytes of all.
type Wire = (u16, Vec<u8>);

/// Any bytes as how a burst travels, and the burst: it arrives at another host to the letter, and the
/// frames of a flow in the same order.
///
/// # Panics
/// When a frame is lost, doubled, changed or overtakes another of its flow, and when a send is not what the
/// kernel takes.
pub fn round_trip(data: &[u8]) {
    let Some((&how, records)) = data.split_first() else { return };
    let [ipv6, tags, coalesced, gro, alone, few, spaced] =
        [0, 1, 2, 3, 4, 5, 6].map(|bit| how >> bit & 1 == 1);
    let way = match (gro, spaced) {
        (true, _) => Way::SideBySide,
        (_, true) => Way::Spaced,
        _ => Way::Alone,
    };
    let segments = match (alone, few) {
        (true, _) => 1,
        (_, true) => 5,
        _ => 64,
    };
    let sent = burst(records);
    let sender = Sender { segments, sockets: 3, ..Sender::default() };
    let arrived = with_pool(|pool| {
        let mut frames: Vec<Frame> = sent.iter().map(|sent| sent.receive(pool)).collect();
        if coalesced {
            Coalescer::new(5).coalesce(&mut frames, Accepts::ALL, pool);
        }
        let wires = sends(&host(1, 2, ipv6, tags), sender, &frames);
        frames.into_iter().for_each(|frame| pool.free(frame));
        let mut target = host(2, 1, ipv6, tags);
        wires.into_iter().flat_map(|wire| received(&mut target, vtep(1, ipv6), wire, way, pool)).collect()
    });
    let expected: Vec<Sent> =
        sent.into_iter().map(|sent| if tags { sent } else { without_tags(sent) }).collect();
    check_arrival(&expected, arrived);
}

fn check_arrival(expected: &[Sent], arrived: Vec<Vec<u8>>) {
    assert_eq!(arrived.len(), expected.len(), "frames");
    assert_same_order(expected, &arrived);
}

/// The sends that a burst becomes on the wire. There is one peer, who gets what is for everyone.
fn sends(tunnels: &Tunnels, sender: Sender, frames: &[Frame]) -> Vec<Wire> {
    let tunnel = tunnels.get(vni()).expect("made");
    let mut encapsulator = Encapsulator::new(sender, 3);
    encapsulator.plan(tunnel, frames);
    assert_eq!(encapsulator.refused(), []);
    let wire = |send: &vswitch_vxlan::Send| {
        let bytes: Vec<u8> = encapsulator.pieces(send, frames).flatten().copied().collect();
        assert!(send.count() <= usize::from(sender.segments) && bytes.len() <= BYTES_MAX);
        assert_eq!(bytes.len().div_ceil(usize::from(send.size)), send.count());
        assert_eq!(send.to.ip(), tunnel.peers()[0]);
        (send.size, bytes)
    };
    encapsulator.sends().iter().map(wire).collect()
}

/// The way in which the kernel hands over the datagrams of a send.
#[derive(Clone, Copy)]
enum Way {
    /// One by one.
    Alone,
    /// In one buffer, side by side.
    SideBySide,
    /// In one buffer, each in a room of its own.
    Spaced,
}

/// The frames that a send stands for, at the host it arrives at.
fn received(tunnels: &mut Tunnels, from: IpAddr, wire: Wire, way: Way, pool: &mut Pool) -> Vec<Vec<u8>> {
    const GAP: usize = 13;
    let (size, mut bytes) = wire;
    let stride = usize::from(size) + GAP;
    let mut arrived = Vec::new();
    let mut opener = Decapsulator::new();
    match way {
        Way::Alone => {
            for datagram in bytes.chunks_mut(usize::from(size)) {
                opener.open(tunnels, Received { from, size: None }, datagram, Instant::ZERO);
                arrived.extend(frames_of(&opener, datagram, pool));
            }
        }
        Way::SideBySide => {
            opener.open(tunnels, Received { from, size: Some(size) }, &mut bytes, Instant::ZERO);
            arrived.extend(frames_of(&opener, &bytes, pool));
        }
        Way::Spaced => {
            let datagrams = bytes.chunks(usize::from(size));
            let received: Vec<_> = datagrams.clone().map(|datagram| (from, datagram.len())).collect();
            let mut buffer: Vec<u8> = datagrams.flat_map(|one| [one, &[0xee; GAP]].concat()).collect();
            opener.open_each(tunnels, &received, stride, &mut buffer, Instant::ZERO);
            arrived.extend(frames_of(&opener, &buffer, pool));
        }
    }
    arrived
}

/// All that the opened frames stand for.
fn frames_of(opener: &Decapsulator, buffer: &[u8], pool: &mut Pool) -> Vec<Vec<u8>> {
    assert_eq!(opener.dropped(), []);
    let mut arrived = Vec::new();
    for inner in opener.inners() {
        let mut frame = pool.take().expect("a slot");
        inner.copy_into(buffer, &mut frame);
        assert_eq!(inner.len(), frame.len());
        check_super_frame(&frame);
        for piece in split(&frame, Accepts::NONE, pool) {
            arrived.push(piece.bytes().to_vec());
            pool.free(piece);
        }
        pool.free(frame);
    }
    arrived
}

fn without_tags(mut sent: Sent) -> Sent {
    const MACS: usize = 12;
    let tags = 4 * sent.packet.tags.len();
    sent.bytes.drain(MACS..MACS + tags);
    sent
}

/// Any bytes as datagrams that came to the tunnels' port, side by side: a size, who sent them, the bytes.
/// Each is dropped, or is one frame that came of it whole.
///
/// # Panics
/// When a datagram is lost or a frame is not one.
pub fn datagrams(data: &[u8]) {
    let Some(([high, low, who], bytes)) = data.split_first_chunk::<3>() else { return };
    let size = Some(u16::from_be_bytes([*high, *low])).filter(|&size| size > 0);
    let mut tunnels = host(2, 1, false, who & 2 == 2);
    let from = if who & 1 == 1 { vtep(9, false) } else { vtep(1, false) };
    let length = bytes.len().min(usize::from(u16::MAX));
    let mut buffer = bytes[..length].to_vec();
    let mut decapsulator = Decapsulator::new();
    decapsulator.open(&mut tunnels, Received { from, size }, &mut buffer, Instant::ZERO);
    let mut accounted = decapsulator.dropped().len();
    for inner in decapsulator.inners() {
        accounted += inner.pieces().count();
        let frame: Vec<u8> = inner.pieces().flat_map(|piece| buffer[piece].to_vec()).collect();
        assert_eq!(Headers::parse(&frame), Ok(inner.headers));
        assert_eq!(inner.offload.check(&inner.headers, frame.len()), Ok(()));
        assert!(inner.pieces().count() == 1 || inner.offload != Offload::NONE);
    }
    let there_were = size.map_or(1, |size| length.div_ceil(usize::from(size)).max(1));
    assert_eq!(accounted, there_were);
}
