//! The link under the TCP stack of a relay: packets straight out of and into frames.
//!
//! IPv4 goes out in super-frames that the receiver splits, or does not. smoltcp has that for IPv4 only;
//! segments of IPv6 leave one after the other, which is when the switch coalesces them. Checksums of TCP are
//! left to the receiver in any case.

use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{
    Checksum as Check, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken,
};
use smoltcp::time::Instant as TcpInstant;
use vswitch_frame::headers::{ETHERNET_BYTES, ethertype};
use vswitch_frame::{Checksum, Frame, Gso, GsoKind, Headers, Instant, NetworkId, Offload, Pool, checksum};

use crate::binding::Binding;
use crate::timestamp::stamp;

/// Below this no MTU makes sense (RFC 791, 3.1), and the stack relies on room for headers.
const MTU_MIN: u16 = 576;
const PACKET_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(65_535).expect("not zero");
const TCP_CHECKSUM_AT: u16 = 16;
const UDP_CHECKSUM_AT: u16 = 6;

/// Where frames for containers go.
#[derive(Debug)]
pub(crate) struct Outlet<'a> {
    pub(crate) pool: &'a mut Pool,
    pub(crate) out: &'a mut Vec<(NetworkId, Frame)>,
}

/// A link for as long as one call of the stack.
pub(crate) struct Link<'a, 'o> {
    /// The packet that came in, if one did.
    pub(crate) packet: Option<&'a [u8]>,
    /// Where frames go; `None` while there is nothing to send.
    pub(crate) outlet: Option<&'a mut Outlet<'o>>,
    pub(crate) binding: &'a Binding,
    /// Frames that may still be sent.
    pub(crate) credit: usize,
    pub(crate) now: Instant,
}

pub(crate) struct Received<'a>(&'a [u8]);

pub(crate) struct Sender<'a, 'o> {
    outlet: &'a mut Outlet<'o>,
    binding: &'a Binding,
    segment: Option<NonZeroU16>,
    now: Instant,
}

