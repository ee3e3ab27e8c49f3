//! Memory that goes back to the kernel as soon as it is not used.
//!
//! # Kernel facts
//! * glibc takes blocks above a threshold from the kernel one by one, zero and not there until they are
//!   touched, and gives them back when they are freed. Smaller ones come from a heap that only shrinks from
//!   its end, and are cleared by hand when they are to be zero.
//! * The threshold grows with the largest block that was ever freed, unless it is set (mallopt(3)).

use std::io;

/// Has blocks of so many bytes and above come from the kernel one by one, for the whole process.
///
/// # Errors
/// When the C library refuses the number.
pub fn give_back_from(bytes: usize) -> io::Result<()> {
    let threshold = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: `mallopt` takes two numbers, and may be called at any time.
    match unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, threshold) } {
        1 => Ok(()),
        _ => Err(io::Error::other("the C library refuses the threshold of its blocks")),
    }
}
