//! Sockets of the host whose traffic is relayed: accepted TCP connections, and bound UDP sockets.
//!
//! # Kernel facts
//! * `accept4` takes `SOCK_NONBLOCK`; no other call is needed to make a connection non-blocking.
//! * Closing a TCP socket whose `SO_LINGER` is zero seconds sends a reset (tcp(7)).
//! * A UDP socket bound to the unspecified address answers from any address the host has, unless told which by
//!   `IP_PKTINFO` or `IPV6_PKTINFO` (ip(7), ipv6(7)). The same control message tells where a datagram came to.
//! * A socket of both families shows IPv4 addresses mapped into IPv6 (RFC 4291, 2.5.5.2), and takes them so.
//! * The standard library ignores `SIGPIPE`, so a write to a broken connection only fails.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv6RecvPacketInfo, KeepAlive, Linger, SocketError, TcpNoDelay,
};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockaddrLike, SockaddrStorage, getsockopt,
    recvmsg, sendmsg, setsockopt, shutdown,
};

/// An accepted connection. It never blocks.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Takes the next connection that waits at a listening TCP socket, and says who the client is.
    ///
    /// Small writes go out at once, and a client that vanished is noticed by keep-alives.
    ///
    /// # Errors
    /// `WouldBlock` when none waits and the socket is non-blocking; otherwise the kernel's.
    pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(Self, SocketAddr)> {
        // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is a value.
        let mut address: libc::sockaddr_storage = unsafe { zeroed() };
        let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let pointer = (&raw mut address).cast();
        // SAFETY: the kernel writes at most `length` bytes of the address, and its length.
        let fd = unsafe { libc::accept4(listener.as_raw_fd(), pointer, &raw mut length, flags) };
        let fd = Errno::result(fd)?;
        // SAFETY: the call has just made this descriptor, and nobody else has it.
        let stream = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: the kernel wrote an address of `length` bytes, and the storage outlives the call.
        let client = unsafe { SockaddrStorage::from_raw((&raw const address).cast(), Some(length)) };
        let client = client.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        setsockopt(&stream.0, TcpNoDelay, &true)?;
        setsockopt(&stream.0, KeepAlive, &true)?;
        Ok((stream, client))
    }

    /// Reads what is there. Zero is the client's end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; otherwise the kernel's.
    pub fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.0, room)?)
    }

    /// Writes what the kernel has room for.
    ///
    /// # Errors
    /// `WouldBlock` when it has none; otherwise the kernel's.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.0, bytes)?)
    }

    /// Tells the client that there will be no more; it may go on sending.
    ///
    /// # Errors
    /// The kernel's, when the connection is gone.
    pub fn end(&self) -> io::Result<()> {
        Ok(shutdown(self.0.as_raw_fd(), Shutdown::Write)?)
    }

    /// Says whether the connection has failed, without reading from it.
    ///
    /// # Errors
    /// That of the connection: a reset, for one.
    pub fn failure(&self) -> io::Result<()> {
        match getsockopt(&self.0, SocketError)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        // Fails only where there is no connection to reset.
        let _ = setsockopt(&self.0, Linger, &now);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A bound UDP socket that knows, of each datagram, which of the host's addresses it was sent to.
#[derive(Debug)]
pub struct Datagrams {
    socket: OwnedFd,
    control: Vec<u8>,
}

/// Where a datagram came from, where it was sent to, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes received.
    pub length: usize,
    /// Who sent it.
    pub client: SocketAddr,
    /// The address of the host's that it was sent to.
    pub addressed: IpAddr,
}

impl Datagrams {
    /// Takes a bound UDP socket and has it tell addresses.
    ///
    /// # Errors
    /// When it is no socket of IPv4 or IPv6.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // A socket of IPv6 may carry IPv4, too; one of IPv4 knows no option of IPv6.
        let six = setsockopt(&socket, Ipv6RecvPacketInfo, &true);
        let four = setsockopt(&socket, Ipv4PacketInfo, &true);
        six.or(four)?;
        Ok(Self { socket, control: nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo) })
    }

    /// Receives one datagram. What does not fit into `room` is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise the kernel's.
    pub fn receive(&mut self, room: &mut [u8]) -> io::Result<Received> {
        let mut parts = [IoSliceMut::new(room)];
        let (fd, control) = (self.socket.as_raw_fd(), Some(self.control.as_mut_slice()));
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, control, MsgFlags::MSG_DONTWAIT)?;
        let mut addressed = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = part {
                addressed = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            } else if let ControlMessageOwned::Ipv4PacketInfo(info) = part {
                addressed = addressed.or(Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())));
            }
        }
        let client = message.address.as_ref().and_then(socket_address);
        match (client, addressed) {
            (Some(client), Some(addressed)) => Ok(Received { length: message.bytes, client, addressed }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends one datagram to `client` from the address `from` of the host's.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel has no room; otherwise the kernel's.
    pub fn send(&self, bytes: &[u8], client: SocketAddr, from: IpAddr) -> io::Result<usize> {
        let parts = [IoSlice::new(bytes)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let target = SockaddrStorage::from(client);
        let sent = match from {
            IpAddr::V4(from) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&target))
            }
            IpAddr::V6(from) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&target))
            }
        };
        Ok(sent?)
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|four| SocketAddrV4::from(*four).into());
    four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddrV6::from(*six).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (stream, address) = Stream::accept(listener.as_fd()).expect("accept");
        assert_eq!(address, client.local_addr().expect("address"));
        (stream, client)
    }

    #[test]
    fn an_end_is_read_as_an_end_and_a_reset_as_a_reset() {
        let (stream, mut client) = pair();
        assert_eq!(stream.read(&mut [0; 4]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
        assert_eq!(stream.write(b"bytes").expect("write"), 5);
        stream.end().expect("end");
        let mut read = Vec::new();
        assert_eq!(client.read_to_end(&mut read).expect("read"), 5);
        let (stream, mut client) = pair();
        stream.reset();
        assert_eq!(client.read(&mut [0; 4]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_addressed() {
        let both: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        for (bound, addressed) in
            [("0.0.0.0:0".parse().expect("address"), "127.0.0.7"), (both, "127.0.0.8"), (both, "::1")]
        {
            let socket = UdpSocket::bind(bound).expect("bind");
            let port = socket.local_addr().expect("address").port();
            let mut socket = Datagrams::new(socket.into()).expect("options");
            let addressed: IpAddr = addressed.parse().expect("address");
            let unspecified: &str = if addressed.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(unspecified).expect("bind");
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
            client.send_to(b"question", (addressed, port)).expect("send");
            let mut room = [0; 64];
            let received = socket.receive(&mut room).expect("receive");
            assert_eq!(received.addressed.to_canonical(), addressed);
            assert_eq!(&room[..received.length], b"question");
            socket.send(b"answer", received.client, received.addressed).expect("send");
            let (length, from) = client.recv_from(&mut room).expect("receive");
            assert_eq!((length, from), (6, (addressed, port).into()));
        }
    }
}