impl<'o> Device for Link<'_, 'o> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sender<'t, 'o>
    where
        Self: 't;

    fn receive(&mut self, _: TcpInstant) -> Option<(Received<'_>, Sender<'_, 'o>)> {
        let outlet = self.outlet.as_deref_mut()?;
        let packet = self.packet.take()?;
        Some((Received(packet), Sender { outlet, binding: self.binding, segment: None, now: self.now }))
    }

    fn transmit(&mut self, _: TcpInstant) -> Option<Sender<'_, 'o>> {
        let outlet = self.outlet.as_deref_mut().filter(|outlet| outlet.pool.available() > 0)?;
        self.credit = self.credit.checked_sub(1)?;
        Some(Sender { outlet, binding: self.binding, segment: None, now: self.now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // The checksum of what comes in is checked before; that of what goes out is left to the receiver.
        checksum.tcp = Check::None;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = mtu(self.binding);
        capabilities.checksum = checksum;
        capabilities.segmentation.tcpv4 = Some(PACKET_BYTES_MAX);
        capabilities
    }
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sender<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let Some(mut frame) = self.outlet.pool.take() else {
            // The answer to a packet, without a slot: lost like on a full queue.
            return f(&mut vec![0; length]);
        };
        let result = f(&mut frame.receive_room_plain()[ETHERNET_BYTES..ETHERNET_BYTES + length]);
        frame.received_plain(ETHERNET_BYTES + length);
        address(&mut frame, self.binding);
        if frame.parse().is_ok() {
            let kind = if frame.headers.is_ipv4() { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
            let start = frame.headers.transport_offset();
            stamp(&mut frame.bytes_mut()[start..], self.now);
            leave_checksum(&mut frame, kind, self.segment);
            self.outlet.out.push((self.binding.network, frame));
        } else {
            self.outlet.pool.free(frame);
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}

/// The MTU toward a container, in bytes.
pub(crate) fn mtu(binding: &Binding) -> usize {
    usize::from(binding.mtu.max(MTU_MIN))
}

/// Writes the Ethernet header of a frame from the gateway to the container.
pub(crate) fn address(frame: &mut Frame, binding: &Binding) {
    let ether_type = if binding.container.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&binding.container_mac.0);
    bytes[6..12].copy_from_slice(&binding.gateway_mac.0);
    bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
}

/// Leaves the checksum of a TCP segment or a datagram, and its segmentation, to the receiver.
pub(crate) fn leave_checksum(frame: &mut Frame, kind: GsoKind, segment: Option<NonZeroU16>) {
    let headers = frame.headers;
    let start = headers.transport_offset();
    let sum = checksum::pseudo_header(frame.bytes(), &headers, headers.end_offset() - start).folded();
    let offset = if kind == GsoKind::Udp { UDP_CHECKSUM_AT } else { TCP_CHECKSUM_AT };
    let at = start + usize::from(offset);
    frame.bytes_mut()[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let gso = segment.map(|size| Gso { kind, size: size.get(), ecn: false, same_id: false });
    let start = u16::try_from(start).unwrap_or(u16::MAX);
    frame.offload = Offload { checksum: Checksum::Partial { start, offset }, gso };
}

/// Whether the transport checksum of a received frame is right, or will be made so.
pub(crate) fn is_right(frame: &Frame) -> bool {
    match frame.offload.checksum {
        Checksum::Complete => has_right_sum(frame.bytes(), &frame.headers),
        Checksum::Valid | Checksum::Partial { .. } => true,
    }
}

fn has_right_sum(bytes: &[u8], headers: &Headers) -> bool {
    let segment = &bytes[headers.transport_offset()..headers.end_offset()];
    checksum::pseudo_header(bytes, headers, segment.len()).add_bytes(segment).checksum() == 0
}

pub(crate) fn tcp_instant(now: Instant) -> TcpInstant {
    TcpInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// The instant of a stack's clock; what is over is `now`.
pub(crate) fn instant(at: TcpInstant, now: Instant) -> Instant {
    let micros = u64::try_from(at.total_micros()).unwrap_or(0);
    Instant::from_nanos(micros.saturating_add(1).saturating_mul(1000)).max(now)
}

#[cfg(test)]
mod tests {
    use smoltcp::iface::{Config, Interface, SocketSet};
    use smoltcp::socket::tcp;
    use smoltcp::wire::HardwareAddress;

    use super::*;
    use crate::binding::tests::binding;
    use crate::sequence::seed;
    use crate::timestamp::not_yet;

    /// Undocumented, and what [`seed`] leans on.
    #[test]
    fn a_stack_begins_with_the_number_and_the_time_it_is_given() {
        let binding = binding(80);
        let (now, mut pool, mut out) = (Instant::from_nanos(77_000_000), Pool::new(8), Vec::new());
        for number in [0, 1, 0x1234_5678, u32::MAX] {
            let outlet = &mut Outlet { pool: &mut pool, out: &mut out };
            let mut link = Link { packet: None, outlet: Some(outlet), binding: &binding, credit: 1, now };
            let mut config = Config::new(HardwareAddress::Ip);
            config.random_seed = seed(number);
            let mut interface = Interface::new(config, &mut link, tcp_instant(now));
            interface
                .update_ip_addrs(|all| all.push("172.17.0.1/0".parse().expect("address")).expect("room"));
            let room = || tcp::SocketBuffer::new(vec![0; 64]);
            let mut socket = tcp::Socket::new(room(), room());
            socket.set_tsval_generator(Some(not_yet));
            socket.connect(interface.context(), binding.container, 1024).expect("connect");
            let mut sockets = SocketSet::new(Vec::new());
            sockets.add(socket);
            interface.poll_egress(tcp_instant(now), &mut link, &mut sockets);
            let (_, frame) = out.pop().expect("a frame");
            let segment = &frame.bytes()[frame.headers.transport_offset()..];
            assert_eq!(segment[4..8], number.to_be_bytes());
            assert!(segment.windows(6).any(|part| part == [8, 10, 0, 0, 0, 77]), "{segment:?}");
            pool.free(frame);
        }
    }
}
