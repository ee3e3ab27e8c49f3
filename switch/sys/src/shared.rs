//! Memory that control and datapath share, and that outlives either: a `memfd` mapped by both.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A fixed number of 64-bit cells, zero at first. Pages take memory once written.
#[derive(Debug)]
pub struct SharedCells {
    fd: OwnedFd,
    cells: NonNull<AtomicU64>,
    count: usize,
}

impl SharedCells {
    /// Makes `count` cells; `name` is shown in `/proc`.
    ///
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub fn new(name: &CStr, count: usize) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
        let bytes = i64::try_from(count * size_of::<AtomicU64>()).map_err(io::Error::other)?;
        nix::unistd::ftruncate(&fd, bytes)?;
        Self::map(fd, count)
    }

    /// Maps the `count` cells that another process made.
    ///
    /// # Errors
    /// `InvalidInput` when `fd` holds fewer than `count`.
    pub fn map(fd: OwnedFd, count: usize) -> io::Result<Self> {
        let held = nix::sys::stat::fstat(&fd)?.st_size;
        let bytes = count * size_of::<AtomicU64>();
        let enough = usize::try_from(held).is_ok_and(|held| held >= bytes);
        let length = NonZeroUsize::new(bytes).filter(|_| enough).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses a free address; the file holds at least `bytes`, nobody shrinks it,
        // and any bytes are a valid `AtomicU64`.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &fd, 0)? };
        Ok(Self { fd, cells: start.cast(), count })
    }
}

impl Deref for SharedCells {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `cells` is a mapping of `count` cells, page-aligned, that lives as long as `self`;
        // other processes change the cells only through atomics.
        unsafe { std::slice::from_raw_parts(self.cells.as_ptr(), self.count) }
    }
}

impl Drop for SharedCells {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it outlives the value. A failure
        // would only leave it mapped.
        let _ = unsafe { munmap(self.cells.cast(), self.count * size_of::<AtomicU64>()) };
    }
}

impl AsFd for SharedCells {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for SharedCells {}
// SAFETY: its cells are atomics, and nothing else is reached through it.
unsafe impl Sync for SharedCells {}
