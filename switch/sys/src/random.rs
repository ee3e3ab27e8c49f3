//! Random bytes, from the kernel.
//!
//! Kernel fact relied on: `getrandom` gives up to 256 bytes whole, whatever signals come (getrandom(2)).

use std::io;

/// Random bytes that nobody can guess.
///
/// # Errors
/// On a kernel before 3.17.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: the kernel writes at most `N` bytes to a buffer of `N`.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(written) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_draws_are_alike() {
        let draw = || super::bytes::<32>().expect("random");
        assert_ne!(draw(), draw());
    }
}
