//! Accepted TCP connections of the host, which are relayed.
//!
//! # Kernel facts
//! * `accept4` takes `SOCK_NONBLOCK`; no other call is needed to make a connection non-blocking.
//! * An accepted connection has the listener's `TCP_NODELAY`, `SO_KEEPALIVE` and `SO_LINGER`.
//! * Closing a TCP socket whose `SO_LINGER` is zero seconds sends a reset (tcp(7)), also where the kernel
//!   closes it since its process has died.
//! * The standard library ignores `SIGPIPE`, so a write to a broken connection only fails.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{KeepAlive, Linger, SocketError, TcpNoDelay};
use nix::sys::socket::{Shutdown, SockaddrLike, SockaddrStorage, getsockopt, setsockopt, shutdown};

/// Has the connections that a listening TCP socket accepts be [`Stream`]s: small writes go out at once, a
/// client that vanished is noticed by keep-alives, and an end that is not meant is a reset.
///
/// # Errors
/// When it is no socket of TCP.
pub fn prepare(listener: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&listener, TcpNoDelay, &true)?;
    setsockopt(&listener, KeepAlive, &true)?;
    setsockopt(&listener, Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

/// An accepted connection. It never blocks.
///
/// Unless it is [closed](Self::close), it ends with a reset, however this process ends: nobody takes a part
/// for the whole.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Takes the next connection that waits at a [prepared](prepare) TCP socket, and says who the client is.
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
    /// The error of the connection: a reset, for one.
    pub fn failure(&self) -> io::Result<()> {
        match getsockopt(&self.0, SocketError)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        drop(self);
    }

    /// Closes the connection with an end, behind what is still to be sent.
    pub fn close(self) {
        // Fails only where there is no connection to end.
        let _ = setsockopt(&self.0, Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|four| SocketAddrV4::from(*four).into());
    four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddrV6::from(*six).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        prepare(listener.as_fd()).expect("options");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (stream, address) = Stream::accept(listener.as_fd()).expect("accept");
        assert_eq!(address, client.local_addr().expect("address"));
        let options = (getsockopt(&stream.0, TcpNoDelay), getsockopt(&stream.0, KeepAlive));
        assert_eq!(options, (Ok(true), Ok(true)), "as the listener's");
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
        let (stream, mut client) = pair();
        assert_eq!(stream.write(b"bytes").expect("write"), 5);
        stream.close();
        assert_eq!(client.read_to_end(&mut Vec::new()).expect("an end"), 5);
    }

    #[test]
    fn a_connection_that_is_only_dropped_is_reset() {
        let (stream, mut client) = pair();
        assert_eq!(stream.write(b"a part").expect("write"), 6);
        drop(stream);
        let error = client.read_to_end(&mut Vec::new()).expect_err("no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
