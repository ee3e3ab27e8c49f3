//! Taking a descriptor out of another process.
//!
//! A pidfd names a process for ever, unlike its number, which is used again; it becomes readable when
//! the process ends (pidfd_open(2)). `pidfd_getfd` needs the right to trace the process (pidfd_getfd(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A process, for as long as the value lives.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
}

impl Pidfd {
    /// The process with this number. `ESRCH` if there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: the call takes two integers; what it returns, unless negative, is a new descriptor.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
        Ok(Self { fd: new_descriptor(result)? })
    }

    /// A duplicate of the process's descriptor `number`. `EBADF` if it has none, `EPERM` if it may not
    /// be looked into.
    pub fn take(&self, number: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: the call takes three integers, the first a descriptor we own; what it returns, unless
        // negative, is a new descriptor.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.as_raw_fd(), number, 0) };
        new_descriptor(result)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn new_descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the callers' system calls return descriptors nobody else owns, close-on-exec.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};

    #[test]
    fn takes_a_working_duplicate() {
        let (mut reader, writer) = pipe().expect("pipe");
        let this = Pidfd::open(std::process::id()).expect("open");
        let mut copy = std::fs::File::from(this.take(writer.as_raw_fd()).expect("take"));
        drop(writer);
        copy.write_all(b"hello").expect("write");
        drop(copy);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn says_what_is_missing() {
        let this = Pidfd::open(std::process::id()).expect("open");
        assert_eq!(this.take(100_000).expect_err("no such descriptor").raw_os_error(), Some(libc::EBADF));
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        child.wait().expect("wait");
        assert_eq!(Pidfd::open(child.id()).expect_err("gone").raw_os_error(), Some(libc::ESRCH));
    }
}
