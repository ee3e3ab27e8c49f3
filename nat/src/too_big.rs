//! Packets that are larger than the next link takes: answered where they may not be fragmented
//! (RFC 4787, REQ-13), and otherwise fragmented (RFC 791, 3.2).

use std::net::IpAddr;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_frame::{Checksum, Frame, Pool};

use crate::answer::{self, Complaint};
use crate::ip::Ip;
use crate::rewrite::put16;
use crate::tuple::{Address, Protocol};

const IPV4_HEADER: usize = 20;

/// Makes of an IP packet that is larger than the next link takes the ICMP error about it: "fragmentation
/// needed" or "packet too big", with `mtu`, from `from`, with the MAC addresses swapped.
///
/// Says `false`, and leaves the frame as it is, when there is no such answer: the packet may be fragmented,
/// or is itself an ICMP error, or no IP packet that can be answered. The frame must have been parsed.
pub fn answer(frame: &mut Frame, from: IpAddr, mtu: u16) -> bool {
    let Some(ip) = Ip::read(frame.bytes(), frame.headers.network_offset()) else {
        return false;
    };
    let bytes = frame.bytes();
    let kind = bytes.get(ip.transport_at).copied().unwrap_or(0);
    let is_error = ip.protocol == Protocol::Icmp as u8 && matches!(kind, 3..=5 | 11 | 12)
        || ip.protocol == Protocol::Icmp6 as u8 && kind < 128;
    let follows = ip.fragment.is_some_and(|piece| piece.from > 0);
    let from = Address::from(from);
    let unanswerable = is_error || follows || !ip.source.is_routable() || from.is_v4() != ip.is_v4;
    if !ip.is_whole_only(bytes) || unanswerable {
        return false;
    }
    answer::complain(frame, &ip, from, Complaint::TooBig(mtu));
    true
}

/// Fragments an IPv4 packet that may be fragmented, in order, into packets of at most `mtu` bytes. An
/// unfinished checksum is finished first, because a fragment has no room for what is left to do.
///
/// # Errors
/// Gives the frame back when it is no such packet, is a super-frame (which is split first), has IP options,
/// or when the pool has too few slots.
pub fn fragment(
    mut frame: Frame,
    mtu: u16,
    pool: &mut Pool,
    fragments: &mut Vec<Frame>,
) -> Result<(), Frame> {
    let Some(ip) = Ip::read(frame.bytes(), frame.headers.network_offset()) else {
        return Err(frame);
    };
    let each = usize::from(mtu).saturating_sub(IPV4_HEADER) / 8 * 8;
    let has_options = ip.transport_at - ip.at != IPV4_HEADER;
    if ip.is_whole_only(frame.bytes()) || has_options || frame.offload.gso.is_some() || each == 0 {
        return Err(frame);
    }
    let pieces = (ip.end - ip.transport_at).div_ceil(each);
    if pieces > pool.available() {
        return Err(frame);
    }
    finish_checksum(&mut frame, ip.end);
    for piece in 0..pieces {
        if let Some(mut fragment) = pool.take() {
            cut(&frame, &ip, piece * each, each, &mut fragment);
            fragments.push(fragment);
        }
    }
    pool.free(frame);
    Ok(())
}

/// Makes `fragment` the piece of a packet that begins `from` bytes behind the IP header.
fn cut(frame: &Frame, ip: &Ip, from: usize, each: usize, fragment: &mut Frame) {
    const MORE: u16 = 0x2000;
    let bytes = frame.bytes();
    let start = ip.transport_at + from;
    let end = (start + each).min(ip.end);
    fragment.fill(&bytes[..ip.transport_at]);
    let appended = fragment.append(&bytes[start..end]);
    debug_assert_eq!(appended, Ok(()), "no larger than the packet");
    // A packet may be a fragment itself: then the pieces are in the midst of its datagram.
    let old = be16(bytes, ip.at + 6);
    let more = if end < ip.end { MORE } else { old & MORE };
    let eights = u16::try_from(from / 8).unwrap_or(0);
    let header = &mut fragment.bytes_mut()[ip.at..ip.transport_at];
    put16(header, 2, u16::try_from(IPV4_HEADER + end - start).unwrap_or(u16::MAX));
    put16(header, 6, ((old & !MORE) + eights) | more);
    put16(header, 10, 0);
    let checksum = Sum::ZERO.add_bytes(header).checksum();
    put16(header, 10, checksum);
    let parsed = fragment.parse();
    debug_assert_eq!(parsed, Ok(()), "a fragment of a good packet");
}

/// Adds what a partial checksum leaves to a device.
fn finish_checksum(frame: &mut Frame, end: usize) {
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
        let bytes = &mut frame.bytes_mut()[..end];
        // Zero would say that a datagram has none (RFC 768); for others both forms of zero are the same.
        let checksum = match Sum::ZERO.add_bytes(&bytes[start..]).checksum() {
            0 => u16::MAX,
            checksum => checksum,
        };
        put16(bytes, field, checksum);
        frame.offload.checksum = Checksum::Complete;
    }
}
