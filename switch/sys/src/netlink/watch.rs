//! Hearing that an address, or a route or interface, of the namespace came or went.
//!
//! Kernel facts relied on: a socket in the groups of interface addresses gets a message for each change, and
//! `ENOBUFS` when it missed some (netlink(7)). What changed is not read: whoever wants to know asks for all.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` of `include/uapi/linux/rtnetlink.h`.
const GROUPS: [u32; 2] = [5, 9];
/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE`.
const ROUTE_GROUPS: [u32; 3] = [1, 7, 11];
/// `RTNLGRP_NEXTHOP`, which a kernel before 5.3 has not.
const NEXTHOP_GROUP: u32 = 32;

/// A socket that is readable when an address came or went.
#[derive(Debug)]
pub struct AddressWatch {
    socket: Socket,
}

impl AddressWatch {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        Self::of(&GROUPS)
    }

    /// Opens one that hears of interfaces, routes and nexthop objects, too.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_with_routes() -> io::Result<Self> {
        let watch = Self::of(&[&GROUPS[..], &ROUTE_GROUPS].concat())?;
        match watch.socket.add_membership(NEXTHOP_GROUP) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            Ok(()) | Err(_) => Ok(watch),
        }
    }

    fn of(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self { socket })
    }

    /// A watch that can be awaited.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor.
    pub fn into_async(self) -> io::Result<AsyncFd<AddressWatch>> {
        // SAFETY: a watch owns its socket and never has another, so the descriptor stays open, and the same,
        // for as long as the `AsyncFd` owns the watch.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Reads all that was heard, so that the socket is readable again only after another change.
    ///
    /// # Errors
    /// When the socket fails. `WouldBlock` says that nothing was heard.
    pub fn heard(&self) -> io::Result<()> {
        let mut any = false;
        loop {
            match self.socket.recv_from_full() {
                Ok(_) => any = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && any => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for AddressWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
