//! Readiness: `epoll` through mio, edge-triggered.
//!
//! # Kernel facts
//! * An edge is reported once: whoever is told a descriptor is ready reads until it is empty, or keeps
//!   it on a list of its own.
//! * `sched_yield` between two looks lets the containers run when cores are scarce, and is what makes
//!   spinning affordable.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Events taken per look. More stay in the kernel for the next.
const EVENTS: usize = 256;

/// The descriptors that are waited for, each known by a number of the caller's.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
}

impl Poller {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS) })
    }

    /// Starts to wait for `fd` to have something to read. If it has already, that is reported.
    ///
    /// # Errors
    /// When it is waited for already, or is of a kind that cannot be waited for.
    pub fn add(&self, fd: BorrowedFd<'_>, number: usize) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(number), Interest::READABLE)
    }

    /// Starts to wait for `fd` to have something to read or room to write, which are reported alike.
    ///
    /// # Errors
    /// When it is waited for already, or is of a kind that cannot be waited for.
    pub fn add_both_ways(&self, fd: BorrowedFd<'_>, number: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(number), interest)
    }

    /// Stops waiting for `fd`. To be called before its descriptor is closed: a duplicate elsewhere would
    /// keep it registered.
    ///
    /// # Errors
    /// When it was not waited for.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Waits until something is ready or `timeout` is over (`None`: as long as it takes), and reports
    /// the numbers of what became ready since it was last reported.
    ///
    /// # Errors
    /// Only when epoll itself is broken; a signal is no error.
    pub fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(usize)) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        self.events.iter().for_each(|event| ready(event.token().0));
        Ok(())
    }
}

/// Lets others run on this core before the next look.
pub fn yield_core() {
    std::thread::yield_now();
}
