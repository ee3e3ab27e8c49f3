//! Datagrams into frames and super-frames.
//!
//! # Theory of operation
//!
//! The kernel hands over one datagram, or several of one outer flow and one size side by side (`UDP_GRO`),
//! or, where it merges nothing, several at once each in a room of its own (`recvmmsg`). They lie a *stride*
//! apart in one buffer. Each is looked at alone: whether it is VXLAN, of a network that has a tunnel here,
//! from a peer of that network, and a whole frame inside. What is not is dropped and counted; nothing was
//! learned from it.
//!
//! Datagrams that lie side by side often carry consecutive segments of one connection. Where the rules of
//! coalescing allow it ([`vswitch_frame::run`]) they become one super-frame: the headers of the first are
//! made those of the whole, in place, and the payloads of the others stay where they are, to be gathered by
//! the write into a TAP:
//!
//! ```text
//! buffer  │vxlan│eth ip tcp│ payload 1 │vxlan│eth ip tcp│ payload 2 │vxlan│eth ip tcp│ payload 3 │
//! pieces        └─────────┬────────────┘                └─────┬─────┘                └─────┬─────┘
//!                    first piece                          second                       third
//! ```
//!
//! Only what is proven right is merged: every checksum is verified, and an unmerged frame keeps its own,
//! right or wrong.

use std::net::IpAddr;
use std::ops::Range;

use vswitch_frame::headers::ETHERNET_BYTES;
use vswitch_frame::run::{self, Extent, Segment};
use vswitch_frame::{DropReason, Frame, Headers, Instant, Mac, Offload};

use crate::header::{HEADER_BYTES, Header};
use crate::mtu::clamp_mss;
use crate::table::Origin;
use crate::tunnel::{Tunnel, Tunnels};
use crate::vni::Vni;

/// Facts the kernel gives with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The outer source address; an IPv4 address mapped into IPv6, as a socket for both gives it, is the
    /// IPv4 address.
    pub from: IpAddr,
    /// Bytes of each datagram but the last; `None` where there is only one.
    pub size: Option<u16>,
}

/// A frame that came through a tunnel, maybe a super-frame whose pieces lie apart. All ranges are of the
/// buffer it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The network it is of.
    pub vni: Vni,
    /// The places of its headers, counted from the start of its first piece.
    pub headers: Headers,
    /// Work left to be done: for a super-frame its split and its checksum.
    pub offload: Offload,
    /// Headers and payload of the first datagram.
    first: Range<usize>,
    /// Where the last datagram ends.
    end: usize,
    /// From one datagram to the next.
    stride: usize,
    /// Payload bytes of all datagrams.
    payload: usize,
    /// How far its run has come; `None` if it takes no part in any.
    extent: Option<Extent>,
}

impl Inner {
    /// Length of the frame in bytes.
    pub fn len(&self) -> usize {
        self.headers.payload_offset() + self.payload
    }

