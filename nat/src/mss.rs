//! Clamps the maximum segment size that the SYN of a connection announces (RFC 9293, 3.7.1), so that nobody
//! sends segments larger than the way beyond the uplink takes, whatever becomes of ICMP on that way.

use vswitch_frame::headers::{Transport, be16};
use vswitch_frame::{Checksum, Frame};

use crate::checksum::Change;
use crate::rewrite::put16;
use crate::tcp::{Options, SYN};

const MSS: u8 = 2;

/// The largest segment that fits packets of `mtu` bytes, with headers without options.
pub fn fitting(mtu: u16, is_v4: bool) -> u16 {
    mtu.saturating_sub(if is_v4 { 40 } else { 60 })
}

/// Lowers the announcement of a SYN to `mss`. Everything else, and a SYN that announces less or nothing,
/// stays as it is. The frame must have been parsed.
pub fn clamp(frame: &mut Frame, mss: u16) {
    let headers = frame.headers;
    if headers.transport() != Transport::Tcp || frame.bytes()[headers.transport_offset() + 13] & SYN == 0 {
        return;
    }
    let options = headers.transport_offset() + 20..headers.payload_offset();
    let mut found = Options::new(&frame.bytes()[options.clone()]);
    let Some(option) = found.find(|option| option.kind == MSS && option.value.len() == 2) else {
        return;
    };
    let at = options.start + option.at;
    let old = be16(frame.bytes(), at);
    if old <= mss {
        return;
    }
    let is_partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    let bytes = frame.bytes_mut();
    put16(bytes, at, mss);
    if !is_partial {
        // At an odd place its bytes are halves of two words.
        let odd = (at - options.start) % 2 == 1;
        let (old, new) = if odd { (old.swap_bytes(), mss.swap_bytes()) } else { (old, mss) };
        let field = headers.transport_offset() + 16;
        let checksum = Change::NONE.field_16(old, new).apply(be16(bytes, field));
        put16(bytes, field, checksum);
    }
}
