//! Bound UDP sockets of the host, whose datagrams are relayed: received in batches straight into frames, and
//! sent in runs.
//!
//! # Kernel facts
//! * A UDP socket bound to the unspecified address answers from any address the host has, unless told which
//!   by `IP_PKTINFO` or `IPV6_PKTINFO` (ip(7), ipv6(7)). The same control message tells where a datagram came
//!   to.
//! * A socket of both families shows IPv4 addresses mapped into IPv6 (RFC 4291, 2.5.5.2), and takes them so.
//! * `UDP_SEGMENT` sends a run of datagrams of one length, the last perhaps shorter, in one call (udp(7)): at
//!   most 64, and 65,507 bytes. It fails where one of them would not fit into the MTU, or the interface does
//!   not finish checksums.

#![expect(clippy::cast_possible_truncation, reason = "constants, cast to the types C wants")]

use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrLike, SockaddrStorage, sendmsg, setsockopt};
use vswitch_frame::Frame;

use crate::stream::socket_address;

/// Datagrams per system call.
pub const BATCH: usize = 64;

/// Datagrams of a run that is sent in one call, and their bytes.
const RUN_DATAGRAMS: usize = 64;
const RUN_BYTES: usize = 65_000;

/// A bound UDP socket that knows, of each datagram, which of the host's addresses it was sent to.
#[derive(Debug)]
pub struct Datagrams(Arc<OwnedFd>);

/// A received datagram, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes received.
    pub length: usize,
    /// Its sender.
    pub client: SocketAddr,
    /// The address of the host's that it was sent to.
    pub addressed: IpAddr,
}

impl Datagrams {
    /// Takes a bound UDP socket and has it tell addresses.
    ///
    /// # Errors
    /// When it is no socket of IPv4 or IPv6.
    pub fn new(socket: Arc<OwnedFd>) -> io::Result<Self> {
        // A socket of IPv6 may carry IPv4, too; one of IPv4 knows no option of IPv6.
        let six = setsockopt(&socket, Ipv6RecvPacketInfo, &true);
        let four = setsockopt(&socket, Ipv4PacketInfo, &true);
        six.or(four)?;
        Ok(Self(socket))
    }

    /// Sends datagrams of `size` bytes, the last perhaps shorter, to `client` from the address `from` of the
    /// host's.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel has no room; otherwise the kernel's. What was not sent then is the
    /// caller's loss.
    pub fn send(&self, bytes: &[u8], size: usize, client: SocketAddr, from: IpAddr) -> io::Result<()> {
        let run = (RUN_BYTES / size.max(1)).clamp(1, RUN_DATAGRAMS) * size.max(1);
        if bytes.len() <= size {
            return self.send_run(bytes, None, client, from);
        }
        for run in bytes.chunks(run) {
            let together = u16::try_from(size).map_err(io::Error::other);
            let together = together.and_then(|size| self.send_run(run, Some(size), client, from));
            if together.is_err() {
                run.chunks(size.max(1)).try_for_each(|one| self.send_run(one, None, client, from))?;
            }
        }
        Ok(())
    }

