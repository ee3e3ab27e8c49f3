//! Messages of any length over a channel whose packets are bounded.
//!
//! # Theory of operation
//! A message travels in packets. The first byte of each says whether more follow. Whoever receives one with
//! more to follow asks for the next by a packet of one byte, so at most one packet is on its way, and nobody
//! waits for room in a queue. Descriptors ride along with the last packet.
//!
//! ```text
//!   one end                         the other
//!   MORE text ─────────────────────►
//!             ◄───────────────────── GO_ON
//!   LAST text ─────────────────────►
//! ```

use std::fmt;

use vswitch_sys::seqpacket::MESSAGE_BYTES_MAX;

/// The longest message, in bytes: what one side may have to hold.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// Bytes of a message that fit in one packet.
pub const PART_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1;

const LAST: u8 = 0;
const MORE: u8 = 1;
/// The packet that asks for the next part.
pub const GO_ON: &[u8] = &[2];

/// The packets of a message.
pub fn packets(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = text.len().div_ceil(PART_BYTES_MAX).max(1);
    (0..count).map(move |nth| {
        let part = &text[nth * PART_BYTES_MAX..text.len().min((nth + 1) * PART_BYTES_MAX)];
        let head = if nth + 1 == count { LAST } else { MORE };
        [&[head], part].concat()
    })
}

/// A message that is arriving.
#[derive(Debug, Default)]
pub struct Assembly {
    text: Vec<u8>,
}

/// The meaning of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The end of this message.
    Whole(Vec<u8>),
    /// A part of one: the next is to be asked for.
    Part,
    /// The other end asks for the next part of what it is being sent.
    GoOn,
}

/// A packet that is none of these, or a message that is too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a packet that is no part of a message, or of one longer than {TEXT_BYTES_MAX} bytes")
    }
}

impl std::error::Error for Malformed {}

impl Assembly {
    /// Takes a packet in.
    ///
    /// # Errors
    /// [`Malformed`]; then the message it belonged to is forgotten.
    pub fn take(&mut self, packet: &[u8]) -> Result<Arrived, Malformed> {
        if packet == GO_ON {
            return Ok(Arrived::GoOn);
        }
        match packet.split_first() {
            Some((&LAST | &MORE, part)) if self.text.len() + part.len() > TEXT_BYTES_MAX => {}
            Some((&LAST, part)) => {
                self.text.extend_from_slice(part);
                return Ok(Arrived::Whole(std::mem::take(&mut self.text)));
            }
            Some((&MORE, part)) => {
                self.text.extend_from_slice(part);
                return Ok(Arrived::Part);
            }
            _ => {}
        }
        self.text = Vec::new();
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_arrives() {
        for length in [0, 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 5 * PART_BYTES_MAX] {
            let text: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
            let mut assembly = Assembly::default();
            let packets: Vec<Vec<u8>> = packets(&text).collect();
            let (last, parts) = packets.split_last().expect("one at least");
            for packet in parts {
                assert!(packet.len() <= MESSAGE_BYTES_MAX);
                assert_eq!(assembly.take(packet), Ok(Arrived::Part));
            }
            assert_eq!(assembly.take(last), Ok(Arrived::Whole(text)), "{length}");
        }
    }

    #[test]
    fn other_packets_are_refused_and_the_next_message_arrives() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(&[MORE, 1]), Ok(Arrived::Part));
        assert_eq!(assembly.take(&[7]), Err(Malformed));
        assert_eq!(assembly.take(&[]), Err(Malformed));
        assert_eq!(assembly.take(GO_ON), Ok(Arrived::GoOn));
        assert_eq!(assembly.take(&[LAST, 2]), Ok(Arrived::Whole(vec![2])));
    }

    #[test]
    fn a_message_without_end_is_not_held() {
        let mut assembly = Assembly::default();
        let part = [&[MORE][..], &[0; PART_BYTES_MAX]].concat();
        let taken = (0..2000).find(|_| assembly.take(&part).is_err()).expect("it ends");
        assert_eq!(taken, TEXT_BYTES_MAX / PART_BYTES_MAX);
    }
}
