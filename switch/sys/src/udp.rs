//! UDP sockets that carry tunnels: many datagrams in one gathered send, many in one receive.
//!
//! # Kernel facts
//! * `UDP_SEGMENT` cuts a send into datagrams of one size, the last maybe shorter, since Linux 4.18. Where
//!   the interface cannot sum up datagrams it is refused with `EIO`, together with switched-off checksums
//!   with `EINVAL`.
//! * `UDP_GRO` hands over datagrams of one flow and size side by side, and says the size in a control
//!   message.
//! * A socket on `::` without `IPV6_V6ONLY` hears IPv4, too; a kernel without IPv6 has none.
//! * A datagram over IPv6 with a checksum of zero is dropped unless `UDP_NO_CHECK6_RX` is set (RFC 6935).
//! * A datagram larger than its path is refused and never cut up: see [`path_mtu`](crate::path_mtu).
//! * `sendmmsg` and `recvmmsg` stop at the first message that fails and answer how many went before it;
//!   they fail only when the very first does.

#![expect(
    clippy::cast_possible_truncation,
    reason = "constants and small lengths, cast to the types C wants"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Messages per system call.
pub const BATCH: usize = 64;

/// The distance from one received message to the next in [`Receiver::room`]: the largest, and an odd number
/// of cache lines, so that not all begin on the same cache sets.
pub const STRIDE: usize = 65_536 + 64;

const BUFFER_BYTES: libc::c_int = 16 << 20;

/// Opens the receiving socket of tunnels in the calling thread's network namespace: for every address of the
/// host, of both families where the kernel has both, non-blocking.
///
/// # Errors
/// `AddrInUse` when somebody has the port, such as a `vxlan` interface of the kernel.
pub fn open_receiver(port: u16) -> io::Result<OwnedFd> {
    let any = |address: IpAddr| bound(SocketAddr::new(address, port), false);
    let fd = match any(Ipv6Addr::UNSPECIFIED.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => any(Ipv4Addr::UNSPECIFIED.into())?,
        outcome => {
            let fd = outcome?;
            set_option(&fd, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
            fd
        }
    };
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES)?;
    // Without it datagrams come one by one.
    let _ = set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(fd)
}

/// Opens a sending socket of tunnels in the calling thread's network namespace, non-blocking, at one of the
/// host's addresses and at a port. What it sends is never cut up on its way.
///
/// # Errors
/// `AddrInUse` when somebody has the port, `AddrNotAvailable` when the host has no such address.
pub fn open_sender(local: SocketAddr) -> io::Result<OwnedFd> {
    let fd = bound(local, true)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES)?;
    set_discovery(fd.as_fd(), local, libc::IP_PMTUDISC_DO)?;
    // Nobody is meant to answer to this port; what comes all the same is not kept.
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
    Ok(fd)
}

