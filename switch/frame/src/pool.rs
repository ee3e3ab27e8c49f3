//! The store of buffers that frames live in.
//!
//! # Theory of operation
//!
//! A pool is one slab, made once and cut into slots of [`SLOT_BYTES`]; a slot holds the largest frame
//! there is. A slot is owned by exactly one [`Frame`] or by the pool, and comes back only through
//! [`Pool::free`]: ownership is what makes a frame impossible to use twice.
//!
//! * Slots are handed out last-in first-out, so a quiet switch works in a few slots that stay in cache.
//! * The slab is zero pages until touched: memory in use follows the traffic there has been.
//! * A stride of 64 KiB would put the start of every slot on the same cache sets. [`SLOT_BYTES`] staggers
//!   ("colours") the starts.
//! * At the limit [`Pool::take`] answers `None`; the caller stops receiving until slots come back.

use crate::frame::Frame;
use crate::slot::{SLOT_BYTES, Slot};

const CACHE_LINE: usize = 64;

/// A fixed number of slots. See the [module](self) for how it works.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Slot>,
    capacity: usize,
}

impl Pool {
    /// Makes a pool of `slots`. Its slab is never given back: a process makes one pool and keeps it.
    pub fn new(slots: usize) -> Self {
        let slab = Vec::leak(vec![0u8; slots * SLOT_BYTES + CACHE_LINE]);
        let aligned = slab.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
        let free: Vec<Slot> = slab[aligned..].chunks_exact_mut(SLOT_BYTES).take(slots).rev().collect();
        Self { capacity: free.len(), free }
    }

    /// An empty frame, or `None` when every slot is in use.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop().map(Frame::empty)
    }

    /// Takes a frame's slot back.
    pub fn free(&mut self, frame: Frame) {
        self.free.push(frame.into_slot());
    }

    /// Slots there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots not in use.
    pub fn available(&self) -> usize {
        self.free.len()
    }
}
