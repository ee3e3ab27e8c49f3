//! Many frames of one flow into one super-frame.
//!
//! # Theory of operation
//! A write into a TAP runs the receiver's whole stack, so one write for many datagrams is what makes a
//! userspace switch faster than the kernel's bridge. A *run* is a frame and those behind it in the same
//! burst that continue it: datagrams of one flow and size (UDP segmentation), or consecutive segments of
//! one connection (TCP segmentation). It must be invisible: the same datagrams with the same headers in
//! the same order within the flow.
//!
//! * **Who may take part** is said by [`crate::run`], for one frame and for two.
//! * **Order.** A frame that does not continue the run of its flow ends it, and a fragment ends every
//!   run, because it may belong to any flow.
//! * **Limits.** [`run::SEGMENTS_MAX`] segments and 65,535 bytes of IP. Runs are looked up in sets of
//!   [`WAYS`]; when a set is full its oldest run takes no more.

use crate::flow::flow_hash;
use crate::frame::Frame;
use crate::offload::Accepts;
use crate::pool::Pool;
use crate::run::{self, Extent};

const SETS: usize = 256;
const WAYS: usize = 4;

/// A run: where its first frame is, and how far it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// [`Coalescer::era`] when it was opened; a run of another era is over.
    era: u64,
    hash: u32,
    head: u32,
    extent: Extent,
}

/// Finds runs and merges them. From one call to the next it keeps nothing but its memory.
#[derive(Debug)]
pub struct Coalescer {
    sets: Box<[[Run; WAYS]]>,
    /// Counts bursts and fragments: what ends every run.
    era: u64,
    seed: u64,
}

impl Coalescer {
    /// A coalescer whose hash is seeded by `seed`. Collisions cost speed and nothing else.
    pub fn new(seed: u64) -> Self {
        Self { sets: vec![[Run::default(); WAYS]; SETS].into(), era: 0, seed }
    }

    /// Merges the runs in `frames`, which leave for one receiver in this order, as far as it `accepts`
    /// super-frames. Merged frames go back to `pool`; the others keep their order. The frames must have
    /// been parsed.
    pub fn coalesce(&mut self, frames: &mut Vec<Frame>, accepts: Accepts, pool: &mut Pool) {
        self.era += 1;
        let mut merged = false;
        for index in 0..frames.len() {
            let (before, rest) = frames.split_at_mut(index);
            let frame = &mut rest[0];
            if frame.headers.is_fragment() {
                self.era += 1;
            }
            let Some(kind) = run::kind_of(&frame.headers) else { continue };
            let (era, hash) = (self.era, flow_hash(frame.bytes(), &frame.headers, self.seed));
            let run = self.run_of(hash);
            if !accepts.takes_kind(kind) || !frame.as_segment().may_take_part() {
                run.era = 0;
            } else if run.era == era && run.continued_by(&before[run.head as usize], frame) {
                run.take(&mut before[run.head as usize], frame);
                frame.clear();
                merged = true;
            } else {
                *run = Run::open(era, hash, index, frame);
            }
        }
        if merged {
            frames.iter_mut().filter(|frame| is_unsealed(frame)).for_each(seal);
            frames.extract_if(.., |frame| frame.is_empty()).for_each(|frame| pool.free(frame));
        }
    }

    /// The open run of the flow with this hash, or else the run to overwrite: one that is over, or the
    /// oldest of its set.
    fn run_of(&mut self, hash: u32) -> &mut Run {
        let era = self.era;
        let set = &mut self.sets[hash as usize % SETS];
        let open = set.iter().position(|run| run.era == era && run.hash == hash);
        let over = || set.iter().position(|run| run.era != era);
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].head);
        let way = open.or_else(over).or_else(oldest).unwrap_or(0);
        let run = &mut set[way];
        if open.is_none() {
            run.era = 0;
        }
        run
    }
}

impl Run {
    #[expect(clippy::cast_possible_truncation, reason = "a burst is far shorter than 2^32 frames")]
    fn open(era: u64, hash: u32, index: usize, frame: &Frame) -> Self {
        Self { era, hash, head: index as u32, extent: Extent::of(frame.as_segment()) }
    }

    /// Whether `frame` is the next segment of the run that starts with `head`.
    fn continued_by(&self, head: &Frame, frame: &Frame) -> bool {
        let head = head.as_segment();
        self.extent.continued_by(head, head.payload().len(), frame.as_segment())
    }

    /// Appends the payload of `frame` to `head`. Lengths and checksums are left for [`seal`].
    fn take(&mut self, head: &mut Frame, frame: &Frame) {
        let next = frame.as_segment();
        let gso = self.extent.gso(head.as_segment(), next);
        if head.append(next.payload()).is_err() {
            return;
        }
        head.offload.gso = head.offload.gso.or(gso);
        self.extent.segments += 1;
        run::join_flags(head.bytes_mut(), next);
    }
}

/// Whether payload was appended since lengths and checksums were set.
fn is_unsealed(frame: &Frame) -> bool {
    frame.offload.gso.is_some() && frame.headers.end_offset() != frame.len()
}

fn seal(frame: &mut Frame) {
    let mut headers = frame.headers;
    let payload = frame.len() - headers.payload_offset();
    frame.offload.checksum = run::seal(frame.bytes_mut(), &mut headers, payload);
    frame.headers = headers;
}
