//! Counters: plain cells in memory that control reads while datapath writes, and that outlive either.
//!
//! One writer, so adding is a load and a store without a lock. `docs/counters.md` explains each.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use vswitch_frame::{DropReason, PortId};
use vswitch_sys::shared::SharedCells;

/// A counter of a port, beside those of its drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Frames received from the port; a super-frame is one.
    ReceivedFrames,
    /// Bytes received from the port.
    ReceivedBytes,
    /// Frames handed to the port's receiver; a super-frame is one.
    SentFrames,
    /// Bytes handed to the port's receiver.
    SentBytes,
    /// Frames that went to the receiver as part of another one's super-frame.
    Coalesced,
    /// Super-frames that were split because the receiver takes none.
    Split,
    /// Source addresses not learned because a limit was reached.
    NotLearned,
    /// Flows of the port's, let through by rules and walls, that were forgotten since it had too many.
    FlowsDisplaced,
    /// 1 once the port's interface has vanished under it.
    Gone,
}

const COUNTERS: usize = 9;
const ROW: usize = COUNTERS + DropReason::COUNT;
const CELLS: usize = PortId::LIMIT * ROW;

/// The counters of every port.
#[derive(Debug)]
pub struct Counters {
    cells: SharedCells,
}

/// The counters of one port at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// [`Counter::ReceivedFrames`].
    pub received_frames: u64,
    /// [`Counter::ReceivedBytes`].
    pub received_bytes: u64,
    /// [`Counter::SentFrames`].
    pub sent_frames: u64,
    /// [`Counter::SentBytes`].
    pub sent_bytes: u64,
    /// [`Counter::Coalesced`].
    pub coalesced: u64,
    /// [`Counter::Split`].
    pub split: u64,
    /// [`Counter::NotLearned`].
    pub not_learned: u64,
    /// [`Counter::FlowsDisplaced`].
    pub flows_displaced: u64,
    /// [`Counter::Gone`].
    pub gone: bool,
    /// Drops, in the order of [`DropReason::ALL`].
    pub drops: Vec<u64>,
}

impl Default for PortCounters {
    /// All zero.
    fn default() -> Self {
        Self {
            received_frames: 0,
            received_bytes: 0,
            sent_frames: 0,
            sent_bytes: 0,
            coalesced: 0,
            split: 0,
            not_learned: 0,
            flows_displaced: 0,
            gone: false,
            drops: vec![0; DropReason::COUNT],
        }
    }
}

impl Counters {
    /// New counters, all zero.
    ///
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { cells: SharedCells::new(c"vswitch-counters", CELLS)? })
    }

    /// The counters that control made, mapped.
    ///
    /// # Errors
    /// When the descriptor is not that of counters.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { cells: SharedCells::map(fd, CELLS)? })
    }

    /// Adds `amount` to a counter of a port.
    #[inline]
    pub fn add(&self, port: PortId, counter: Counter, amount: u64) {
        self.add_at(port, counter as usize, amount);
    }

    /// Counts `amount` dropped frames.
    #[inline]
    pub fn drop(&self, port: PortId, reason: DropReason, amount: u64) {
        self.add_at(port, COUNTERS + reason.index(), amount);
    }

    #[inline]
    fn add_at(&self, port: PortId, at: usize, amount: u64) {
        if let Some(cell) = self.cells.get(port.index() * ROW + at) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// Makes the counters of a port zero, for its next owner.
    pub fn reset(&self, port: PortId) {
        self.row(port).iter().for_each(|cell| cell.store(0, Relaxed));
    }

    /// The counters of a port.
    pub fn read(&self, port: PortId) -> PortCounters {
        let row = self.row(port);
        let get = |counter: Counter| row[counter as usize].load(Relaxed);
        PortCounters {
            received_frames: get(Counter::ReceivedFrames),
            received_bytes: get(Counter::ReceivedBytes),
            sent_frames: get(Counter::SentFrames),
            sent_bytes: get(Counter::SentBytes),
            coalesced: get(Counter::Coalesced),
            split: get(Counter::Split),
            not_learned: get(Counter::NotLearned),
            flows_displaced: get(Counter::FlowsDisplaced),
            gone: get(Counter::Gone) != 0,
            drops: row[COUNTERS..].iter().map(|cell| cell.load(Relaxed)).collect(),
        }
    }

    /// [`Counter::Gone`] of a port.
    pub fn is_gone(&self, port: PortId) -> bool {
        self.row(port)[Counter::Gone as usize].load(Relaxed) != 0
    }

    fn row(&self, port: PortId) -> &[std::sync::atomic::AtomicU64] {
        let from = port.index().min(PortId::LIMIT - 1) * ROW;
        &self.cells[from..from + ROW]
    }
}

impl AsFd for Counters {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cells.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_changes_one_cell_of_one_port() {
        let counters = Counters::new().expect("memory");
        counters.add(PortId(3), Counter::SentBytes, 60);
        counters.drop(PortId(3), DropReason::Runt, 2);
        let mut expected = PortCounters { sent_bytes: 60, ..PortCounters::default() };
        expected.drops[DropReason::Runt.index()] = 2;
        assert_eq!(counters.read(PortId(3)), expected);
        assert_eq!(counters.read(PortId(2)), PortCounters::default());
        assert_eq!(counters.read(PortId(4)), PortCounters::default());
        counters.reset(PortId(3));
        assert_eq!(counters.read(PortId(3)), PortCounters::default());
    }
}
