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

use crate::checksum::Sum;
use crate::drop::DropReason;
use crate::frame::Frame;
use crate::headers::{Transport, be16};
use crate::lengths::{self, Finish, put16};
use crate::offload::{Accepts, Checksum, Gso, Offload};
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
                None => complete(self.frame, &mut piece),
            }
            pieces.push(piece);
            self.next += 1;
        }
        Ok(until < self.count())
    }

    fn payload(&self) -> usize {
        self.frame.len() - self.frame.headers.payload_offset()
    }

    /// Makes `piece` number `next` of the super-frame.
    fn cut(&self, gso: Gso, piece: &mut Frame) {
        let headers = self.frame.headers;
        let bytes = self.frame.bytes();
        let (network, transport, payload) =
            (headers.network_offset(), headers.transport_offset(), headers.payload_offset());
        let from = self.next * usize::from(gso.size);
        let to = (from + usize::from(gso.size)).min(self.payload());
        piece.fill_parts(&bytes[..payload], &bytes[payload + from..payload + to]);
        piece.headers = headers;
        if headers.is_ipv4() && !gso.same_id {
            let id = be16(bytes, network + 4).wrapping_add(low16(self.next));
            lengths::replace_ipv4(piece.bytes_mut(), network, network + 4, id);
        }
        // The sum the sender left is of a pseudo-header with the super-frame's length: take that out.
        let field = transport + usize::from(lengths::checksum_offset(headers.transport()));
        let pseudo = Sum::ZERO.add_word(be16(bytes, field)).add_word(!low16(bytes.len() - transport));
        if headers.transport() == Transport::Tcp {
            self.cut_tcp(piece.bytes_mut(), transport, from);
        }
        lengths::seal(piece, pseudo, self.finish);
    }

    /// Sequence number and flags of the segment whose payload starts at `from`.
    fn cut_tcp(&self, piece: &mut [u8], transport: usize, from: usize) {
        let sequence = &mut piece[transport + 4..transport + 8];
        let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
        let offset = u32::try_from(from).unwrap_or(0);
        sequence.copy_from_slice(&first.wrapping_add(offset).to_be_bytes());
        let flags = &mut piece[transport + TCP_FLAGS_AT];
        if self.next > 0 {
            *flags &= !CWR;
        }
        if self.next + 1 < self.count() {
            *flags &= !(FIN | PSH);
        }
    }
}

/// Makes `piece` a copy of `frame` with its partial checksum finished, as `skb_checksum_help` does: the
/// sum runs to the end of the frame, and zero is written as its other form.
fn complete(frame: &Frame, piece: &mut Frame) {
    piece.fill(frame.bytes());
    piece.headers = frame.headers;
    piece.offload = Offload { checksum: Checksum::Complete, gso: None };
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        let (start, bytes) = (usize::from(start), piece.bytes_mut());
        let sum = Sum::ZERO.add_bytes(&bytes[start..]).checksum();
        put16(bytes, start + usize::from(offset), if sum == 0 { 0xffff } else { sum });
    }
}

/// The low 16 bits, as counters of 16 bits wrap.
#[expect(clippy::cast_possible_truncation, reason = "the rest is masked off")]
fn low16(number: usize) -> u16 {
    (number & 0xffff) as u16
}
