//! The mirror: flows, written down where they outlive this process.
//!
//! # Theory of operation
//! Control makes the memory and hands it to one datapath after another. Each flow has a place by the number
//! of its record. What has changed is written before the frames leave that changed it, so nobody hears of a
//! flow that is not written down; a burst that changes none costs one look. The process may be killed at any
//! instruction, so the order of writes is that of [`Record`]: a flow is there whole or not at all.
//!
//! ```text
//!  layout · records ever used · taking up │ 8 words a flow … │ 8 words more a flow, of IPv6 only …
//! ```
//!
//! Pages take memory once written: 64 bytes a flow of IPv4, 128 of IPv6.
//!
//! A datapath that dies over taking up what it finds would die again and again: who finds that it was tried
//! before takes up nothing.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use vswitch_nat::Record;
use vswitch_sys::shared::SharedCells;

/// Flows there may be.
pub const FLOWS: usize = 1_000_000;

const LAYOUT: usize = 0;
const USED: usize = 1;
/// The word that says whether somebody is taking up the records.
pub const TAKING_UP: usize = 2;
/// Words before those of the first record.
pub const HEADER: usize = 8;
/// Words of a record of IPv4, and as many more of one of IPv6.
pub const STRIDE: usize = 8;
const CELLS: usize = HEADER + 2 * STRIDE * FLOWS;
const _: () = assert!(Record::WORDS_V4 == STRIDE && Record::WORDS <= 2 * STRIDE);

/// The memory in which flows are written down.
#[derive(Debug)]
pub struct Mirror {
    cells: SharedCells,
}

/// The state of a mirror that was written before.
#[derive(Clone, Copy, Debug)]
pub struct TakingUp {
    /// Whether its records can be read, and nobody died over them before.
    pub is_usable: bool,
    /// Records ever used: those of lower numbers.
    pub used: u32,
}

impl Mirror {
    /// A new mirror, without a flow.
    ///
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { cells: SharedCells::new(c"vswitch-flows", CELLS)? })
    }

    /// The mirror that control made, mapped.
    ///
    /// # Errors
    /// When the descriptor is not that of a mirror.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { cells: SharedCells::map(fd, CELLS)? })
    }

    /// Whether the layout is that of this program, and how many records were ever used. From now on it is,
    /// and somebody is taking them up: until [`settle`](Self::settle), nobody else does.
    pub fn begin_taking_up(&self) -> TakingUp {
        let was_tried = self.cells[TAKING_UP].swap(1, Relaxed) != 0;
        let is_known = self.cells[LAYOUT].swap(Record::LAYOUT, Relaxed) == Record::LAYOUT;
        let used = u32::try_from(self.cells[USED].load(Relaxed)).unwrap_or(0);
        TakingUp { is_usable: is_known && !was_tried, used }
    }

    /// Notes that the datapath that took up the records outlived it.
    pub fn settle(&self) {
        self.cells[TAKING_UP].store(0, Release);
    }

    /// Writes down a record, or that there is none of this number.
    pub fn write(&self, number: u32, record: Option<Record>) {
        let (first, more) = self.places(number);
        let Some(record) = record else { return first[Record::LIFE].store(0, Release) };
        let (words, words_v6) = record.words().split_at(Record::WORDS_V4);
        let is_same =
            has(&first[..Record::LIFE], &words[..Record::LIFE]) && (!record.is_v6() || has(more, words_v6));
        if !is_same {
            first[Record::LIFE].store(0, Relaxed);
            fence(Release);
            put(&first[..Record::LIFE], &words[..Record::LIFE]);
            if record.is_v6() {
                put(more, words_v6);
            }
        }
        put(&first[Record::LIFE + 1..], &words[Record::LIFE + 1..]);
        let used = &self.cells[USED];
        used.store(used.load(Relaxed).max(u64::from(number) + 1), Relaxed);
        first[Record::LIFE].store(words[Record::LIFE], Release);
    }

    /// The record of this number, which may be of a flow that has ended.
    pub fn read(&self, number: u32) -> Record {
        let (first, more) = self.places(number);
        let mut words = [0; Record::WORDS];
        let cells = first.iter().chain(more);
        words.iter_mut().zip(cells).take(Record::WORDS_V4).for_each(load);
        if Record::from_words(words).is_v6() {
            words.iter_mut().zip(first.iter().chain(more)).for_each(load);
        }
        Record::from_words(words)
    }

    /// The words of a record: those of every flow, and those of IPv6 only.
    fn places(&self, number: u32) -> (&[AtomicU64], &[AtomicU64]) {
        let at = HEADER + STRIDE * (number as usize).min(FLOWS - 1);
        let more = at + STRIDE * FLOWS;
        (&self.cells[at..at + STRIDE], &self.cells[more..more + STRIDE])
    }
}

impl Deref for Mirror {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.cells
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cells.as_fd()
    }
}

fn has(cells: &[AtomicU64], words: &[u64]) -> bool {
    cells.iter().zip(words).all(|(cell, word)| cell.load(Relaxed) == *word)
}

fn put(cells: &[AtomicU64], words: &[u64]) {
    cells.iter().zip(words).for_each(|(cell, word)| cell.store(*word, Relaxed));
}

fn load((word, cell): (&mut u64, &AtomicU64)) {
    *word = cell.load(Relaxed);
}