fn bound(address: SocketAddr, only_v6: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` takes no pointer.
    let raw = Errno::result(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: `raw` is a descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    if address.is_ipv6() {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6.into())?;
    }
    nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Says what becomes of a datagram that is larger than its path. The values of both families are the same.
pub(crate) fn set_discovery(fd: BorrowedFd<'_>, family: SocketAddr, how: libc::c_int) -> nix::Result<()> {
    match family {
        SocketAddr::V4(_) => set_option(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, how),
        SocketAddr::V6(_) => set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, how),
    }
}

fn set_option(fd: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: these options read one int, which outlives the call.
    let done =
        unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(done).map(|_| ())
}

/// The address that the host would send from to another one, by its routes. Nothing is sent.
///
/// # Errors
/// When no route leads there.
pub fn local_towards(target: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    const DISCARD: u16 = 9;
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect((target, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

/// Datagrams for one target.
#[derive(Clone, Copy, Debug)]
pub struct Message<P> {
    /// The target.
    pub to: SocketAddr,
    /// Bytes of each datagram but the last, where it is several.
    pub segment: Option<u16>,
    /// Its bytes, piece by piece.
    pub pieces: P,
}

/// Room for one control message: `UDP_SEGMENT` of a send, `UDP_GRO` of a receive.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The arrays that `sendmmsg` wants, made once. Between calls their pointers are stale and nothing follows
/// them.
pub struct Sender {
    messages: Vec<libc::mmsghdr>,
    buffers: Vec<libc::iovec>,
    targets: Vec<SockaddrStorage>,
    controls: Vec<Control>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// Room for [`BATCH`] messages.
    pub fn new() -> Self {
        Self {
            messages: Vec::with_capacity(BATCH),
            buffers: Vec::new(),
            targets: Vec::with_capacity(BATCH),
            controls: vec![Control([0; 64]); BATCH],
        }
    }

    /// Sends messages, at most [`BATCH`] of them, and says how many the kernel took.
    ///
    /// # Errors
    /// The kernel's about the first, when it took none.
    pub fn send<'a, P: Iterator<Item = &'a [u8]>>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Message<P>>,
    ) -> nix::Result<usize> {
        self.messages.clear();
        self.buffers.clear();
        self.targets.clear();
        for (number, Message { to, segment, pieces }) in messages.take(BATCH).enumerate() {
            let first = self.buffers.len();
            self.buffers.extend(pieces.map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            }));
            self.targets.push(to.into());
            // SAFETY: `mmsghdr` is plain old data, for which all zeroes is a value.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_iovlen = self.buffers.len() - first;
            if let Some(size) = segment {
                set_segment(&mut message.msg_hdr, &mut self.controls[number], size);
            }
            self.messages.push(message);
        }
        self.point();
        let (messages, count) = (self.messages.as_mut_ptr(), self.messages.len() as libc::c_uint);
        // SAFETY: every message points at its buffers, its target and its control message, within `self`,
        // none of which moves until the call returns; the buffers point at pieces that outlive it ('a), which
        // are only read.
        let sent = Errno::result(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages, count, 0) })?;
        Ok(sent.unsigned_abs() as usize)
    }

    /// Points messages at their buffers and targets, once these lie where they will stay.
    fn point(&mut self) {
        let mut buffers = self.buffers.as_mut_slice();
        for (message, target) in self.messages.iter_mut().zip(&self.targets) {
            let own;
            (own, buffers) = std::mem::take(&mut buffers).split_at_mut(message.msg_hdr.msg_iovlen);
            message.msg_hdr.msg_iov = own.as_mut_ptr();
            message.msg_hdr.msg_name = target.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = target.len();
        }
    }
}

/// Writes the control message that has a send cut into datagrams of `size` bytes.
fn set_segment(header: &mut libc::msghdr, control: &mut Control, size: u16) {
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: these two only compute.
    let (space, length) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
    header.msg_controllen = space as usize;
    // SAFETY: the header names a control buffer of `space` bytes, within `Control`, aligned for a `cmsghdr`.
    let Some(message) = (unsafe { libc::CMSG_FIRSTHDR(header).as_mut() }) else { return };
    message.cmsg_level = libc::SOL_UDP;
    message.cmsg_type = libc::UDP_SEGMENT;
    message.cmsg_len = length as usize;
    // SAFETY: there is room for two bytes of data behind the header.
    unsafe { libc::CMSG_DATA(message).cast::<u16>().write_unaligned(size) };
}

/// Room for [`BATCH`] received messages, [`STRIDE`] apart.
pub struct Receiver {
    room: Vec<u8>,
    messages: Vec<libc::mmsghdr>,
    buffers: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

/// A received message, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its sender; an IPv4 address may be mapped into IPv6.
    pub from: IpAddr,
    /// Its bytes.
    pub length: usize,
    /// Bytes of each datagram but the last; `None` where it is only one.
    pub segment: Option<u16>,
}

impl Receiver {
    /// Room that is zero pages until it is used.
    pub fn new() -> Self {
        // SAFETY: these are plain old data, for which all zeroes is a value.
        let (message, buffer, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            room: vec![0; BATCH * STRIDE],
            messages: vec![message; BATCH],
            buffers: vec![buffer; BATCH],
            names: vec![name; BATCH],
            controls: vec![Control([0; 64]); BATCH],
        }
    }

    /// Takes up to `most` messages that are there, and says how many there were.
    ///
    /// # Errors
    /// The kernel's; `EAGAIN` when there is none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> nix::Result<usize> {
        let count = most.min(BATCH);
        let rooms = self.room.chunks_exact_mut(STRIDE);
        let controls = self.controls.iter_mut().zip(&mut self.names);
        let arrays = self.messages.iter_mut().zip(&mut self.buffers).zip(controls).zip(rooms);
        for (((message, buffer), (control, name)), room) in arrays.take(count) {
            *buffer = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut message.msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (buffer, 1);
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>();
        }
        let (messages, count) = (self.messages.as_mut_ptr(), count as libc::c_uint);
        // SAFETY: the first `count` messages point at a buffer, a name and a control buffer of the lengths
        // given, each its own, within `self`, which stays borrowed.
        let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), messages, count, 0, null_mut()) };
        Ok(Errno::result(got)?.unsigned_abs() as usize)
    }

    /// A message of the last receive, without its content: `number` is below what that answered.
    pub fn received(&self, number: usize) -> Received {
        let message = &self.messages[number];
        let name = &raw const self.names[number];
        // SAFETY: the name is a `sockaddr_storage` that the kernel has filled, of which it says the length.
        let name = unsafe { SockaddrStorage::from_raw(name.cast(), Some(message.msg_hdr.msg_namelen)) };
        let v4 = name.as_ref().and_then(|name| name.as_sockaddr_in()).map(|from| from.ip().into());
        let v6 = || name.as_ref().and_then(|name| name.as_sockaddr_in6()).map(|from| from.ip().into());
        Received {
            from: v4.or_else(v6).unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            length: (message.msg_len as usize).min(STRIDE),
            segment: segment_of(&message.msg_hdr),
        }
    }

    /// All rooms: message `n` begins at `n` times [`STRIDE`].
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }
}

/// The size that came along with a received message.
fn segment_of(header: &libc::msghdr) -> Option<u16> {
    // SAFETY: the kernel has set the length of what it wrote into the control buffer, which is still there.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if message.cmsg_level != libc::SOL_UDP || message.cmsg_type != libc::UDP_GRO {
        return None;
    }
    // SAFETY: the data of a UDP_GRO message is one int, maybe unaligned.
    let size = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
    u16::try_from(size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pair() -> (OwnedFd, OwnedFd, SocketAddr) {
        let receiver = open_receiver(0).expect("a socket");
        let name: SockaddrStorage = nix::sys::socket::getsockname(receiver.as_raw_fd()).expect("a name");
        let v4 = name.as_sockaddr_in().map(|name| name.port());
        let port = v4.or_else(|| name.as_sockaddr_in6().map(|name| name.port())).expect("a port");
        let sender = open_sender((HOST, 0).into()).expect("a socket");
        (receiver, sender, (HOST, port).into())
    }

    /// Every datagram that was received, one by one.
    fn datagrams(socket: &OwnedFd, count: usize) -> Vec<Vec<u8>> {
        let mut receiver = Receiver::new();
        let mut all = Vec::new();
        while all.len() < count {
            let messages = match receiver.receive(socket.as_fd(), BATCH) {
                Err(Errno::EAGAIN) => continue,
                outcome => outcome.expect("received"),
            };
            for number in 0..messages {
                let Received { from, length, segment } = receiver.received(number);
                assert_eq!(from.to_canonical(), HOST);
                let bytes = &receiver.room()[number * STRIDE..][..length];
                let size = segment.map_or(length, usize::from).max(1);
                all.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            }
        }
        all
    }

    #[test]
    fn a_gathered_send_is_cut_into_datagrams() {
        let (receiver, sender, to) = pair();
        let pieces: [&[u8]; 4] = [b"ab", b"c", b"d", b"efg"];
        let message = Message { to, segment: Some(3), pieces: pieces.into_iter() };
        assert_eq!(Sender::new().send(sender.as_fd(), std::iter::once(message)), Ok(1));
        assert_eq!(datagrams(&receiver, 3), [b"abc".to_vec(), b"def".to_vec(), b"g".to_vec()]);
    }

    #[test]
    fn several_messages_go_in_one_call() {
        let (receiver, sender, to) = pair();
        let texts: Vec<Vec<u8>> = (0..BATCH).map(|n| n.to_string().into_bytes()).collect();
        let messages = texts.iter().map(|text| {
            let pieces = std::iter::once(text.as_slice());
            Message { to, segment: None, pieces }
        });
        assert_eq!(Sender::new().send(sender.as_fd(), messages), Ok(BATCH));
        assert_eq!(datagrams(&receiver, BATCH), texts);
    }

    #[test]
    fn a_port_is_had_by_one_only() {
        let (_receiver, _sender, to) = pair();
        let error = open_receiver(to.port()).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_way_tells_the_address() {
        assert_eq!(local_towards(HOST).expect("a route"), HOST);
    }
}
