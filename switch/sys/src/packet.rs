//! Packet sockets: the frames of an interface that the kernel owns, such as one end of a veth pair.
//!
//! # Kernel facts
//! * `PACKET_VNET_HDR` puts a 10-byte virtio-net header before every frame, so that super-frames and
//!   partial checksums pass; a container's veth hands over both.
//! * `PACKET_IGNORE_OUTGOING` keeps what we send from coming back to us.
//! * A VLAN tag is stripped into `PACKET_AUXDATA` on receipt; on sending it stays in line.
//! * `PACKET_QDISC_BYPASS` drops super-frames the device cannot split, so it stays off.
//! * An interface without a link layer, such as a TUN, hands over and takes IP packets; what they are is read
//!   from their first bytes (`ip_tunnel_header_ops` in `net/ipv4/ip_tunnel_core.c`).
//! * A super-frame charges about 70 KB to the receive buffer, whose default holds three.

#![expect(
    clippy::cast_possible_truncation,
    reason = "constants and small lengths, cast to the types C wants"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getsockname};
use serde::{Deserialize, Serialize};
use vswitch_frame::Frame;

use crate::filter::Program;

/// Frames per system call.
pub const BATCH: usize = 64;

/// The form in which a packet socket hands over frames and takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// A frame alone.
    Plain,
    /// A virtio-net header, and a frame (`PACKET_VNET_HDR`).
    VnetHeader,
    /// A virtio-net header, and an IP packet: the interface has no link layer.
    VnetHeaderAndPacket,
}

const BUFFER_BYTES: libc::c_int = 16 << 20;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// Opens a packet socket on `interface`, in the calling thread's network namespace, with virtio-net
/// headers, non-blocking.
///
/// # Errors
/// `NotFound` when there is no such interface, `PermissionDenied` without `CAP_NET_RAW`.
pub fn open(interface: &str) -> io::Result<OwnedFd> {
    open_with(interface, None)
}

/// Like [`open`], but only of what a filter admits. Another one may be attached later.
///
/// # Errors
/// As [`open`]; also what [`Program::attach`] reports.
pub fn open_filtered(interface: &str, filter: &Program) -> io::Result<OwnedFd> {
    open_with(interface, Some(filter))
}

