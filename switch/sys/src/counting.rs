//! An allocator that counts, for tests that say that something allocates nothing.
//!
//! It passes everything on to the system's allocator. Counts are of one thread, so that tests beside each
//! other do not count each other's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Made without an allocation and never dropped: the allocator itself asks for it.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far, those that made a buffer larger included. Zero for ever unless
/// [`Counting`] is the `#[global_allocator]`.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

/// The system's allocator, with a count.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

// SAFETY: each method hands its arguments to the system's allocator, which keeps the contract, and returns
// what that returns. Counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the block is from the system's allocator, as all of this one are; the rest is the caller's.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is from the system's allocator, as all of this one are; the rest is the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}