    fn send_run(&self, bytes: &[u8], size: Option<u16>, client: SocketAddr, from: IpAddr) -> io::Result<()> {
        let parts = [IoSlice::new(bytes)];
        let target = SockaddrStorage::from(client);
        let (v4, v6);
        let source = match from {
            IpAddr::V4(from) => {
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(from) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        match &size {
            Some(size) => {
                let control = [source, ControlMessage::UdpGsoSegments(size)];
                sendmsg(fd, &parts, &control, flags, Some(&target))?;
            }
            None => {
                sendmsg(fd, &parts, &[source], flags, Some(&target))?;
            }
        }
        Ok(())
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for the control messages of a received datagram: both kinds of packet information.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 96]);

/// The arrays that `recvmmsg` wants, made once and used for every socket.
///
/// Between calls their pointers are stale and nothing follows them.
pub struct Batch {
    messages: Vec<libc::mmsghdr>,
    buffers: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Room for [`BATCH`] datagrams.
    pub fn new() -> Self {
        // SAFETY: all of these are plain old data, for which all zeroes is a value.
        let (message, buffer, name) = unsafe {
            (zeroed::<libc::mmsghdr>(), zeroed::<libc::iovec>(), zeroed::<libc::sockaddr_storage>())
        };
        Self {
            messages: vec![message; BATCH],
            buffers: vec![buffer; BATCH],
            names: vec![name; BATCH],
            controls: vec![Control([0; 96]); BATCH],
        }
    }

    /// Receives up to [`BATCH`] datagrams, each into the plain room of a frame from `offset` on, and says how
    /// many. What does not fit is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise the kernel's.
    pub fn receive(&mut self, socket: &Datagrams, frames: &mut [Frame], offset: usize) -> io::Result<usize> {
        let count = frames.len().min(BATCH);
        for (index, frame) in frames.iter_mut().take(count).enumerate() {
            let room = frame.receive_room_plain().get_mut(offset..).unwrap_or_default();
            self.buffers[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut self.messages[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.buffers[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
            header.msg_flags = 0;
        }
        let (fd, vectors) = (socket.0.as_raw_fd(), self.messages.as_mut_ptr());
        // SAFETY: the first `count` messages each point at one buffer, which lies in a slot that its frame
        // owns for as long as this call, and at one name and one control buffer of ours; the time-out may be
        // null.
        let received = unsafe {
            libc::recvmmsg(fd, vectors, count as libc::c_uint, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        Ok(usize::try_from(Errno::result(received)?).unwrap_or(0))
    }

    /// Datagram `index` of those that were received last, without its content.
    pub fn received(&self, index: usize) -> Option<Received> {
        let message = self.messages.get(index)?;
        let (name, length) = (&raw const self.names[index], message.msg_hdr.msg_namelen);
        // SAFETY: the kernel wrote an address of `length` bytes there, and it outlives the call.
        let client = unsafe { SockaddrStorage::from_raw(name.cast(), Some(length)) };
        let client = client.as_ref().and_then(socket_address)?;
        let length = message.msg_len as usize;
        Some(Received { length, client, addressed: self.addressed(index)? })
    }

    fn addressed(&self, index: usize) -> Option<IpAddr> {
        let header = &raw const self.messages[index].msg_hdr;
        let mut addressed = None;
        // SAFETY: `recvmmsg` has left in this header a control buffer of ours and its filled length, which is
        // all that these two read; they answer null behind the last message. The data of a message is what
        // its level and type say, maybe unaligned.
        unsafe {
            let mut next = libc::CMSG_FIRSTHDR(header);
            while let Some(message) = next.as_ref() {
                let data = libc::CMSG_DATA(message);
                match (message.cmsg_level, message.cmsg_type) {
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        addressed = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        addressed = addressed.or(Some(info.ipi_spec_dst.s_addr.to_ne_bytes().into()));
                    }
                    _ => {}
                }
                next = libc::CMSG_NXTHDR(header, next);
            }
        }
        addressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, UdpSocket};
    use std::time::Duration;
    use vswitch_frame::Pool;

    #[test]
    fn a_reply_leaves_from_the_address_that_was_addressed() {
        let mut pool = Pool::new(2);
        let mut frames = [pool.take().expect("a slot"), pool.take().expect("a slot")];
        let mut batch = Batch::new();
        let both: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        for (bound, addressed) in
            [("0.0.0.0:0".parse().expect("address"), "127.0.0.7"), (both, "127.0.0.8"), (both, "::1")]
        {
            let socket = UdpSocket::bind(bound).expect("bind");
            let port = socket.local_addr().expect("address").port();
            let socket = Datagrams::new(Arc::new(socket.into())).expect("options");
            let addressed: IpAddr = addressed.parse().expect("address");
            let unspecified: &str = if addressed.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(unspecified).expect("bind");
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
            client.send_to(b"question", (addressed, port)).expect("send");
            assert_eq!(batch.receive(&socket, &mut frames, 5).expect("receive"), 1);
            let received = batch.received(0).expect("whole");
            assert_eq!(received.addressed.to_canonical(), addressed);
            assert_eq!(received.client.port(), client.local_addr().expect("address").port());
            assert_eq!(&frames[0].receive_room_plain()[5..5 + received.length], b"question");
            // Two, and one that is shorter.
            socket.send(b"answerAnswerans", 6, received.client, received.addressed).expect("send");
            let mut room = [0; 64];
            for expected in [&b"answer"[..], b"Answer", b"ans"] {
                let (length, from) = client.recv_from(&mut room).expect("receive");
                assert_eq!((&room[..length], from), (expected, (addressed, port).into()));
            }
            let error = batch.receive(&socket, &mut frames, 0).expect_err("nothing more");
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
    }
}