fn open_with(interface: &str, filter: Option<&Program>) -> io::Result<OwnedFd> {
    let index =
        nix::net::if_::if_nametoindex(interface).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` takes no pointer. Protocol 0 receives nothing until `bind` names one.
    let raw = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: `raw` is a descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set_option(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set_option(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES)?;
    // Before `bind`, which begins to receive.
    filter.map_or(Ok(()), |filter| filter.attach(fd.as_fd()))?;
    bind(&fd, index)?;
    Ok(fd)
}

/// The form of a packet socket made by someone else.
/// Makes VLAN tags and outgoing frames as [`open`] does.
///
/// # Errors
/// `Unsupported` when it is no raw packet socket.
pub fn adopt(fd: &OwnedFd) -> io::Result<Framing> {
    let domain = option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
    let kind = option(fd, libc::SOL_SOCKET, libc::SO_TYPE);
    if domain != Ok(libc::AF_PACKET) || kind != Ok(libc::SOCK_RAW) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    set_option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set_option(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    let vnet_header = option(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR)? != 0;
    Ok(if vnet_header { Framing::VnetHeader } else { Framing::Plain })
}

/// The index of the interface that a packet socket is bound to.
///
/// # Errors
/// `NotFound` when that interface is no more, `InvalidInput` when it is no packet socket.
pub fn interface(fd: &OwnedFd) -> io::Result<u32> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let address = address.as_link_addr().ok_or(io::ErrorKind::InvalidInput)?;
    // Of an interface that is gone the kernel says -1, which is no index.
    let index = u32::try_from(address.ifindex()).ok().filter(|index| *index != 0 && *index != u32::MAX);
    index.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn bind(fd: &OwnedFd, index: libc::c_uint) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain old data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a `sockaddr_ll` of the length given, and outlives the call.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: these options read one int, which outlives the call.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(done).map(|_| ())
}

fn option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int) -> nix::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: these options write one int, and `length` says there is room for one.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    Errno::result(done).map(|_| value)
}

/// Room for the one control message a received frame has.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The arrays that `recvmmsg` and `sendmmsg` want, made once and used for every packet socket.
///
/// Between calls their pointers are stale and nothing follows them.
pub struct Vectors {
    messages: Vec<libc::mmsghdr>,
    buffers: Vec<libc::iovec>,
    controls: Vec<Control>,
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vectors").finish_non_exhaustive()
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self::new()
    }
}

impl Vectors {
    /// Room for [`BATCH`] frames.
    pub fn new() -> Self {
        // SAFETY: `mmsghdr` and `iovec` are plain old data, for which all zeroes is a value.
        let (message, buffer) = unsafe { (zeroed::<libc::mmsghdr>(), zeroed::<libc::iovec>()) };
        Self {
            messages: vec![message; BATCH],
            buffers: vec![buffer; BATCH],
            controls: vec![Control([0; 64]); BATCH],
        }
    }

    /// Receives up to [`BATCH`] frames into `frames` and says how many; zero when there is none.
    ///
    /// # Errors
    /// The error of `recvmmsg`, such as `ENETDOWN` when the interface goes down.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        framing: Framing,
        frames: &mut [Frame],
    ) -> io::Result<usize> {
        let count = frames.len().min(BATCH);
        for (index, frame) in frames.iter_mut().take(count).enumerate() {
            let room = match framing {
                Framing::Plain => frame.receive_room_plain(),
                Framing::VnetHeader | Framing::VnetHeaderAndPacket => frame.receive_room(),
            };
            self.buffers[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            self.point(index);
            let header = &mut self.messages[index].msg_hdr;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
        }
        let vectors = self.messages.as_mut_ptr();
        // SAFETY: the first `count` messages each point at one buffer, which lies in a slot that its
        // frame owns for as long as this call, and at one control buffer; the time-out may be null.
        let received = unsafe {
            libc::recvmmsg(fd.as_raw_fd(), vectors, count as libc::c_uint, 0, std::ptr::null_mut())
        };
        let received = match Errno::result(received) {
            Ok(received) => usize::try_from(received).unwrap_or(0),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for (index, frame) in frames.iter_mut().take(received).enumerate() {
            let bytes = self.messages[index].msg_len as usize;
            match framing {
                Framing::Plain => frame.received_plain(bytes),
                Framing::VnetHeader => frame.received(bytes),
                Framing::VnetHeaderAndPacket => frame.received_packet(bytes),
            }
            if let Some((tpid, tci)) = self.vlan_tag(index) {
                frame.insert_vlan_tag(tpid, tci);
            }
        }
        Ok(received)
    }

    /// Sends the first frames of `frames`, up to [`BATCH`], and says how many went.
    ///
    /// # Errors
    /// The error of `sendmmsg` for the first frame, which then is the caller's to drop.
    pub fn send(&mut self, fd: BorrowedFd<'_>, framing: Framing, frames: &mut [Frame]) -> nix::Result<usize> {
        let count = frames.len().min(BATCH);
        for (index, frame) in frames.iter_mut().take(count).enumerate() {
            let bytes = match framing {
                Framing::Plain => frame.bytes(),
                Framing::VnetHeader => frame.with_vnet_header(),
                Framing::VnetHeaderAndPacket => frame.packet_with_vnet_header(),
            };
            self.buffers[index] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.point(index);
            let header = &mut self.messages[index].msg_hdr;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
        }
        // SAFETY: the first `count` messages each point at one buffer, which lies in a slot that its
        // frame owns for as long as this call; `sendmmsg` reads buffers and never writes them.
        let sent =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), self.messages.as_mut_ptr(), count as libc::c_uint, 0) };
        Errno::result(sent).map(|sent| usize::try_from(sent).unwrap_or(0))
    }

    /// Makes message `index` point at buffer `index`.
    fn point(&mut self, index: usize) {
        let buffer = &raw mut self.buffers[index];
        let header = &mut self.messages[index].msg_hdr;
        header.msg_name = std::ptr::null_mut();
        header.msg_namelen = 0;
        header.msg_iov = buffer;
        header.msg_iovlen = 1;
        header.msg_flags = 0;
    }

    /// The VLAN tag the kernel stripped from message `index`, as (TPID, TCI).
    fn vlan_tag(&self, index: usize) -> Option<(u16, u16)> {
        let header = &raw const self.messages[index].msg_hdr;
        // SAFETY: `recvmmsg` has left in this header a control buffer of ours and its filled length,
        // which is what CMSG_FIRSTHDR reads; it answers null when there is no message.
        let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
        if message.cmsg_level != libc::SOL_PACKET || message.cmsg_type != libc::PACKET_AUXDATA {
            return None;
        }
        // SAFETY: the data of a PACKET_AUXDATA message is one `tpacket_auxdata`, maybe unaligned.
        let data = unsafe { libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned() };
        if data.tp_status & TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let has_tpid = data.tp_status & TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if has_tpid { data.tp_vlan_tpid } else { vswitch_frame::headers::ethertype::VLAN };
        Some((tpid, data.tp_vlan_tci))
    }
}
