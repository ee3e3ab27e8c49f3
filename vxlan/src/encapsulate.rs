//! Frames into gathered sends.
//!
//! # Theory of operation
//!
//! The kernel takes up to 64 datagrams of one size, the last maybe shorter, in one send (`UDP_SEGMENT`);
//! that is what makes a tunnel fast. It knows nothing of what is inside, so every datagram needs a VXLAN
//! header and finished inner headers of its own. These are written one behind the other into an *arena*;
//! payload stays in the frame. A datagram is a piece of the arena and a piece of a frame, and a send is
//! the list of those:
//!
//! ```text
//! arena   │vxlan│eth ip tcp│vxlan│eth ip tcp│vxlan│eth ip tcp│
//!         └────────┬───────┘└────────┬──────┘└────────┬──────┘
//! send             1        2        3        4       5       6
//! frame   │eth ip tcp│   payload 1  │   payload 2  │ payload 3 │
//! ```
//!
//! All frames of a burst that leave through one tunnel are planned together. Datagrams of one flow for
//! one destination join a *run* as long as their sizes allow, be they segments of a super-frame or small
//! frames that came one by one; a run is a send, or one for each peer where nobody knows the destination.
//!
//! * **Order.** Runs are sent in the order they were opened, and a datagram that does not fit its flow's
//!   latest run opens a new one. A fragment ends every run, since it may belong to any flow.
//! * **Source port.** One socket has one, so there are several sockets, chosen by the hash of the inner
//!   flow (RFC 7348, 5): the underlay balances flows, and keeps each in order.
//! * **Checksums.** Inner ones are finished here, carried on from what the sender left, so that a wrong
//!   one stays wrong. Outer ones are the kernel's.
//! * **Limits.** [`BYTES_MAX`] and [`Sender::segments`] a send; the last [`RUNS_LOOKED_AT`] runs are
//!   looked at, a flow whose run is further back gets a new one.

use std::net::SocketAddr;
use std::ops::Range;

use vswitch_frame::flow::flow_hash;
use vswitch_frame::headers::{ETHERNET_BYTES, ethertype};
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, DropReason, Frame};

use crate::header::{HEADER_BYTES, Header, UDP_PORT};
use crate::mtu::clamp_mss;
use crate::tunnel::{Destination, Tunnel};

/// Bytes of all datagrams of one send, at most: with the outer headers the kernel builds one IP packet of
/// it, which it cuts afterwards.
pub const BYTES_MAX: usize = 65_507;
/// Datagrams in one send that every kernel with `UDP_SEGMENT` takes (`UDP_MAX_SEGMENTS` before Linux 6.9).
pub const SEGMENTS_MAX: u16 = 64;
/// Runs that are looked at for one that a datagram continues.
pub const RUNS_LOOKED_AT: usize = 32;
const MACS: usize = 12;

/// The sending sockets, as their owner describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// UDP port of the peers; RFC 7348, 5 wants it settable.
    pub port: u16,
    /// Sending sockets there are, each with a source port of its own; at least one.
    pub sockets: u16,
    /// Datagrams in one send, at most: 1 where the kernel has no `UDP_SEGMENT`, or where outer checksums
    /// are off, which it does not do together.
    pub segments: u16,
}

impl Default for Sender {
    /// The assigned port, 16 sockets, and as many segments as every kernel takes.
    fn default() -> Self {
        Self { port: UDP_PORT, sockets: 16, segments: SEGMENTS_MAX }
    }
}

/// Datagrams to one VTEP, for one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where they go.
    pub to: SocketAddr,
    /// The socket they leave through: an index.
    pub socket: u16,
    /// Bytes of each datagram but the last: the segment size where there are several.
    pub size: u16,
    /// Whether it is too large for its path. It is sent all the same, datagram by datagram, and the kernel
    /// must be allowed to cut these up.
    pub cut: bool,
    datagrams: Range<usize>,
}

impl Send {
    /// How many datagrams it is.
    pub fn count(&self) -> usize {
        self.datagrams.len()
    }
}

/// A datagram: a piece of the arena and a piece of a frame.
#[derive(Clone, Debug)]
struct Datagram {
    run: usize,
    head: Range<usize>,
    frame: usize,
    rest: Range<usize>,
}

/// Datagrams that make one send.
#[derive(Clone, Copy, Debug)]
struct Run {
    hash: u32,
    to: Destination,
    size: usize,
    bytes: usize,
    segments: u16,
    /// The last one was shorter than the others.
    ended: bool,
}

/// Plans the sends of bursts. From one burst to the next it keeps nothing but its memory.
#[derive(Debug)]
pub struct Encapsulator {
    sender: Sender,
    seed: u64,
    arena: Vec<u8>,
    datagrams: Vec<Datagram>,
    runs: Vec<Run>,
    /// Runs before this one are over, for a fragment came.
    open_from: usize,
    sends: Vec<Send>,
    refused: Vec<(usize, DropReason)>,
}

