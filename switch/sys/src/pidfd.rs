//! Processes that are not ours: taking a descriptor out of one, waiting for its end, ending it.
//!
//! A pidfd names a process for ever, unlike its number, which is used again; it becomes readable when
//! the process ends (pidfd_open(2)). `pidfd_getfd` needs the right to trace the process (pidfd_getfd(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

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

    /// Ends the process at once (SIGKILL). `ESRCH` if it has ended.
    pub fn kill(&self) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the call takes a descriptor we own, a number, a pointer that may be null, and flags.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), libc::SIGKILL, none, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Another value for the same process.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// The process for a tokio runtime, which must be the current one: readable once it has ended.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the value owns its descriptor and never has another, so it stays open, and the same,
        // for as long as the `AsyncFd` owns the value.
        Ok(unsafe { AsyncFd::register(self) }?)
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

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
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
    fn a_process_is_ended_once() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let process = Pidfd::open(child.id()).expect("open");
        process.try_clone().expect("clone").kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(process.kill().expect_err("ended").raw_os_error(), Some(libc::ESRCH));
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
