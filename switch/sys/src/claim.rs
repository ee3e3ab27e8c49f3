//! Claims: ports of the host that nobody else is to use, and at which its stack is not to answer the uplink.
//!
//! # Kernel facts
//! * A port that a socket without `SO_REUSEADDR` listens on, or is bound to, is refused to every other program.
//! * What a socket's filter drops is answered by nobody: no reset, no ICMP error. Packet sockets see it all the same.
//! * A TCP socket that is bound and does not listen would refuse: so it listens, and nobody accepts.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::filter::Program;

/// Claims a port of TCP, from which nothing that came in at one of the interfaces `uplinks`, by index, is heard.
///
/// # Errors
/// `AddrInUse` when another program has the port; what the kernel reports otherwise.
pub fn tcp(address: SocketAddr, uplinks: &[u32]) -> io::Result<OwnedFd> {
    let fd = bound(address, SockType::Stream, uplinks)?;
    listen(&fd, Backlog::new(0)?)?;
    Ok(fd)
}

/// Claims a port of UDP, likewise.
///
/// # Errors
/// As [`tcp`].
pub fn udp(address: SocketAddr, uplinks: &[u32]) -> io::Result<OwnedFd> {
    bound(address, SockType::Datagram, uplinks)
}

fn bound(address: SocketAddr, kind: SockType, uplinks: &[u32]) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if !uplinks.is_empty() {
        Program::deaf_to(uplinks).attach(fd.as_fd())?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}
