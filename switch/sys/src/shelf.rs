//! Descriptors beyond those a process may have: each shelf is a thread with a table of descriptors of its
//! own.
//!
//! # Theory of operation
//! A process without the right to raise the limit of descriptors (`RLIMIT_NOFILE`) cannot hold more in one
//! table, but in several. A descriptor on a shelf is a number in the shelf's table and means nothing, or
//! something else, in that of the process: so it is opened, worked on and closed there, and never leaves.
//! What it stands for, such as a port, is held as by any other descriptor.
//!
//! # Kernel facts
//! * `close_range` with `CLOSE_RANGE_UNSHARE` gives the calling thread a table of its own with only the
//!   descriptors outside the range (Linux 5.9, close_range(2)).
//! * The limit is that of a table: the least number a new descriptor must be below.
//! * A table goes with its last thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;

type Job = Box<dyn FnOnce(&mut Vec<OwnedFd>) + Send>;

/// The first descriptor that a shelf does not share: those before it are the standard streams.
const FIRST: libc::c_uint = 3;

/// A table of descriptors of its own. They are closed when it is dropped, which waits for that.
#[derive(Debug)]
pub struct Shelf {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Shelf {
    /// An empty one.
    ///
    /// # Errors
    /// When there can be no further thread, or the kernel is too old.
    pub fn new() -> io::Result<Self> {
        let (jobs, told) = channel::<Job>();
        let (say, ready) = channel();
        let thread = Builder::new().name("shelf".to_owned()).spawn(move || {
            let own = own_table();
            let failed = own.is_err();
            if say.send(own).is_err() || failed {
                return;
            }
            let mut held = Vec::new();
            told.into_iter().for_each(|job| job(&mut held));
        })?;
        let shelf = Self { jobs: Some(jobs), thread: Some(thread) };
        ready.recv().map_err(io::Error::other)??;
        Ok(shelf)
    }

    /// Has work done on what is held, in the table it is held in, and waits for its outcome. No descriptor
    /// may come in or go out by the closure.
    ///
    /// # Errors
    /// When earlier work panicked.
    pub fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<OwnedFd>) -> T + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("a thread that holds descriptors has ended");
        let (say, hear) = channel();
        let job = Box::new(move |held: &mut Vec<OwnedFd>| {
            // The asker is waiting below.
            let _ = say.send(work(held));
        });
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        hear.recv().map_err(|_| gone())
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn own_table() -> io::Result<()> {
    // SAFETY: the call takes numbers only. The table it leaves behind is that of the process, unchanged;
    // nothing on this thread has or will have a descriptor that was opened there.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_on_a_shelf_is_held_there_and_nowhere_else() {
        let shelf = Shelf::new().expect("a shelf");
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let opened = shelf.work(|held| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let port = listener.local_addr().expect("bound").port();
            held.push(listener.into());
            (port, held[0].as_raw_fd())
        });
        let (port, number) = opened.expect("work");
        assert_eq!(number, 3, "its table has the standard streams only");
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "the port is held");
        own.local_addr().expect("descriptors of the process are untouched");
        drop(shelf);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free when the shelf is gone");
    }

    #[test]
    fn a_panic_is_an_error_from_then_on() {
        let shelf = Shelf::new().expect("a shelf");
        assert!(shelf.work(|_| panic!("as intended")).is_err());
        assert!(shelf.work(|_| ()).is_err());
    }
}
