//! Waiting for several sockets at once.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Several descriptors, known by their index, and the time to wait for one of them.
pub(crate) struct Ready {
    epoll: Epoll,
    wait: EpollTimeout,
    events: Vec<EpollEvent>,
}

impl Ready {
    pub(crate) fn new(
        descriptors: impl IntoIterator<Item = impl AsFd>,
        interest: EpollFlags,
        wait: Duration,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut events = Vec::new();
        for (index, descriptor) in (0..).zip(descriptors) {
            epoll.add(descriptor, EpollEvent::new(interest, index))?;
            events.push(EpollEvent::empty());
        }
        let wait = EpollTimeout::try_from(wait).map_err(io::Error::other)?;
        Ok(Self { epoll, wait, events })
    }

    /// The indices of those that are ready; none when time is up.
    pub(crate) fn next(&mut self) -> io::Result<impl Iterator<Item = usize>> {
        let count = loop {
            // A process that was stopped and goes on is interrupted, handler or none (signal(7)).
            match self.epoll.wait(&mut self.events, self.wait) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        Ok(self.events[..count].iter().map(index))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it was an index when it was registered")]
fn index(event: &EpollEvent) -> usize {
    event.data() as usize
}
