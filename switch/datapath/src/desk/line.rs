//! The line to control: one connection at a time, and the listener where the next one comes in.
//!
//! Control may die; the datapath goes on, and the next control connects to the listener. It must be root, as
//! control is: nobody else may reconfigure the switch or take its descriptors.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::parts::{self, Arrived, Assembly, GO_ON};
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, Listener, MESSAGE_BYTES_MAX};

use crate::ready::{CHANNEL, LISTENER};

/// The user that control runs as.
const ROOT: u32 = 0;

/// A message and the descriptors that rode along.
type Message = (Vec<u8>, Vec<OwnedFd>);

/// The source of orders: the channel to control, if there is one, and the listener.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Option<Channel>,
    listener: Listener,
    arriving: Assembly,
    /// Further parts of the answer that is being asked for, and the descriptors of the last.
    unsent: VecDeque<Vec<u8>>,
    unsent_fds: Vec<Arc<OwnedFd>>,
    buffer: Vec<u8>,
}

impl Line {
    /// A line with the channel to the control that started this process; `poller` waits for it already.
    pub(crate) fn new(channel: Channel, listener: Listener, poller: &Poller) -> io::Result<Self> {
        poller.add(listener.as_fd(), LISTENER)?;
        Ok(Self {
            channel: Some(channel),
            listener,
            arriving: Assembly::default(),
            unsent: VecDeque::new(),
            unsent_fds: Vec::new(),
            buffer: vec![0; MESSAGE_BYTES_MAX],
        })
    }

    /// Whether there is no control.
    pub(crate) fn is_dead(&self) -> bool {
        self.channel.is_none()
    }

    /// The next message and the descriptors that rode along, or a line that says why there is none; `None`
    /// when nothing came. When control is gone the next one is let in, if it is waiting.
    pub(crate) fn receive(&mut self, poller: &Poller) -> Option<Result<Message, String>> {
        loop {
            let (length, fds) = self.receive_packet(poller)?;
            match self.arriving.take(&self.buffer[..length]) {
                Ok(Arrived::Whole(text)) => return Some(Ok((text, fds))),
                Ok(Arrived::Part) => self.send_packet(GO_ON, &[]),
                Ok(Arrived::GoOn) => self.send_next(),
                Err(malformed) => return Some(Err(malformed.to_string())),
            }
        }
    }

    fn receive_packet(&mut self, poller: &Poller) -> Option<(usize, Vec<OwnedFd>)> {
        loop {
            if let Some(channel) = &self.channel {
                match channel.receive_all(&mut self.buffer) {
                    Ok(received) => return received,
                    // The reason does not matter: nobody can be talked to there any more.
                    Err(_) => {
                        let _ = poller.remove(channel.as_fd());
                        self.channel = None;
                        self.arriving = Assembly::default();
                        self.unsent.clear();
                        self.unsent_fds.clear();
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

    /// Sends an answer and the descriptors that ride along. An answer that cannot be sent is lost with the
    /// control that it was for.
    pub(crate) fn send(&mut self, text: &[u8], fds: Vec<Arc<OwnedFd>>) {
        self.unsent = parts::packets(text).collect();
        self.unsent_fds = fds;
        self.send_next();
    }

    fn send_next(&mut self) {
        let Some(packet) = self.unsent.pop_front() else { return };
        let fds = if self.unsent.is_empty() { std::mem::take(&mut self.unsent_fds) } else { Vec::new() };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.send_packet(&packet, &fds);
    }

    fn send_packet(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) {
        if let Some(channel) = &self.channel {
            let _ = channel.send(packet, fds);
        }
    }
}
