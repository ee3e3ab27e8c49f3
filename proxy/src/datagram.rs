//! Datagrams to and from the container, made and read by hand.

use std::net::{IpAddr, SocketAddr};

use vswitch_frame::checksum::{self, Sum};
use vswitch_frame::headers::{ETHERNET_BYTES, be16, protocol};
use vswitch_frame::{Frame, GsoKind, Pool};

use crate::binding::Binding;
use crate::link::{address, leave_checksum, mtu};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const HOP_LIMIT: u8 = 64;
/// The flag in the first byte of flags and fragment offset: there is one packet only, so its identification
/// is no matter (RFC 6864, 4.1).
const DONT_FRAGMENT: u8 = 0x40;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_BYTES: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

/// A datagram that cannot be sent to the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

/// Where in a frame to the container the payload of a datagram starts.
pub(crate) fn payload_offset(binding: &Binding) -> usize {
    let network = if binding.container.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    ETHERNET_BYTES + network + UDP_BYTES
}

/// Moves a payload that was received at `offset` to where it starts in a frame to the container.
///
/// # Errors
/// When there is no room.
pub(crate) fn move_payload(
    frame: &mut Frame,
    offset: usize,
    binding: &Binding,
    length: usize,
) -> Result<(), Unfit> {
    let (to, room) = (payload_offset(binding), frame.receive_room_plain());
    if to + length > room.len() {
        return Err(Unfit);
    }
    if to != offset {
        room.copy_within(offset..offset + length, to);
    }
    Ok(())
}

/// Writes the headers in front of the `length` bytes of payload that are in the room of a frame, from
/// `source`.
///
/// # Errors
/// When the datagram does not fit into an IP packet.
pub(crate) fn finish(
    frame: &mut Frame,
    binding: &Binding,
    source: SocketAddr,
    length: usize,
) -> Result<(), Unfit> {
    let end = payload_offset(binding) + length;
    frame.received_plain(end);
    address(frame, binding);
    let packet = &mut frame.bytes_mut()[ETHERNET_BYTES..];
    match (source.ip(), binding.container.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet_bytes = u16::try_from(packet.len()).map_err(|_| Unfit)?;
            let header = &mut packet[..IPV4_BYTES];
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&packet_bytes.to_be_bytes());
            header[6] = DONT_FRAGMENT;
            (header[8], header[9]) = (HOP_LIMIT, protocol::UDP);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = Sum::ZERO.add_bytes(header).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(packet.len() - IPV6_BYTES).map_err(|_| Unfit)?;
            let header = &mut packet[..IPV6_BYTES];
            header.fill(0);
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            (header[6], header[7]) = (protocol::UDP, HOP_LIMIT);
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
        }
        _ => return Err(Unfit),
    }
    write_udp(frame, source.port(), binding.container.port(), length, mtu(binding))
}

/// Cuts a finished frame that does not fit into `mtu` into fragments (RFC 791, 3.2; RFC 8200, 4.5).
///
/// # Errors
/// When the pool is empty. The receiver then has the fragments so far, and gives up on them in time.
pub(crate) fn fragment(
    whole: &Frame,
    mtu: usize,
    identification: u32,
    pool: &mut Pool,
    mut emit: impl FnMut(Frame),
) -> Result<(), Unfit> {
    let (bytes, headers) = (whole.bytes(), &whole.headers);
    let transport = headers.transport_offset();
    let header = transport - headers.network_offset();
    let extra = if headers.is_ipv4() { 0 } else { FRAGMENT_BYTES };
    // All but the last are a multiple of eight bytes long.
    let size = mtu.saturating_sub(header + extra) & !7;
    let payload = &bytes[transport..headers.end_offset()];
    for (n, part) in payload.chunks(size.max(8)).enumerate() {
        let (offset, more) = (n * size, n * size + part.len() < payload.len());
        let units = u16::try_from(offset / 8).map_err(|_| Unfit)?;
        let length = u16::try_from(part.len()).map_err(|_| Unfit)?;
        let mut head = [0; ETHERNET_BYTES + IPV6_BYTES + FRAGMENT_BYTES];
        head[..transport].copy_from_slice(&bytes[..transport]);
        let packet = &mut head[ETHERNET_BYTES..];
        if headers.is_ipv4() {
            let flags = units | if more { MORE_FRAGMENTS } else { 0 };
            let [_, _, id @ ..] = identification.to_be_bytes();
            packet[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            packet[4..6].copy_from_slice(&id);
            packet[6..8].copy_from_slice(&flags.to_be_bytes());
            packet[10..12].fill(0);
            let sum = Sum::ZERO.add_bytes(&packet[..IPV4_BYTES]).checksum();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&(8 + length).to_be_bytes());
            packet[6] = FRAGMENT_HEADER;
            packet[40] = protocol::UDP;
            packet[42..44].copy_from_slice(&(units << 3 | u16::from(more)).to_be_bytes());
            packet[44..48].copy_from_slice(&identification.to_be_bytes());
        }
        let mut frame = pool.take().ok_or(Unfit)?;
        frame.fill(&head[..transport + extra]);
        if frame.append(part).is_ok() && frame.parse().is_ok() {
            emit(frame);
        } else {
            pool.free(frame);
        }
    }
    Ok(())
}

