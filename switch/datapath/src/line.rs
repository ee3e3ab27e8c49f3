//! The line to control: one connection at a time, and the listener where the next one comes in.
//!
//! Control may die; the datapath goes on, and whoever is control next connects to the listener. It must
//! be root, as control is: nobody else may reconfigure the switch or take its descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, Listener};

use super::{CHANNEL, LISTENER};

/// The user that control runs as.
const ROOT: u32 = 0;

/// Where commands come from.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Option<Channel>,
    listener: Listener,
}

impl Line {
    /// A line with the channel to the control that started this process; `poller` waits for it already.
    pub(crate) fn new(channel: Channel, listener: Listener, poller: &Poller) -> io::Result<Self> {
        poller.add(listener.as_fd(), LISTENER)?;
        Ok(Self { channel: Some(channel), listener })
    }

    /// Whether there is no control.
    pub(crate) fn is_dead(&self) -> bool {
        self.channel.is_none()
    }

    /// The next message, its length and the descriptors that rode along; `None` when there is none now.
    /// When control is gone the next one is let in, if it is waiting.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], poller: &Poller) -> Option<(usize, Vec<OwnedFd>)> {
        loop {
            if let Some(channel) = &self.channel {
                match channel.receive_all(buffer) {
                    Ok(received) => return received,
                    // Whatever the reason, nobody can be talked to there any more.
                    Err(_) => {
                        let _ = poller.remove(channel.as_fd());
                        self.channel = None;
                    }
                }
            }
            // A connection that cannot be taken is its maker's trouble: frames are moved all the same.
            let next = self.listener.accept().ok().flatten()?;
            let is_root = next.peer().is_ok_and(|peer| peer.user == ROOT);
            if is_root && poller.add(next.as_fd(), CHANNEL).is_ok() {
                self.channel = Some(next);
            }
        }
    }

    /// Sends an answer and the descriptors that ride along. What cannot be sent is lost with the control
    /// that it was for.
    pub(crate) fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) {
        if let Some(channel) = &self.channel {
            let _ = channel.send(message, fds);
        }
    }
}
