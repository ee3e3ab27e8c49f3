//! A port's descriptor, whatever its kind: received from and sent to in bursts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use vswitch_frame::{Accepts, DropReason, Frame, Pool};

use crate::packet::{self, Framing, Vectors};
use crate::tap;

/// The kind of descriptor that a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A TAP; `vnet_header` says whether frames have a virtio-net header in front (`IFF_VNET_HDR`).
    Tap {
        /// Whether they have.
        vnet_header: bool,
    },
    /// A packet socket.
    Packet(Framing),
}

/// Finds out what a descriptor made by someone else is, and makes it ready to be a port: non-blocking,
/// with every offload it can describe.
///
/// # Errors
/// `Unsupported` when it is neither a TAP without packet information nor a raw packet socket.
pub fn adopt(fd: &OwnedFd) -> io::Result<(DeviceKind, Accepts)> {
    let adopted = tap::adopt(fd).map(|(vnet_header, accepts)| (DeviceKind::Tap { vnet_header }, accepts));
    let adopted = adopted.or_else(|_| {
        let framing = packet::adopt(fd)?;
        let accepts = if framing == Framing::Plain { Accepts::NONE } else { Accepts::ALL };
        Ok::<_, io::Error>((DeviceKind::Packet(framing), accepts))
    })?;
    let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL)?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(adopted)
}

/// The most that one burst may take from a port before the others have their turn.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Frames, at most.
    pub frames: usize,
    /// Bytes, at most one frame exceeded.
    pub bytes: usize,
}

/// The rest at a port after a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There may be more.
    More,
    /// Nothing; readiness will be reported when there is.
    Nothing,
    /// The interface is gone or broken: nothing will ever come.
    Gone,
}

/// A port's descriptor.
#[derive(Debug)]
pub struct Device {
    fd: Arc<OwnedFd>,
    kind: DeviceKind,
}

impl Device {
    /// A device of a descriptor that is non-blocking and of that kind.
    pub fn new(fd: Arc<OwnedFd>, kind: DeviceKind) -> Self {
        Self { fd, kind }
    }

    /// Receives a burst, appending it to `burst`.
    pub fn receive(
        &mut self,
        vectors: &mut Vectors,
        budget: Budget,
        pool: &mut Pool,
        burst: &mut Vec<Frame>,
    ) -> Left {
        match self.kind {
            DeviceKind::Tap { vnet_header } => self.receive_tap(vnet_header, budget, pool, burst),
            DeviceKind::Packet(framing) => self.receive_packet(vectors, framing, budget, pool, burst),
        }
    }

    fn receive_tap(
        &mut self,
        vnet_header: bool,
        budget: Budget,
        pool: &mut Pool,
        burst: &mut Vec<Frame>,
    ) -> Left {
        let mut bytes = 0;
        for _ in 0..budget.frames {
            let Some(mut frame) = pool.take() else {
                return Left::More;
            };
            match tap::receive(self.fd.as_fd(), vnet_header, &mut frame) {
                Ok(true) => {
                    bytes += frame.len();
                    burst.push(frame);
                }
                outcome => {
                    pool.free(frame);
                    return left_after(outcome.map(|_| ()));
                }
            }
            if bytes >= budget.bytes {
                break;
            }
        }
        Left::More
    }

    fn receive_packet(
        &mut self,
        vectors: &mut Vectors,
        framing: Framing,
        budget: Budget,
        pool: &mut Pool,
        burst: &mut Vec<Frame>,
    ) -> Left {
        let mut bytes = 0;
        let mut frames = 0;
        while frames < budget.frames && bytes < budget.bytes {
            let first = burst.len();
            let room = packet::BATCH.min(budget.frames - frames);
            burst.extend(std::iter::from_fn(|| pool.take()).take(room));
            let asked = burst.len() - first;
            let outcome = vectors.receive(self.fd.as_fd(), framing, &mut burst[first..]);
            let received = *outcome.as_ref().unwrap_or(&0);
            for unused in burst.drain(first + received..).rev() {
                pool.free(unused);
            }
            bytes += burst[first..].iter().map(Frame::len).sum::<usize>();
            frames += received;
            if received < asked {
                return left_after(outcome.map(|_| ()));
            }
            if asked == 0 {
                break;
            }
        }
        Left::More
    }

    /// Sends frames in order; `dropped` is told of each that the kernel refused, and why.
    pub fn send(
        &mut self,
        vectors: &mut Vectors,
        frames: &mut [Frame],
        mut dropped: impl FnMut(DropReason, &Frame),
    ) {
        match self.kind {
            DeviceKind::Tap { vnet_header } => {
                for frame in frames {
                    if let Err(errno) = tap::send(self.fd.as_fd(), vnet_header, frame) {
                        dropped(reason_of(errno), frame);
                    }
                }
            }
            DeviceKind::Packet(framing) => {
                let mut rest = frames;
                while !rest.is_empty() {
                    let went = vectors.send(self.fd.as_fd(), framing, rest).unwrap_or_else(|errno| {
                        dropped(reason_of(errno), &rest[0]);
                        1
                    });
                    rest = rest.get_mut(went..).unwrap_or(&mut []);
                }
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A port that is down may come up again; one whose interface is gone will not.
fn left_after(outcome: io::Result<()>) -> Left {
    match outcome {
        Ok(()) => Left::Nothing,
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBADFD | Errno::ENXIO | Errno::ENODEV) => Left::Gone,
            _ => Left::Nothing,
        },
    }
}

/// The drop reason of a frame or datagram whose send the kernel refused.
pub fn reason_of(errno: Errno) -> DropReason {
    if matches!(errno, Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) {
        DropReason::TxFull
    } else if errno == Errno::EMSGSIZE {
        DropReason::TxTooBig
    } else {
        DropReason::TxRefused
    }
}
