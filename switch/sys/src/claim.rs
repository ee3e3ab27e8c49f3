//! Claims: sockets that hold ports of the host, so that nobody else has them and its stack leaves to us what
//! comes for them from outside.
//!
//! # Theory of operation
//! A claimed port of TCP is a listening socket, one of UDP a bound one. A socket filter drops what arrived at
//! the uplinks: there is neither a reset nor an ICMP error, and the copy that a packet socket got is ours to
//! answer. What comes from elsewhere, as from the host itself, is taken as by any server; it is for who
//! serves the socket. Until [`make_room`] is called for somebody, one connection and two datagrams wait at
//! most. SCTP has no socket here: many kernels lack it.
//!
//! # Kernel facts
//! * An accepted connection keeps the filter that its listener had then.
//! * A filter runs before a SYN is looked at and before a datagram is queued, and knows by which interface
//!   either came ([`filter`](crate::filter)).
//! * `IPV6_V6ONLY` off lets a socket on `::` hold its port of IPv4, too: one socket for both families.
//! * Port 0 asks for a free port of `ip_local_port_range` that is none of `ip_local_reserved_ports`, free in
//!   both families if the socket is of both.
//! * A port with connections that were accepted on it can be listened on again only if they and the new
//!   listener have `SO_REUSEADDR`. Two listeners never share a port by it, but a port that the kernel chooses
//!   may be another socket's that has it, so there it is set afterwards. For UDP it is never set: there it
//!   shares.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{Ipv6V6Only, RcvBuf, RcvBufForce, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt,
    socket,
};

use crate::filter::{Families, Program};
use crate::stream::prepare;

/// Connections that wait to be accepted at a served claim. The kernel takes `net.core.somaxconn` instead
/// where that is less.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that wait at a served claim: what a fast client sends while the server is busy
/// elsewhere for some milliseconds.
const RECEIVE_BYTES: usize = 4 << 20;

/// On which of the host's addresses a port is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Every address of both families, or of IPv4 on a kernel without IPv6.
    Both,
    /// This one; the unspecified one stands for every address of its family.
    One(IpAddr),
}

/// The kind of port that is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP: a listening socket.
    Tcp,
    /// UDP: a bound socket.
    Udp,
}

/// Claims a port of TCP; port 0 is one of the kernel's choice. What comes by an interface of these indices is
/// dropped.
///
/// # Errors
/// `AddrInUse` when somebody has the port, `AddrNotAvailable` when the host has no such address, and `EMFILE`
/// when the process has as many descriptors as it may.
pub fn tcp(address: SocketAddr, uplinks: &[u32]) -> io::Result<OwnedFd> {
    claim(Kind::Tcp, Host::One(address.ip()), address.port(), uplinks)
}

/// Claims a port of UDP, as [`tcp`] does.
///
/// # Errors
/// The errors of [`tcp`].
pub fn udp(address: SocketAddr, uplinks: &[u32]) -> io::Result<OwnedFd> {
    claim(Kind::Udp, Host::One(address.ip()), address.port(), uplinks)
}

/// Claims a port, as [`tcp`] does, perhaps of both families.
///
/// # Errors
/// The errors of [`tcp`].
pub fn claim(kind: Kind, host: Host, port: u16, uplinks: &[u32]) -> io::Result<OwnedFd> {
    match host {
        Host::One(address) => open(kind, SocketAddr::new(address, port), true, uplinks),
        Host::Both => match open(kind, (Ipv6Addr::UNSPECIFIED, port).into(), false, uplinks) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                open(kind, ([0, 0, 0, 0], port).into(), true, uplinks)
            }
            outcome => outcome,
        },
    }
}

