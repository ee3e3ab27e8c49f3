//! TAP devices: an Ethernet interface whose other end is a descriptor.
//!
//! # Kernel facts
//! * One frame per read and per write. A write runs the receiver's whole receive path inside the call.
//! * `IFF_VNET_HDR` puts a virtio-net header before every frame; its default length is 10 bytes.
//! * `TUNSETOFFLOAD` tells what the device may leave to us and what it takes from us. Unknown bits give
//!   `EINVAL`, `USO4` and `USO6` go only together (since Linux 6.2), so it is probed downwards. The mask
//!   belongs to the device and survives the descriptor.
//! * The device lives in the network namespace of the thread that made it, may be moved, and is removed
//!   when its last descriptor closes.
//! * Small frames take a fast allocation path only on a non-blocking descriptor whose send buffer was
//!   never set (`tun_can_build_skb`).

#![expect(
    clippy::cast_possible_truncation,
    reason = "constants and small lengths, cast to the types C wants"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use vswitch_frame::{Accepts, Frame};

const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

const TSO: libc::c_uint = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
const USO: libc::c_uint = TUN_F_USO4 | TUN_F_USO6;

/// The offloads to ask for, most first.
const OFFLOADS: [(libc::c_uint, Accepts); 3] = [
    (TSO | USO, Accepts::ALL),
    (TSO, Accepts { uso: false, ..Accepts::ALL }),
    (TUN_F_CSUM, Accepts { checksum: true, ..Accepts::NONE }),
];

/// Makes a TAP called `name` in the calling thread's network namespace. The interface is down.
///
/// # Errors
/// `AlreadyExists` when an interface has that name, `InvalidInput` for a name the kernel does not take
/// (1 to 15 bytes, no `/`, no space), `NotFound` without `/dev/net/tun`, `PermissionDenied` without
/// `CAP_NET_ADMIN`.
pub fn create(name: &str) -> io::Result<(OwnedFd, Accepts)> {
    let fd = open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(done).map_err(|errno| {
        // EINVAL: the name belongs to an interface that is no TAP.
        let taken = matches!(errno, Errno::EBUSY | Errno::EINVAL | Errno::EEXIST);
        if taken { io::ErrorKind::AlreadyExists.into() } else { io::Error::from(errno) }
    })?;
    let accepts = set_offload(&fd);
    Ok((fd, accepts))
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let usable = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    if !usable {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Sets the most the kernel takes of the offloads we know, and tells what that was.
fn set_offload(fd: &OwnedFd) -> Accepts {
    let set = |mask: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes its mask by value.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(mask)) == 0 }
    };
    let best = OFFLOADS.iter().find(|(mask, _)| set(*mask));
    best.map_or(Accepts::NONE, |(_, accepts)| *accepts)
}

/// The kind of a TAP descriptor made by someone else: whether it has a virtio-net header, and what it takes.
/// Makes it non-blocking, its header 10 bytes long, and sets its offloads.
///
/// # Errors
/// `Unsupported` when it is no TAP or puts packet information before each frame.
pub fn adopt(fd: &OwnedFd) -> io::Result<(bool, Accepts)> {
    let flags = flags_of(fd).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if flags & libc::IFF_VNET_HDR == 0 {
        // SAFETY: TUNSETOFFLOAD takes its mask by value. Without a header to describe it in, the
        // kernel must leave no work to us.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
        return Ok((false, Accepts::NONE));
    }
    let mut header_bytes = vswitch_frame::offload::VNET_HEADER_BYTES as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut header_bytes) };
    Errno::result(done)?;
    Ok((true, set_offload(fd)))
}

/// The flags a TAP was made with.
///
/// `TUNGETIFF` says "there is no filter" by the very bit that means "no packet information", so while it
/// is asked there is one, which lets everything pass. A filter that was there is lost.
fn flags_of(fd: &OwnedFd) -> io::Result<libc::c_int> {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut accept_all = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut accept_all };
    // SAFETY: TUNATTACHFILTER reads one program of one instruction; both outlive the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNATTACHFILTER, &raw const program) })?;
    // SAFETY: as in `interface_request`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq`, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    // SAFETY: TUNDETACHFILTER reads no more than TUNATTACHFILTER does.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNDETACHFILTER, &raw const program) };
    Errno::result(done)?;
    // SAFETY: TUNGETIFF has filled the flags of the union.
    Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Receives one frame into `frame`; `false` when there is none.
///
/// # Errors
/// The error of `read`, such as `EBADFD` once the interface is gone.
#[inline]
pub fn receive(fd: BorrowedFd<'_>, vnet_header: bool, frame: &mut Frame) -> io::Result<bool> {
    let room = if vnet_header { frame.receive_room() } else { frame.receive_room_plain() };
    match nix::unistd::read(fd, room) {
        Ok(bytes) if vnet_header => frame.received(bytes),
        Ok(bytes) => frame.received_plain(bytes),
        Err(Errno::EAGAIN) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    }
    Ok(true)
}

/// Sends one frame.
///
/// # Errors
/// The error of `write`, such as `EIO` while the interface is down.
#[inline]
pub fn send(fd: BorrowedFd<'_>, vnet_header: bool, frame: &mut Frame) -> nix::Result<()> {
    let bytes = if vnet_header { frame.with_vnet_header() } else { frame.bytes() };
    nix::unistd::write(fd, bytes).map(|_| ())
}
