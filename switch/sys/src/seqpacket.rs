//! The pair of `SOCK_SEQPACKET` sockets between control and datapath: whole messages, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    setsockopt, socketpair, sockopt,
};
use tokio::io::unix::AsyncFd;

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const BUFFER_BYTES: usize = 4 << 20;

/// One end of the pair.
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
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        for end in [&one, &other] {
            setsockopt(end, sockopt::SndBufForce, &BUFFER_BYTES)
                .or_else(|_| setsockopt(end, sockopt::SndBuf, &BUFFER_BYTES))?;
        }
        Ok((Channel { fd: one }, Channel { fd: other }))
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
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.fd.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut taken = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for raw in fds {
                    // SAFETY: SCM_RIGHTS has just made this descriptor ours, and nobody else has it.
                    taken = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        match message.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(Some((bytes, taken))),
        }
    }
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