    /// Whether there are no bytes, which no frame is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where its pieces are in the buffer: one behind the other they are the frame.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let (first, end, stride) = (self.first.clone(), self.end, self.stride);
        let (payload, length) = (first.start + self.headers.payload_offset(), first.len());
        let rest = (1..).map(move |number| {
            let moved = number * stride;
            payload + moved..(first.start + length + moved).min(end)
        });
        std::iter::once(self.first.clone()).chain(rest.take_while(move |piece| piece.start < end))
    }

    /// Makes `frame` this one, copied from its buffer into one piece and parsed: for whoever cannot gather.
    pub fn copy_into(&self, buffer: &[u8], frame: &mut Frame) {
        frame.fill(&buffer[self.first.clone()]);
        for piece in self.pieces().skip(1) {
            // A run never grows beyond what a frame holds.
            let appended = frame.append(&buffer[piece]);
            debug_assert!(appended.is_ok());
        }
        frame.headers = self.headers;
        frame.offload = self.offload;
    }

    fn segment<'a>(&'a self, buffer: &'a [u8]) -> Segment<'a> {
        Segment { bytes: &buffer[self.first.clone()], headers: &self.headers, offload: Offload::NONE }
    }

    /// Takes the frame in if it is the next of this one's run, and answers whether it did.
    fn continued_by(&mut self, next: &Inner, buffer: &mut [u8]) -> bool {
        let (Some(extent), Some(_)) = (self.extent, next.extent) else { return false };
        // The next datagram must lie where the stride leads: another one between them would be taken for it.
        let beside = self.first.start + usize::from(extent.segments) * self.stride;
        let is_beside = next.first.start == beside && next.vni == self.vni;
        let (head, segment) = (self.segment(buffer), next.segment(buffer));
        if !is_beside || !extent.continued_by(head, self.payload, segment) {
            return false;
        }
        self.offload.gso = self.offload.gso.or_else(|| extent.gso(head, segment));
        let (heads, rest) = buffer.split_at_mut(next.first.start);
        let bytes = &rest[..next.first.len()];
        let segment = Segment { bytes, headers: &next.headers, offload: Offload::NONE };
        run::join_flags(&mut heads[self.first.clone()], segment);
        self.extent = Some(Extent { segments: extent.segments + 1, ..extent });
        self.payload += next.payload;
        self.end = next.end;
        true
    }

    /// Makes the headers of the first datagram those of the whole super-frame.
    fn seal(&mut self, buffer: &mut [u8]) {
        if self.offload.gso.is_some() {
            let head = &mut buffer[self.first.clone()];
            self.offload.checksum = run::seal(head, &mut self.headers, self.payload);
        }
    }
}

/// Opens buffers. From one to the next it keeps nothing but its memory.
#[derive(Debug, Default)]
pub struct Decapsulator {
    inners: Vec<Inner>,
    dropped: Vec<(Option<Vni>, DropReason)>,
    known: Option<Known>,
}

impl Decapsulator {
    /// A decapsulator with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frames that were in the last buffer, in the order they came.
    pub fn inners(&self) -> &[Inner] {
        &self.inners
    }

    /// The datagrams of the last buffer that were dropped: the network, if there is a tunnel for it, and why.
    pub fn dropped(&self) -> &[(Option<Vni>, DropReason)] {
        &self.dropped
    }

    /// Opens what one receive put into `buffer`: a datagram, or several side by side. What came of them is
    /// then in [`inners`](Self::inners) and [`dropped`](Self::dropped). Where datagrams are merged, headers
    /// in the buffer are changed.
    pub fn open(&mut self, tunnels: &mut Tunnels, received: Received, buffer: &mut [u8], now: Instant) {
        self.clear();
        let from = received.from.to_canonical();
        let stride = received.size.filter(|&size| size > 0).map_or(buffer.len(), usize::from).max(1);
        let may_merge = buffer.len() > stride;
        // An empty datagram is one, too.
        for number in 0..buffer.len().div_ceil(stride).max(1) {
            let at = number * stride;
            let place = at..(at + stride).min(buffer.len());
            self.open_one(tunnels, Datagram { from, place, stride, may_merge }, buffer, now);
        }
        self.seal(buffer);
    }

    /// Opens datagrams that were received at once, each at the start of its own `stride` bytes of `buffer`,
    /// as [`open`](Self::open) does. `received` has the outer source address and the length of each.
    pub fn open_each(
        &mut self,
        tunnels: &mut Tunnels,
        received: &[(IpAddr, usize)],
        stride: usize,
        buffer: &mut [u8],
        now: Instant,
    ) {
        self.clear();
        let may_merge = received.len() > 1;
        for (number, (from, length)) in received.iter().enumerate() {
            let from = from.to_canonical();
            let at = (number * stride).min(buffer.len());
            let place = at..(at + (*length).min(stride)).min(buffer.len());
            self.open_one(tunnels, Datagram { from, place, stride, may_merge }, buffer, now);
        }
        self.seal(buffer);
    }

    fn clear(&mut self) {
        self.inners.clear();
        self.dropped.clear();
        self.known = None;
    }

    fn seal(&mut self, buffer: &mut [u8]) {
        self.inners.iter_mut().for_each(|inner| inner.seal(buffer));
    }

    fn open_one(&mut self, tunnels: &mut Tunnels, datagram: Datagram, buffer: &mut [u8], now: Instant) {
        let bytes = &mut buffer[datagram.place.clone()];
        match look_at(tunnels, &mut self.known, datagram.from, bytes, now) {
            Ok((vni, headers)) => self.add(Inner::new(vni, headers, datagram, buffer), buffer),
            Err(dropped) => self.dropped.push(dropped),
        }
    }

