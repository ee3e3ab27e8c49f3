//! A super-frame into the frames it stands for, and a partial checksum into a finished one.
//!
//! # Theory of operation
//! For receivers that do not take the work themselves. What comes out is what the sender's kernel would
//! have sent without offloads (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`): equal pieces
//! of payload behind copies of the headers, the last piece maybe shorter; IPv4 identification and TCP
//! sequence count up; PSH and FIN stay on the last segment, CWR on the first. Checksums are carried on
//! from the super-frame's, so a wrong one stays wrong.
//!
//! A super-frame may stand for more frames than there are free slots, so it is split in batches.

use std::ops::Range;

use crate::checksum::Sum;
use crate::drop::DropReason;
use crate::frame::Frame;
use crate::headers::{Transport, be16};
use crate::lengths::{self, Finish};
use crate::offload::{Accepts, Checksum, Gso};
use crate::pool::Pool;

/// Frames in one batch of pieces, at most.
pub const PIECES_MAX: usize = 64;

const TCP_FLAGS_AT: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Splits one frame, batch by batch. The frame must have been parsed.
#[derive(Debug)]
pub struct Splitter<'a> {
    frame: &'a Frame,
    finish: Finish,
    next: usize,
}

impl<'a> Splitter<'a> {
    /// Starts to split `frame` for a receiver that does not take it as it is.
    pub fn new(frame: &'a Frame, accepts: Accepts) -> Self {
        let finish = if accepts.checksum { Finish::Partial } else { Finish::Complete };
        Self { frame, finish, next: 0 }
    }

    /// Pieces there are: one, when only the checksum is to be finished.
    pub fn count(&self) -> usize {
        self.frame.offload.gso.map_or(1, |gso| self.payload().div_ceil(usize::from(gso.size)).max(1))
    }

    /// Appends the next pieces to `pieces`, at most [`PIECES_MAX`]; `false` when there are no more.
    ///
    /// # Errors
    /// [`DropReason::TxNoBuffer`] when the pool is empty. The rest of the frame is then lost.
    pub fn next_batch(&mut self, pool: &mut Pool, pieces: &mut Vec<Frame>) -> Result<bool, DropReason> {
        let until = self.count().min(self.next + PIECES_MAX);
        while self.next < until {
            let mut piece = pool.take().ok_or(DropReason::TxNoBuffer)?;
            match self.frame.offload.gso {
                Some(gso) => self.cut(gso, &mut piece),
                None => copy_completed(self.frame, &mut piece),
            }
            pieces.push(piece);
            self.next += 1;
        }
        Ok(until < self.count())
    }

    fn payload(&self) -> usize {
        self.frame.len() - self.frame.headers.payload_offset()
    }

    /// Appends the headers of piece `number` to `heads`, as they are when the piece stands alone, and
    /// returns where in the frame the rest of the piece is: what a gathered write needs, which copies no
    /// payload.
    pub fn gather(&self, number: usize, heads: &mut Vec<u8>) -> Range<usize> {
        let bytes = self.frame.bytes();
        let at = heads.len();
        let Some(gso) = self.frame.offload.gso else {
            let length = completed_head(self.frame);
            heads.extend_from_slice(&bytes[..length]);
            self.frame.offload.complete(&mut heads[at..], &bytes[length..]);
            return length..bytes.len();
        };
        let rest = self.payload_of(number, gso);
        heads.extend_from_slice(&bytes[..self.frame.headers.payload_offset()]);
        self.write_headers(gso, number, &mut heads[at..], &bytes[rest.clone()]);
        rest
    }

    /// The place of piece `number`'s payload in the super-frame.
    fn payload_of(&self, number: usize, gso: Gso) -> Range<usize> {
        let from = self.frame.headers.payload_offset() + number * usize::from(gso.size);
        from..(from + usize::from(gso.size)).min(self.frame.len())
    }

    /// Makes `piece` number `next` of the super-frame.
    fn cut(&self, gso: Gso, piece: &mut Frame) {
        let headers = self.frame.headers;
        let (bytes, rest) = (self.frame.bytes(), self.payload_of(self.next, gso));
        piece.fill_parts(&bytes[..headers.payload_offset()], &bytes[rest]);
        let (head, payload) = piece.bytes_mut().split_at_mut(headers.payload_offset());
        piece.offload.checksum = self.write_headers(gso, self.next, head, payload);
        piece.headers = headers;
        piece.headers.set_end(piece.len());
    }

    /// Makes `head`, a copy of the super-frame's headers, those of piece `number` with this `payload`.
    fn write_headers(&self, gso: Gso, number: usize, head: &mut [u8], payload: &[u8]) -> Checksum {
        let headers = &self.frame.headers;
        let bytes = self.frame.bytes();
        let (network, transport) = (headers.network_offset(), headers.transport_offset());
        if headers.is_ipv4() && !gso.same_id {
            let id = be16(bytes, network + 4).wrapping_add(low16(number));
            lengths::replace_ipv4(head, network, network + 4, id);
        }
        // The sum the sender left is of a pseudo-header with the super-frame's length: take that out.
        let field = transport + usize::from(lengths::checksum_offset(headers.transport()));
        let pseudo = Sum::ZERO.add_word(be16(bytes, field)).add_word(!low16(bytes.len() - transport));
        if headers.transport() == Transport::Tcp {
            self.cut_tcp(head, transport, number, gso);
        }
        lengths::seal(head, headers, payload, pseudo, self.finish)
    }

    /// Sequence number and flags of segment `number`.
    fn cut_tcp(&self, head: &mut [u8], transport: usize, number: usize, gso: Gso) {
        let sequence = &mut head[transport + 4..transport + 8];
        let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
        let offset = u32::try_from(number * usize::from(gso.size)).unwrap_or(0);
        sequence.copy_from_slice(&first.wrapping_add(offset).to_be_bytes());
        let flags = &mut head[transport + TCP_FLAGS_AT];
        if number > 0 {
            *flags &= !CWR;
        }
        if number + 1 < self.count() {
            *flags &= !(FIN | PSH);
        }
    }
}

/// Makes `piece` a copy of `frame` with its partial checksum finished.
fn copy_completed(frame: &Frame, piece: &mut Frame) {
    piece.fill(frame.bytes());
    piece.headers = frame.headers;
    frame.offload.complete(piece.bytes_mut(), &[]);
}

/// The number of bytes of a frame that is not split which must be rewritten to finish its checksum: its
/// headers, and all up to the checksum where that is behind them; what is summed of it has an even length.
fn completed_head(frame: &Frame) -> usize {
    let headers = frame.headers.payload_offset();
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return headers };
    let start = usize::from(start);
    let end = headers.max(start + usize::from(offset) + 2);
    (end + (end - start) % 2).min(frame.len())
}

/// The low 16 bits, as counters of 16 bits wrap.
#[expect(clippy::cast_possible_truncation, reason = "the rest is masked off")]
fn low16(number: usize) -> u16 {
    (number & 0xffff) as u16
}
