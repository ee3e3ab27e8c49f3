//! Batches of datagrams: many sent or received in one system call.
//!
//! # Kernel facts
//! * `sendmmsg` and `recvmmsg` stop at the first message that fails and answer how many went before it;
//!   they fail only when the very first does.
//! * `MSG_WAITFORONE` blocks for the first message and takes what else is there.
//! * Both write only `msg_len`, `msg_flags` and, where a name is asked for, the name.

#![expect(
    clippy::cast_possible_truncation,
    reason = "constants and small lengths, cast to the types C wants"
)]

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Messages per system call.
pub const BATCH: usize = 64;

/// [`BATCH`] datagrams of one length, to change in place and send over and over.
pub struct SendBatch {
    datagrams: Vec<u8>,
    bytes: usize,
    targets: Vec<SockaddrStorage>,
    arrays: Arrays,
}

impl SendBatch {
    /// Room for datagrams of `bytes`. Datagram `n` goes to `targets[n % targets.len()]`, or where the
    /// socket is connected to when there are none.
    pub fn new(bytes: usize, targets: &[SocketAddr]) -> Self {
        let targets = targets.iter().map(|&target| target.into()).collect();
        Self { datagrams: vec![0; bytes * BATCH], bytes, targets, arrays: Arrays::new() }
    }

    /// The datagrams, in the order they are sent in.
    pub fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.datagrams.chunks_exact_mut(self.bytes)
    }

    /// Sends the datagrams from the `first` on, and answers how many the kernel took.
    ///
    /// # Errors
    /// The kernel's, when it took none of them.
    pub fn send(&mut self, socket: &impl AsFd, first: usize) -> io::Result<usize> {
        let Arrays { messages, buffers } = &mut self.arrays;
        for (n, (message, buffer)) in messages.iter_mut().zip(buffers.iter_mut()).enumerate() {
            buffer.iov_base = self.datagrams[n * self.bytes..].as_mut_ptr().cast();
            buffer.iov_len = self.bytes;
            message.msg_hdr.msg_iov = buffer;
            if !self.targets.is_empty() {
                let target = &self.targets[n % self.targets.len()];
                message.msg_hdr.msg_name = target.as_ptr().cast_mut().cast();
                message.msg_hdr.msg_namelen = target.len();
            }
        }
        let rest = messages.get_mut(first..).unwrap_or_default();
        let (socket, count) = (socket.as_fd().as_raw_fd(), rest.len() as libc::c_uint);
        // SAFETY: every message points at one buffer and perhaps one address, set just above, within
        // `self`, which stays borrowed; the kernel reads them and writes `msg_len` only.
        let sent = Errno::result(unsafe { libc::sendmmsg(socket, rest.as_mut_ptr(), count, 0) })?;
        Ok(sent.unsigned_abs() as usize)
    }
}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Room for [`BATCH`] received datagrams.
pub struct ReceiveBatch {
    room: Vec<u8>,
    bytes: usize,
    lengths: Vec<usize>,
    arrays: Arrays,
}

impl ReceiveBatch {
    /// Room for datagrams of up to `bytes`; of a longer one the rest is lost.
    pub fn new(bytes: usize) -> Self {
        Self {
            room: vec![0; bytes * BATCH],
            bytes,
            lengths: Vec::with_capacity(BATCH),
            arrays: Arrays::new(),
        }
    }

    /// Waits for one datagram as long as the socket's time-out allows, if it is a blocking socket, and
    /// takes whatever else is there.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when there is none.
    pub fn receive(&mut self, socket: &impl AsFd) -> io::Result<impl Iterator<Item = &[u8]>> {
        let Arrays { messages, buffers } = &mut self.arrays;
        for (n, (message, buffer)) in messages.iter_mut().zip(buffers.iter_mut()).enumerate() {
            buffer.iov_base = self.room[n * self.bytes..].as_mut_ptr().cast();
            buffer.iov_len = self.bytes;
            message.msg_hdr.msg_iov = buffer;
        }
        let (socket, count) = (socket.as_fd().as_raw_fd(), BATCH as libc::c_uint);
        let (messages, wait) = (messages.as_mut_ptr(), libc::MSG_WAITFORONE);
        // SAFETY: every message points at one buffer within `self.room`, set just above, which stays
        // borrowed; none asks for a name or control data.
        let got = Errno::result(unsafe { libc::recvmmsg(socket, messages, count, wait, null_mut()) })?;
        self.lengths.clear();
        let got = &self.arrays.messages[..got.unsigned_abs() as usize];
        self.lengths.extend(got.iter().map(|message| message.msg_len as usize));
        let slots = self.room.chunks_exact(self.bytes);
        Ok(slots.zip(&self.lengths).map(|(slot, &length)| &slot[..length]))
    }
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBatch").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The arguments of the two calls. Between calls the pointers are stale and nothing follows them.
struct Arrays {
    messages: Vec<libc::mmsghdr>,
    buffers: Vec<libc::iovec>,
}

impl Arrays {
    fn new() -> Self {
        // SAFETY: `mmsghdr` and `iovec` are plain old data, for which all zeroes is a value.
        let (mut message, buffer): (libc::mmsghdr, libc::iovec) = unsafe { (zeroed(), zeroed()) };
        message.msg_hdr.msg_iovlen = 1;
        Self { messages: vec![message; BATCH], buffers: vec![buffer; BATCH] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
        socket
    }

    fn received(from: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut batch = ReceiveBatch::new(16);
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(batch.receive(from).expect("receive").map(<[u8]>::to_vec));
        }
        all
    }

    #[test]
    fn datagrams_go_round_the_targets_in_order() {
        let (sender, even, odd) = (socket(), socket(), socket());
        let targets = [&even, &odd].map(|socket| socket.local_addr().expect("address"));
        let mut batch = SendBatch::new(1, &targets);
        for (n, datagram) in (0u8..).zip(batch.datagrams()) {
            datagram[0] = n;
        }
        assert_eq!(batch.send(&sender, 0).expect("send"), BATCH);
        let numbers = |parity| (0..64u8).filter(|n| n % 2 == parity).map(|n| vec![n]).collect::<Vec<_>>();
        assert_eq!(received(&even, BATCH / 2), numbers(0));
        assert_eq!(received(&odd, BATCH / 2), numbers(1));
    }

    #[test]
    fn a_batch_goes_on_from_where_it_stopped() {
        let (sender, target) = (socket(), socket());
        sender.connect(target.local_addr().expect("address")).expect("connect");
        let mut batch = SendBatch::new(4, &[]);
        assert_eq!(batch.send(&sender, 60).expect("send"), 4);
        assert_eq!(received(&target, 4), vec![vec![0; 4]; 4]);
    }

    #[test]
    fn an_empty_socket_would_block() {
        let socket = socket();
        socket.set_nonblocking(true).expect("non-blocking");
        let mut batch = ReceiveBatch::new(16);
        let error = batch.receive(&socket).err().expect("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
