//! The bytes a TCP stream carries, so that the receiver knows each by its place.
//!
//! A stream is a row of blocks of [`BLOCK`] bytes. A block opens with its own number, mixed with the
//! stream's, and goes on with a fixed pattern. The receiver checks the number of *every* block, and the
//! whole of one block in [`WHOLE_EVERY`]: that finds a block lost, doubled, moved or sent to the wrong
//! stream, and bytes shifted, at a cost that vanishes beside that of receiving them.

use std::io;

/// Bytes of one block.
const BLOCK: usize = 4096;
/// Bytes of one write, and of one read: what iperf3 uses.
pub(crate) const WRITE: usize = 128 * 1024;
/// One block in so many is checked whole.
const WHOLE_EVERY: u64 = 64;
const NUMBER: usize = 8;

/// Scatters the bits of a number: no two numbers give the same, and neighbours look unlike.
pub(crate) fn mix(number: u64) -> u64 {
    // The finalizer of splitmix64.
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn number(stream: u64, block: u64) -> [u8; NUMBER] {
    mix((stream << 48) ^ block).to_le_bytes()
}

/// `blocks` blocks with their numbers left out.
fn blank(blocks: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..BLOCK as u64 / 8).flat_map(|word| mix(!word).to_le_bytes()).collect();
    block.repeat(blocks)
}

/// The bytes a sender sends.
pub(crate) struct Writer {
    stream: u64,
    next_block: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Writer {
    pub(crate) fn new(stream: usize) -> Self {
        Self { stream: stream as u64, next_block: 0, buffer: blank(WRITE / BLOCK), at: WRITE }
    }

    /// The bytes to send next.
    pub(crate) fn pending(&mut self) -> &[u8] {
        if self.at == WRITE {
            for block in self.buffer.chunks_exact_mut(BLOCK) {
                block[..NUMBER].copy_from_slice(&number(self.stream, self.next_block));
                self.next_block += 1;
            }
            self.at = 0;
        }
        &self.buffer[self.at..]
    }

    /// Notes that so many of them were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

/// The check of the bytes a receiver receives.
pub(crate) struct Checker {
    stream: u64,
    /// The block the next byte is in, and where in it.
    block: u64,
    at: usize,
    blank: Vec<u8>,
}

impl Checker {
    pub(crate) fn new(stream: usize) -> Self {
        Self { stream: stream as u64, block: 0, at: 0, blank: blank(1) }
    }

    /// Checks the next bytes of the stream, however they are cut.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (block, from) = (self.block, self.at);
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK - from));
            let in_number = piece.len().min(NUMBER.saturating_sub(from));
            let (head, body) = piece.split_at(in_number);
            let expected = number(self.stream, block);
            let whole = block.is_multiple_of(WHOLE_EVERY);
            let body_at = from + in_number;
            if !head.is_empty() && head != &expected[from..from + in_number]
                || whole && body != &self.blank[body_at..body_at + body.len()]
            {
                let message = format!("stream {} has a wrong byte in its 4 KiB block {block}", self.stream);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.at += piece.len();
            if self.at == BLOCK {
                (self.block, self.at) = (block + 1, 0);
            }
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: usize, writes: usize) -> Vec<u8> {
        let mut writer = Writer::new(number);
        let mut bytes = Vec::new();
        while bytes.len() < writes * WRITE {
            let pending = writer.pending();
            let part = pending.len().min(50_021);
            bytes.extend(&pending[..part]);
            writer.sent(part);
        }
        bytes.truncate(writes * WRITE);
        bytes
    }

    #[test]
    fn what_was_written_is_right_however_it_is_cut() {
        let bytes = stream(3, 3);
        for cut in [1, 5, 4095, 4096, 4097, WRITE] {
            let mut checker = Checker::new(3);
            assert!(bytes.chunks(cut).all(|piece| checker.check(piece).is_ok()), "cut into {cut}");
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let right = stream(0, 3);
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = right.clone();
            change(&mut bytes);
            Checker::new(0).check(&bytes)
        };
        assert!(changed(|_| {}).is_ok());
        assert!(changed(|bytes| bytes[3 * BLOCK] ^= 1).is_err(), "number of a block");
        assert!(changed(|bytes| bytes[64 * BLOCK + 3000] ^= 1).is_err(), "body of a block checked whole");
        assert!(changed(|bytes| drop(bytes.drain(BLOCK..2 * BLOCK))).is_err(), "a block lost");
        assert!(changed(|bytes| drop(bytes.drain(70_000..70_001))).is_err(), "a byte lost");
        assert!(Checker::new(1).check(&right).is_err(), "another stream's");
    }
}