/// Writes the UDP header in front of the payload. The checksum is left to the receiver, but for what goes in
/// fragments.
fn write_udp(frame: &mut Frame, from: u16, to: u16, length: usize, mtu: usize) -> Result<(), Unfit> {
    let start = frame.len() - length - UDP_BYTES;
    let udp_bytes = u16::try_from(UDP_BYTES + length).map_err(|_| Unfit)?;
    let header = &mut frame.bytes_mut()[start..start + UDP_BYTES];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
    header[6..8].fill(0);
    frame.parse().map_err(|_| Unfit)?;
    if frame.mtu_bytes() <= mtu {
        leave_checksum(frame, GsoKind::Udp, None);
        return Ok(());
    }
    let bytes = frame.bytes();
    let sum =
        checksum::pseudo_header(bytes, &frame.headers, usize::from(udp_bytes)).add_bytes(&bytes[start..]);
    // A sum of zero is written as its other form: zero would mean that there is none (RFC 768).
    let sum = if sum.checksum() == 0 { u16::MAX } else { sum.checksum() };
    frame.bytes_mut()[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The addresses and ports of a parsed frame of TCP or UDP: initiator's side and target's are the caller's to
/// know.
pub(crate) fn endpoints(frame: &Frame) -> Option<(SocketAddr, SocketAddr)> {
    let (bytes, transport) = (frame.bytes(), frame.headers.transport_offset());
    let (from, to) = addresses(frame)?;
    Some(((from, be16(bytes, transport)).into(), (to, be16(bytes, transport + 2)).into()))
}

/// The addresses of a parsed frame of IP.
pub(crate) fn addresses(frame: &Frame) -> Option<(IpAddr, IpAddr)> {
    let (bytes, network) = (frame.bytes(), frame.headers.network_offset());
    if frame.headers.is_ipv4() {
        return Some((ip::<4>(bytes, network + 12)?, ip::<4>(bytes, network + 16)?));
    }
    Some((ip::<16>(bytes, network + 8)?, ip::<16>(bytes, network + 24)?))
}

/// The ports and the payload of a datagram that was put together, if its length and its checksum are right.
pub(crate) fn checked(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = be16(bytes.get(..UDP_BYTES)?, 4);
    let bytes = bytes.get(..usize::from(length))?;
    let payload = bytes.get(UDP_BYTES..)?;
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Sum::ZERO.add_bytes(&from.octets()).add_bytes(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => Sum::ZERO.add_bytes(&from.octets()).add_bytes(&to.octets()),
        _ => return None,
    };
    let has_none = from.is_ipv4() && be16(bytes, 6) == 0;
    let sum = addresses.add_word(protocol::UDP.into()).add_word(length).add_bytes(bytes);
    (has_none || sum.checksum() == 0).then(|| (be16(bytes, 0), be16(bytes, 2), payload))
}

fn ip<const N: usize>(bytes: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    Some(<[u8; N]>::try_from(bytes.get(at..at + N)?).ok()?.into())
}

/// The payload of a frame of UDP, and how long each datagram is of which it is made: all but the last one.
pub(crate) fn payload(frame: &Frame) -> (&[u8], usize) {
    let start = frame.headers.transport_offset();
    let length = usize::from(be16(frame.bytes(), start + 4));
    let end = frame.headers.end_offset();
    // A super-frame's own length says nothing of its datagrams.
    let end = if frame.offload.gso.is_some() { end } else { end.min(start + length) };
    let payload = frame.bytes().get(frame.headers.payload_offset()..end).unwrap_or_default();
    (payload, frame.offload.gso.map_or(payload.len(), |gso| usize::from(gso.size)))
}

/// Whether a datagram has no checksum, which IPv4 allows.
pub(crate) fn has_no_checksum(frame: &Frame) -> bool {
    frame.headers.is_ipv4() && be16(frame.bytes(), frame.headers.transport_offset() + 6) == 0
}
