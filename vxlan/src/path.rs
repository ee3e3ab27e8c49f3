//! Paths to other hosts that are narrower than this host's interface.
//!
//! # Theory of operation
//!
//! Somewhere on the way to a VTEP a link may have less room than the interface here. The owner of the sockets
//! hears of it when a datagram is refused, and [notes](Paths::note) it. A packet that is too large for its
//! path is refused before it enters the tunnel, and its sender told ([`Tunnel::too_big`]). One whose sender
//! cannot be told is sent all the same, and the datagram it is in is cut up ([`Send::cut`]).
//!
//! * **Floor.** No packet of up to [`ROOM_MIN`] bytes is refused, whatever was noted: a router's word may be
//!   forged, and IPv6 inside must always have so much. It is cut up instead.
//! * **Ageing.** All that was noted is forgotten after [`AGE`]: a path may have become wider. Whoever knows
//!   better says it again at the next large datagram.
//! * **Limits.** [`PEERS_MAX`](crate::tunnel::PEERS_MAX) paths; a further one is not noted, and what is too
//!   large for it is cut up.
//!
//! [`Tunnel::too_big`]: crate::Tunnel::too_big
//! [`Send::cut`]: crate::Send::cut

use std::net::IpAddr;
use std::time::Duration;

use vswitch_frame::Instant;

/// Bytes of a network packet that are never refused for a narrow path: the least MTU of IPv6 (RFC 8200, 5).
pub const ROOM_MIN: usize = 1280;
/// How long a narrow path is remembered.
pub const AGE: Duration = Duration::from_secs(10);

/// The narrow paths of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// Largest network packets that pass uncut, by VTEP.
    narrow: Vec<(IpAddr, usize)>,
    /// When they are forgotten; not yet known of what was noted since the last sweep.
    until: Option<Instant>,
}

impl Paths {
    /// Notes that the largest network packet that passes uncut to a VTEP has `bytes`. At `most` paths a new
    /// one is not noted.
    pub(crate) fn note(&mut self, vtep: IpAddr, bytes: usize, most: usize) {
        match self.narrow.binary_search_by_key(&vtep, |(known, _)| *known) {
            Ok(at) => self.narrow[at].1 = bytes,
            Err(at) if self.narrow.len() < most => self.narrow.insert(at, (vtep, bytes)),
            Err(_) => {}
        }
    }

    /// The largest network packet that passes uncut to a VTEP, if the way there is narrow.
    #[inline]
    pub(crate) fn find(&self, vtep: IpAddr) -> Option<usize> {
        if self.narrow.is_empty() {
            return None;
        }
        let at = self.narrow.binary_search_by_key(&vtep, |(known, _)| *known).ok()?;
        Some(self.narrow[at].1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.narrow.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, usize)> {
        self.narrow.iter().copied()
    }

    pub(crate) fn forget(&mut self, vtep: IpAddr) {
        self.narrow.retain(|(known, _)| *known != vtep);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When [`sweep`](Self::sweep) has something to do.
    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        (!self.narrow.is_empty()).then(|| self.until.unwrap_or(Instant::ZERO))
    }

    /// Forgets what is too old.
    pub(crate) fn sweep(&mut self, now: Instant) {
        match self.until {
            _ if self.narrow.is_empty() => self.until = None,
            None => self.until = Some(now + AGE),
            Some(until) if until <= now => self.clear(),
            Some(_) => {}
        }
    }
}