/// The port that was claimed.
///
/// # Errors
/// When it is no claim.
pub fn port(claim: &impl AsFd) -> io::Result<u16> {
    let address: SockaddrStorage = getsockname(claim.as_fd().as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    let port = v4.or_else(|| address.as_sockaddr_in6().map(|address| address.port()));
    port.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Makes room for clients at a claim that is served: connections that wait to be accepted, or datagrams to be
/// received.
///
/// # Errors
/// When it is no claim of that kind.
pub fn make_room(claim: &impl AsFd, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Tcp => {
            prepare(claim.as_fd())?;
            Ok(listen(&claim.as_fd(), Backlog::new(BACKLOG)?)?)
        }
        Kind::Udp => {
            let forced = setsockopt(&claim.as_fd(), RcvBufForce, &RECEIVE_BYTES);
            Ok(forced.or_else(|_| setsockopt(&claim.as_fd(), RcvBuf, &RECEIVE_BYTES))?)
        }
    }
}

fn open(kind: Kind, address: SocketAddr, only_v6: bool, uplinks: &[u32]) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let of_type = if kind == Kind::Tcp { SockType::Stream } else { SockType::Datagram };
    let fd = socket(family, of_type, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, Ipv6V6Only, &only_v6)?;
    }
    if !uplinks.is_empty() {
        Program::deaf_to(uplinks, Families::BOTH).attach(fd.as_fd())?;
    }
    match kind {
        Kind::Tcp => {
            let chosen = address.port() == 0;
            if !chosen {
                setsockopt(&fd, ReuseAddr, &true)?;
            }
            bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
            if chosen {
                setsockopt(&fd, ReuseAddr, &true)?;
            }
            listen(&fd, Backlog::new(0)?)?;
        }
        Kind::Udp => {
            // The least there is. Who serves the socket makes more room.
            setsockopt(&fd, RcvBuf, &0)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        }
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    const KINDS: [Kind; 2] = [Kind::Tcp, Kind::Udp];

    /// Whether a program can have a port, as most programs ask for it: TCP with `SO_REUSEADDR`.
    fn can_bind(kind: Kind, address: SocketAddr) -> bool {
        match kind {
            Kind::Tcp => TcpListener::bind(address).is_ok(),
            Kind::Udp => UdpSocket::bind(address).is_ok(),
        }
    }

    #[test]
    fn what_is_claimed_is_nobody_elses() {
        let [v4, v6]: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for kind in KINDS {
            for (host, held) in
                [(Host::Both, vec![v4, v6]), (Host::One(v4), vec![v4]), (Host::One(v6), vec![v6])]
            {
                let claimed = claim(kind, host, 0, &[]).expect("claim");
                let port = port(&claimed).expect("port");
                assert_ne!(port, 0);
                for address in held {
                    assert!(!can_bind(kind, (address, port).into()), "{kind:?} {host:?} {address}");
                }
                let again = claim(kind, host, port, &[]).expect_err("it is taken");
                assert_eq!(again.kind(), ErrorKind::AddrInUse, "{kind:?} {host:?}");
                drop(claimed);
                claim(kind, host, port, &[]).expect("it is free again");
            }
        }
    }

    #[test]
    fn a_family_leaves_the_other_alone() {
        let claimed = tcp((Ipv6Addr::UNSPECIFIED, 0).into(), &[]).expect("claim");
        let port = port(&claimed).expect("port");
        udp((Ipv6Addr::UNSPECIFIED, port).into(), &[]).expect("another protocol");
        // Unless somebody else has it by chance.
        if let Err(error) = tcp((Ipv4Addr::UNSPECIFIED, port).into(), &[]) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_port_is_claimed_again_while_it_has_connections() {
        let claimed = tcp((Ipv4Addr::LOCALHOST, 0).into(), &[]).expect("claim");
        let port = port(&claimed).expect("port");
        let listener = TcpListener::from(claimed);
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        listener.set_nonblocking(false).expect("blocking");
        let (accepted, _) = listener.accept().expect("accept");
        drop(listener);
        tcp((Ipv4Addr::LOCALHOST, port).into(), &[]).expect("claim it again");
        drop((client, accepted));
    }

    #[test]
    fn what_comes_by_an_uplink_is_dropped_and_the_rest_is_not() {
        let loopback = nix::net::if_::if_nametoindex("lo").expect("lo");
        for (uplinks, heard) in
            [(&[loopback][..], false), (&[7, loopback, 9], false), (&[loopback + 1000], true)]
        {
            let claimed = udp((Ipv4Addr::LOCALHOST, 0).into(), uplinks).expect("claim");
            let target = (Ipv4Addr::LOCALHOST, port(&claimed).expect("port"));
            let claimed = UdpSocket::from(claimed);
            let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            other.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
            // The loopback is in order: when the second has come, so has the first, or it never will.
            other.send_to(b"1", target).expect("send, and no port unreachable");
            other.send_to(b"2", other.local_addr().expect("address")).expect("send");
            other.recv(&mut [0; 8]).expect("the second");
            assert_eq!(claimed.recv(&mut [0; 8]).is_ok(), heard, "{uplinks:?}");
        }
    }
}
