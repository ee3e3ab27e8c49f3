//! Sends of tunnels, and what becomes of those that the kernel refuses.
//!
//! # Theory of operation
//! No router cuts up what leaves here, so the kernel refuses what is larger than the path it knows of. It
//! refuses sends of several datagrams where the interface does not segment, too, and in older versions with
//! the same words. So the first datagram of a refused send is sent alone:
//!
//! ```text
//!  refused ─► alone ─┬─► sent ─────► the rest one by one; none are segmented from then on, unless too large
//!                    ├─► too big ──► cut up by the kernel, all of it; the path's MTU is noted
//!                    └─► refused ──► dropped
//! ```
//!
//! * **Cut up** is also what the plan knows to be too large for its path. The kernel may do it to these sends
//!   only. Nothing is lost when it hears of a narrow path; later senders are told ([`Tunnels::refuse`]).
//! * **Trust.** The MTU is the word of the kernel, which heard it from routers about packets of its own.
//!
//! [`Tunnels::refuse`]: crate::tunnel::Tunnels::refuse

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use vswitch_contract::counters::Counters;
use vswitch_frame::{DropReason, Frame, PortId};
use vswitch_sys::device::reason_of;
use vswitch_sys::path_mtu::{self, Tried};
use vswitch_sys::udp;
use vswitch_vxlan::{Encapsulator, Send};

/// Pieces of one datagram: headers and payload.
const PIECES: usize = 2;

/// The sending sockets of one of this host's addresses.
#[derive(Debug)]
pub(crate) struct Senders {
    pub(crate) sockets: Vec<Option<Arc<OwnedFd>>>,
    /// Datagrams in one send, at most.
    pub(crate) segments: u16,
}

/// A path that turned out to be narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Narrowed {
    pub(crate) to: IpAddr,
    /// Its MTU.
    pub(crate) mtu: usize,
    /// Bytes of the datagram that was too large for it.
    pub(crate) size: u16,
}

/// The sends of one plan.
pub(crate) struct Errand<'a> {
    pub(crate) plan: &'a Encapsulator,
    pub(crate) frames: &'a [Frame],
    pub(crate) egress: PortId,
    pub(crate) counters: &'a Counters,
    pub(crate) out: &'a mut udp::Sender,
    /// Paths that are found to be narrow on the way.
    pub(crate) narrowed: &'a mut Vec<Narrowed>,
}

impl Errand<'_> {
    /// Sends what goes through one socket, in order.
    pub(crate) fn send(&mut self, senders: &mut Senders, mut sends: &[Send]) {
        let Senders { sockets, segments } = senders;
        let socket = sends.first().and_then(|send| sockets.get(usize::from(send.socket)));
        let Some(socket) = socket.and_then(Option::as_ref) else {
            sends.iter().for_each(|send| self.drop(DropReason::TxRefused, send.count()));
            return;
        };
        let socket = socket.as_fd();
        while let Some(first) = sends.first() {
            let went = if first.cut || self.is_narrowed(first) {
                self.send_cut(socket, first);
                1
            } else {
                self.send_whole(socket, sends).unwrap_or_else(|errno| {
                    if self.send_refused(socket, first, errno) {
                        *segments = 1;
                    }
                    1
                })
            };
            sends = sends.get(went..).unwrap_or_default();
        }
    }

    /// Sends those up to the first that is too large for its path, and says how many the kernel took.
    fn send_whole(&mut self, socket: BorrowedFd<'_>, sends: &[Send]) -> nix::Result<usize> {
        let messages = sends.iter().take_while(|send| !send.cut).map(|send| udp::Message {
            to: send.to,
            segment: (send.count() > 1).then_some(send.size),
            pieces: self.plan.pieces(send, self.frames),
        });
        Ok(self.out.send(socket, messages)?.max(1))
    }

    /// Sends what the kernel has refused in another way, if there is one. Says whether it does not segment.
    fn send_refused(&mut self, socket: BorrowedFd<'_>, send: &Send, errno: Errno) -> bool {
        let may_be_too_big = errno == Errno::EMSGSIZE;
        let may_be_unsegmented = matches!(errno, Errno::EIO | Errno::EINVAL) && send.count() > 1;
        if !may_be_too_big && !may_be_unsegmented {
            self.drop(reason_of(errno), send.count());
            return false;
        }
        let pieces: Vec<&[u8]> = self.plan.pieces(send, self.frames).collect();
        let (alone, rest) = pieces.split_at(PIECES.min(pieces.len()));
        match path_mtu::try_datagram(socket, send.to, alone) {
            Ok(Tried::Sent) => {
                self.send_each(socket, send, rest);
                return may_be_unsegmented;
            }
            Ok(Tried::TooBig(mtu)) => {
                let mtu = mtu.and_then(|mtu| usize::try_from(mtu).ok());
                let (to, size) = (send.to.ip(), send.size);
                self.narrowed.extend(mtu.map(|mtu| Narrowed { to, mtu, size }));
                self.send_cut(socket, send);
            }
            Err(errno) => self.drop(reason_of(errno), send.count()),
        }
        false
    }

    /// Whether something no larger was too large for the path just now.
    fn is_narrowed(&self, send: &Send) -> bool {
        let is_its = |narrowed: &Narrowed| narrowed.to == send.to.ip() && narrowed.size <= send.size;
        self.narrowed.iter().any(is_its)
    }

    /// Sends datagrams that the kernel may cut up.
    fn send_cut(&mut self, socket: BorrowedFd<'_>, send: &Send) {
        let allow = |allowed| path_mtu::allow_cutting(socket, send.to, allowed);
        if allow(true).is_err() {
            return self.drop(DropReason::TxTooBig, send.count());
        }
        let pieces: Vec<&[u8]> = self.plan.pieces(send, self.frames).collect();
        self.send_each(socket, send, &pieces);
        let forbidden = allow(false);
        debug_assert_eq!(forbidden, Ok(()), "it was allowed");
    }

    /// Sends datagrams of a send one by one.
    fn send_each(&mut self, socket: BorrowedFd<'_>, send: &Send, mut pieces: &[&[u8]]) {
        while !pieces.is_empty() {
            let messages = pieces.chunks(PIECES).map(|pieces| udp::Message {
                to: send.to,
                segment: None,
                pieces: pieces.iter().copied(),
            });
            let went = self.out.send(socket, messages).unwrap_or_else(|errno| {
                self.drop(reason_of(errno), 1);
                1
            });
            pieces = pieces.get(went.max(1) * PIECES..).unwrap_or_default();
        }
    }

    fn drop(&self, reason: DropReason, datagrams: usize) {
        self.counters.drop(self.egress, reason, datagrams as u64);
    }
}
