//! The MTU of the path to another host, as the kernel knows it, and datagrams that are larger.
//!
//! # Kernel facts
//! * The kernel learns the MTU of a path from routers (RFC 1191, RFC 8201), by errors about packets of its
//!   own sockets, and forgets it after ten minutes (`net.ipv4.route.mtu_expires`). It believes no less than
//!   552 bytes over IPv4 (`net.ipv4.route.min_pmtu`) and 1280 over IPv6.
//! * With `IP_PMTUDISC_DO` a datagram larger than the path is refused with `EMSGSIZE`, a send with
//!   `UDP_SEGMENT` of larger ones with that or, by older kernels, `EINVAL`. With `IP_PMTUDISC_WANT` this host
//!   cuts it up instead, as the path wants it.
//! * With `IP_RECVERR` the refusal of a single datagram is put into the socket's error queue, with the MTU of
//!   the path. The queue shares the room of what was received, and is emptied when the option is taken back.
//! * While `IP_RECVERR` is set an ICMP error fails the next send, whoever that is for, unless it is read
//!   before (`SO_ERROR`): so the option is set for no longer than one question takes.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr, RcvBuf, SocketError};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg, setsockopt,
};

use crate::udp::set_discovery;

/// Bytes of the queues of a socket while it is asked.
const ROOM: usize = 64 * 1024;
/// Entries of the error queue that are looked at for the answer.
const ENTRIES_MAX: usize = 64;

/// The outcome of a datagram that was [tried](try_datagram).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It was sent.
    Sent,
    /// It is larger than the path, whose MTU is this; it was not sent. `None` where the kernel does not say.
    TooBig(Option<u32>),
}

/// Sends one datagram, or says how much its path takes. The socket is one of
/// [`open_sender`](crate::udp::open_sender).
///
/// # Errors
/// The kernel's, but for a datagram that is too large.
pub fn try_datagram(socket: BorrowedFd<'_>, to: SocketAddr, pieces: &[&[u8]]) -> nix::Result<Tried> {
    let _ = setsockopt(&socket, RcvBuf, &ROOM);
    hear_errors(socket, to, true)?;
    let pieces: Vec<IoSlice<'_>> = pieces.iter().copied().map(IoSlice::new).collect();
    let target = SockaddrStorage::from(to);
    let sent = sendmsg(socket.as_raw_fd(), &pieces, &[], MsgFlags::empty(), Some(&target));
    let outcome = match sent {
        Ok(_) => Ok(Tried::Sent),
        Err(Errno::EMSGSIZE) => Ok(Tried::TooBig(answer(socket))),
        Err(errno) => Err(errno),
    };
    hear_errors(socket, to, false)?;
    let _ = getsockopt(&socket, SocketError);
    let _ = setsockopt(&socket, RcvBuf, &0);
    outcome
}

/// Makes a socket as [`open_sender`](crate::udp::open_sender) made it: somebody else may have died while they
/// asked or had something cut up.
///
/// # Errors
/// When it is no UDP socket of that family.
pub fn restore(socket: BorrowedFd<'_>, local: SocketAddr) -> nix::Result<()> {
    allow_cutting(socket, local, false)?;
    hear_errors(socket, local, false)?;
    setsockopt(&socket, RcvBuf, &0)
}

/// Lets the kernel cut up what is larger than its path, until it is forbidden again.
///
/// # Errors
/// When it is no UDP socket of that family.
pub fn allow_cutting(socket: BorrowedFd<'_>, to: SocketAddr, allowed: bool) -> nix::Result<()> {
    set_discovery(socket, to, if allowed { libc::IP_PMTUDISC_WANT } else { libc::IP_PMTUDISC_DO })
}

fn hear_errors(socket: BorrowedFd<'_>, to: SocketAddr, on: bool) -> nix::Result<()> {
    match to {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &on),
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &on),
    }
}

/// Takes the MTU out of the error queue.
fn answer(socket: BorrowedFd<'_>) -> Option<u32> {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    for _ in 0..ENTRIES_MAX {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let entry =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut control), flags).ok()?;
        for message in entry.cmsgs().ok()? {
            let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) =
                message
            else {
                continue;
            };
            // The kernel judges what routers say; its own word is the last.
            if error.ee_origin == libc::SO_EE_ORIGIN_LOCAL && error.ee_errno == Errno::EMSGSIZE as u32 {
                return Some(error.ee_info);
            }
        }
    }
    None
}
