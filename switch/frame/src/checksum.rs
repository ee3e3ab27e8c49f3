//! The Internet checksum (RFC 1071): the one's complement of the one's-complement sum of 16-bit words.

use crate::headers::{Headers, Transport, protocol};

/// A running one's-complement sum, in network byte order, not yet folded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds bytes. A piece of odd length is padded with a zero byte, so only the last may be odd.
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        // Words are summed in the machine's own order and swapped once at the end (RFC 1071, 2(B)):
        // 32-bit loads into 64-bit lanes, which the compiler turns into vector additions.
        let mut lanes = [0u64; 8];
        let mut chunks = bytes.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let mut words = chunks.remainder().chunks_exact(2);
        for word in &mut words {
            sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self.add_word(u16::from_be(fold(sum)))
    }

    /// Adds a 16-bit word.
    #[inline]
    pub fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The sum folded to 16 bits, not complemented: what a partial checksum field holds.
    #[inline]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the sum. Over bytes that hold a right checksum it is zero.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "three folds of a u64 leave 16 bits")]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The sum of the pseudo-header for a transport segment of `length` bytes (RFC 9293, 3.1; RFC 8200, 8.1).
///
/// `headers` must be those of a frame with these `bytes` that carries TCP or UDP.
#[inline]
pub fn pseudo_header(bytes: &[u8], headers: &Headers, length: usize) -> Sum {
    let protocol = if headers.transport() == Transport::Udp { protocol::UDP } else { protocol::TCP };
    let at = headers.network_offset();
    let addresses = if headers.is_ipv4() { &bytes[at + 12..at + 20] } else { &bytes[at + 8..at + 40] };
    let length = length as u64;
    Sum(length >> 16).add_word((length & 0xffff) as u16).add_word(u16::from(protocol)).add_bytes(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn odd_length_is_padded() {
        assert_eq!(Sum::ZERO.add_bytes(&[0x12, 0x34, 0x56]).folded(), 0x1234 + 0x5600);
    }
}