    fn add(&mut self, inner: Inner, buffer: &mut [u8]) {
        let joined = self.inners.last_mut().is_some_and(|last| last.continued_by(&inner, buffer));
        if !joined {
            self.inners.push(inner);
        }
    }
}

/// Where one datagram is, and where the next would be.
struct Datagram {
    from: IpAddr,
    place: Range<usize>,
    stride: usize,
    /// There are others to merge it with.
    may_merge: bool,
}

impl Inner {
    fn new(vni: Vni, headers: Headers, datagram: Datagram, buffer: &[u8]) -> Self {
        let Datagram { place, stride, may_merge, .. } = datagram;
        let first = place.start + HEADER_BYTES..place.end;
        let payload = first.len() - headers.payload_offset();
        let end = first.end;
        let offload = Offload::NONE;
        let mut inner = Self { vni, headers, offload, first, end, stride, payload, extent: None };
        let segment = inner.segment(buffer);
        inner.extent = (may_merge && segment.may_take_part()).then(|| Extent::of(segment));
        inner
    }
}

/// A sender that was looked at already: many datagrams in a buffer are from one.
#[derive(Clone, Copy, Debug)]
struct Known {
    from: IpAddr,
    vni: Vni,
    source: Mac,
    tags: bool,
    mtu: usize,
}

/// Looks at one datagram: the network it is of, and where the headers of the frame in it are. `known` is the
/// sender of the one before.
fn look_at(
    tunnels: &mut Tunnels,
    known: &mut Option<Known>,
    from: IpAddr,
    datagram: &mut [u8],
    now: Instant,
) -> Result<(Vni, Headers), (Option<Vni>, DropReason)> {
    let (Header { vni }, _) = Header::parse(datagram).map_err(|_| (None, DropReason::TunnelMalformed))?;
    let inner = &mut datagram[HEADER_BYTES..];
    let source = inner.get(6..12).and_then(|mac| mac.try_into().ok()).map_or(Mac::ZERO, Mac);
    let same = known.filter(|known| (known.from, known.vni, known.source) == (from, vni, source));
    let Known { tags, mtu, .. } = match same {
        Some(known) => known,
        None => {
            let tunnel = tunnels.get(vni).ok_or((None, DropReason::TunnelUnknownVni))?;
            check_peer(tunnel, from).map_err(|reason| (Some(vni), reason))?;
            Known { from, vni, source, tags: tunnel.settings().tags, mtu: tunnel.room(from) }
        }
    };
    let headers = Headers::parse(inner).map_err(|reason| (Some(vni), reason))?;
    if !tags && headers.network_offset() > ETHERNET_BYTES {
        return Err((Some(vni), DropReason::TunnelTagged));
    }
    if same.is_none() {
        if let Some(tunnel) = tunnels.get_mut(vni) {
            check_source(tunnel, from, source, now).map_err(|reason| (Some(vni), reason))?;
        }
        *known = Some(Known { from, vni, source, tags, mtu });
    }
    clamp_mss(inner, &headers, mtu);
    Ok((vni, headers))
}

/// Checks who sent a packet.
fn check_peer(tunnel: &Tunnel, from: IpAddr) -> Result<(), DropReason> {
    if from == tunnel.settings().local {
        return Err(DropReason::TunnelSelf);
    }
    if tunnel.is_peer(from) { Ok(()) } else { Err(DropReason::TunnelUnknownVtep) }
}

/// Checks whether the source of a frame may be behind the VTEP it came from: a record may say that it is
/// elsewhere. Learns that it is there.
fn check_source(tunnel: &mut Tunnel, from: IpAddr, source: Mac, now: Instant) -> Result<(), DropReason> {
    let entry = tunnel.table.find(source);
    if entry.is_some_and(|entry| matches!(entry.origin, Origin::Control { .. }) && entry.vtep != from) {
        return Err(DropReason::TunnelSpoofed);
    }
    if tunnel.settings().learning && source.is_station() {
        tunnel.table.learn(source, from, now);
    }
    Ok(())
}