impl Encapsulator {
    /// An encapsulator for these sockets. The seed, of the hash that chooses among them, should be secret.
    pub fn new(sender: Sender, seed: u64) -> Self {
        Self {
            sender,
            seed,
            arena: Vec::new(),
            datagrams: Vec::new(),
            runs: Vec::new(),
            open_from: 0,
            sends: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Changes what is known of the sockets, for the next plan: the kernel may refuse segmentation at run
    /// time, and then everything is sent again without.
    pub fn set_sender(&mut self, sender: Sender) {
        self.sender = sender;
    }

    /// Plans how `frames`, which have been parsed, leave through a tunnel in this order. The plan is then
    /// in [`sends`](Self::sends) and [`refused`](Self::refused).
    pub fn plan(&mut self, tunnel: &Tunnel, frames: &[Frame]) {
        self.arena.clear();
        self.datagrams.clear();
        self.runs.clear();
        self.open_from = 0;
        self.sends.clear();
        self.refused.clear();
        for (index, frame) in frames.iter().enumerate() {
            match admit(tunnel, frame) {
                Ok(to) => self.take(tunnel, to, index, frame),
                Err(reason) => self.refused.push((index, reason)),
            }
        }
        self.lay_out(tunnel);
    }

    /// The sends of the last plan, in order.
    pub fn sends(&self) -> &[Send] {
        &self.sends
    }

    /// Frames of the last plan that go nowhere, by index, and why.
    pub fn refused(&self) -> &[(usize, DropReason)] {
        &self.refused
    }

    /// The bytes of a send of the last plan, piece by piece, two a datagram. `frames` must be those that
    /// were planned.
    pub fn pieces<'a>(&'a self, send: &Send, frames: &'a [Frame]) -> impl Iterator<Item = &'a [u8]> {
        self.datagrams[send.datagrams.clone()].iter().flat_map(|datagram| {
            let head = &self.arena[datagram.head.clone()];
            [head, &frames[datagram.frame].bytes()[datagram.rest.clone()]]
        })
    }

    /// Writes the headers of every datagram that a frame makes, and finds each a run.
    fn take(&mut self, tunnel: &Tunnel, to: Destination, frame_at: usize, frame: &Frame) {
        let headers = &frame.headers;
        if headers.is_fragment() {
            self.open_from = self.runs.len();
        }
        let stripped = if tunnel.settings().tags { 0 } else { headers.network_offset() - ETHERNET_BYTES };
        let hash = flow_hash(frame.bytes(), headers, self.seed);
        let room = match to {
            Destination::Vtep(vtep) => tunnel.room(vtep),
            Destination::Everyone | Destination::Here => tunnel.mtu(),
        };
        let splitter = Splitter::new(frame, Accepts::NONE);
        for number in 0..splitter.count() {
            let from = self.arena.len();
            self.arena.extend(Header { vni: tunnel.settings().vni }.emit());
            let inner = from + HEADER_BYTES;
            let rest = splitter.gather(number, &mut self.arena);
            clamp_mss(&mut self.arena[inner..], headers, room);
            if stripped > 0 {
                self.arena.drain(inner + MACS..inner + MACS + stripped);
            }
            let head = from..self.arena.len();
            let run = self.run_for(hash, to, head.len() + rest.len());
            self.datagrams.push(Datagram { run, head, frame: frame_at, rest });
        }
    }

    /// The run that a datagram of `bytes` joins.
    fn run_for(&mut self, hash: u32, to: Destination, bytes: usize) -> usize {
        let from = self.open_from.max(self.runs.len().saturating_sub(RUNS_LOOKED_AT));
        let is_same = |run: &Run| run.hash == hash && run.to == to;
        if let Some(at) = self.runs[from..].iter().rposition(is_same) {
            let run = &mut self.runs[from + at];
            let has_room = run.segments < self.sender.segments && run.bytes + bytes <= BYTES_MAX;
            if !run.ended && has_room && bytes <= run.size {
                run.segments += 1;
                run.bytes += bytes;
                run.ended = bytes < run.size;
                return from + at;
            }
        }
        self.runs.push(Run { hash, to, size: bytes, bytes, segments: 1, ended: false });
        self.runs.len() - 1
    }

    /// Brings the datagrams of each run together, and makes a send of it for every VTEP it goes to.
    fn lay_out(&mut self, tunnel: &Tunnel) {
        self.datagrams.sort_unstable_by_key(|datagram| (datagram.run, datagram.head.start));
        let mut from = 0;
        for run in &self.runs {
            let datagrams = from..from + usize::from(run.segments);
            from = datagrams.end;
            let one;
            let vteps = match run.to {
                Destination::Vtep(vtep) => {
                    one = [vtep];
                    &one[..]
                }
                Destination::Everyone => tunnel.peers(),
                Destination::Here => &[],
            };
            let socket = u16::try_from(run.hash % u32::from(self.sender.sockets.max(1))).unwrap_or(0);
            let size = u16::try_from(run.size).unwrap_or(u16::MAX);
            self.sends.extend(vteps.iter().map(|&vtep| Send {
                to: SocketAddr::new(vtep, self.sender.port),
                socket,
                size,
                cut: run.size > HEADER_BYTES + ETHERNET_BYTES + tunnel.uncut(vtep),
                datagrams: datagrams.clone(),
            }));
        }
    }
}

/// Where a frame goes, if it may.
fn admit(tunnel: &Tunnel, frame: &Frame) -> Result<Destination, DropReason> {
    let headers = &frame.headers;
    let tags = headers.network_offset() - ETHERNET_BYTES;
    let keeps_tags = tunnel.settings().tags;
    // More tags than can be seen are more than can be stripped.
    let still_tagged = matches!(headers.ether_type(), ethertype::VLAN | ethertype::SERVICE_VLAN);
    if still_tagged && !keeps_tags {
        return Err(DropReason::TunnelTagged);
    }
    if frame.mtu_bytes() + if keeps_tags { tags } else { 0 } > tunnel.mtu() {
        return Err(DropReason::TxTooBig);
    }
    match tunnel.destination(frame.destination()) {
        Destination::Here => Err(DropReason::TunnelSelf),
        Destination::Everyone if tunnel.peers().is_empty() => Err(DropReason::NoReceiver),
        Destination::Everyone if tunnel.asks_for_here(frame) => Err(DropReason::TunnelSelf),
        to @ (Destination::Vtep(_) | Destination::Everyone) => Ok(to),
    }
}
