//! `SOCK_SEQPACKET` sockets between control and datapath: whole messages, with descriptors.
//!
//! They are a pair that one process gives to its child, or meet at a path: a datapath that outlives its
//! control listens there for the next.
//!
//! # Kernel facts
//! * A connecting process learns from `SO_PEERCRED` which one called `listen` on that socket, and an
//!   accepting one learns which process connected; neither can be feigned (unix(7)).
//! * A connection is made as soon as there is room in the queue of the listener, whether or not it ever
//!   accepts; it is refused when no process has the listening socket open any more.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::stat::{Mode, umask};
use tokio::io::unix::AsyncFd;

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The most descriptors that ride along with one message: the kernel's `SCM_MAX_FD`.
pub const DESCRIPTORS_MAX: usize = 253;

const BUFFER_BYTES: usize = 4 << 20;
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Makes a pair, both ends non-blocking and closed on exec.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?;
        for end in [&one, &other] {
            widen(end)?;
        }
        Ok((Channel { fd: one }, Channel { fd: other }))
    }

    /// Connects to the [`Listener`] at `path`; the end is non-blocking and closed on exec.
    ///
    /// # Errors
    /// `NotFound` when there is no socket, `ConnectionRefused` when nobody listens on it any more,
    /// `WouldBlock` when too many wait already.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
        widen(&fd)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Channel { fd })
    }

    /// The process at the other end: the one that connected, or that called [`Listener::listen`].
    ///
    /// # Errors
    /// The error of `getsockopt`.
    pub fn peer(&self) -> io::Result<Peer> {
        let credentials = getsockopt(&self.fd, sockopt::PeerCredentials)?;
        let pid = u32::try_from(credentials.pid()).map_err(io::Error::other)?;
        Ok(Peer { pid, user: credentials.uid() })
    }

    /// Takes an end that was inherited.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The channel for a tokio runtime, which must be the current one.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub fn into_async(self) -> io::Result<AsyncFd<Channel>> {
        // SAFETY: a channel owns its descriptor and never has another, so it stays open, and the same,
        // for as long as the `AsyncFd` owns the channel.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// Sends one message with the descriptors that ride along.
    ///
    /// # Errors
    /// `WouldBlock` when the other end is behind, `InvalidInput` over [`MESSAGE_BYTES_MAX`], `BrokenPipe`
    /// when it is gone.
    pub fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives one message into `buffer`: its length and the descriptor that rode along, if one did.
    /// `None` when there is no message now.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end is gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
        let received = self.receive_all(buffer)?;
        Ok(received.map(|(length, fds)| (length, fds.into_iter().next())))
    }

    /// Receives like [`receive`](Self::receive), with all descriptors that rode along. They are fewer than
    /// were sent where this process may open no more.
    ///
    /// # Errors
    /// The errors of [`receive`](Self::receive).
    pub fn receive_all(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.fd.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut taken = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for raw in fds {
                    // SAFETY: SCM_RIGHTS has just made this descriptor ours, and nobody else has it.
                    taken.push(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        match message.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(Some((bytes, taken))),
        }
    }
}

/// The process at the other end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub user: u32,
}

/// A socket at a path where channels come in.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    /// Makes a socket at `path`, for root only, in place of one that a process before us left there. It
    /// refuses connections until [`listen`](Self::listen) is called, here or in a process it is given to.
    ///
    /// # Errors
    /// When the path is longer than a socket's may be (107 bytes), or cannot be made.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        const NOBODY_ELSE: Mode = Mode::from_bits_truncate(0o177);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
        let before = umask(NOBODY_ELSE);
        let bound = UnixAddr::new(path).and_then(|address| bind(fd.as_raw_fd(), &address));
        umask(before);
        bound?;
        Ok(Listener { fd })
    }

    /// Takes a socket that [`bind`](Self::bind) made in another process.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Lets connections in; [`Channel::peer`] will name the calling process to whoever connects.
    ///
    /// # Errors
    /// When it is no bound socket.
    pub fn listen(&self) -> io::Result<()> {
        Ok(listen(&self.fd, Backlog::new(BACKLOG)?)?)
    }

    /// Takes the next connection, if there is one; its end is non-blocking and closed on exec.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        match accept4(self.fd.as_raw_fd(), FLAGS) {
            // SAFETY: `accept4` has just made this descriptor, and nobody else has it.
            Ok(raw) => Ok(Some(Channel { fd: unsafe { OwnedFd::from_raw_fd(raw) } })),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes room for the long messages that are sent.
fn widen(end: &OwnedFd) -> io::Result<()> {
    setsockopt(end, sockopt::SndBufForce, &BUFFER_BYTES)
        .or_else(|_| setsockopt(end, sockopt::SndBuf, &BUFFER_BYTES))?;
    Ok(())
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_outlives_its_connections_and_both_ends_know_each_other() {
        let path = std::env::temp_dir().join(format!("vswitch-seqpacket-{}", std::process::id()));
        let listener = Listener::bind(&path).expect("bind");
        let refused = Channel::connect(&path).expect_err("nobody listens yet");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        listener.listen().expect("listen");
        let own = Peer { pid: std::process::id(), user: nix::unistd::getuid().as_raw() };
        for _ in 0..2 {
            assert!(listener.accept().expect("nobody").is_none());
            let near = Channel::connect(&path).expect("connect");
            let far = listener.accept().expect("accept").expect("a connection");
            assert_eq!((near.peer().expect("peer"), far.peer().expect("peer")), (own, own));
            near.send(b"hello", &[listener.as_fd()]).expect("send");
            let mut buffer = [0; 8];
            let (length, fd) = far.receive(&mut buffer).expect("receive").expect("a message");
            assert_eq!((&buffer[..length], fd.is_some()), (&b"hello"[..], true));
            drop(near);
            assert_eq!(far.receive(&mut buffer).expect_err("gone").kind(), io::ErrorKind::UnexpectedEof);
        }
        drop(listener);
        assert!(Channel::connect(&path).is_err());
        let next = Listener::bind(&path).expect("in place of the old one");
        drop(next);
        std::fs::remove_file(&path).expect("clean up");
    }
}
