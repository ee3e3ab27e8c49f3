//! A flow: two ends that talk, as they are remembered.

use std::time::Duration;

use crate::limits::Timeouts;
use crate::mapping::MappingId;
use crate::tick::Tick;
use crate::tuple::Tuple;

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that sent the first packet.
    Initiator,
    /// The end it was for.
    Target,
}

impl Side {
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    #[inline]
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Target,
            Self::Target => Self::Initiator,
        }
    }

    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The class of a flow, as far as time-outs are concerned. One queue each, oldest first.
///
/// | class | entered by | left by |
/// |---|---|---|
/// | `…Opening` | the first packet; for TCP also a new SYN when closing | an answer; for TCP the handshake |
/// | `UdpExchange` | an answer from a well-known port, or to outside | more than a few frames of either side; the client goes on |
/// | `Udp`, `Sctp` | an answer; if outside began it, something more of the client after one | |
/// | `Tcp` | SYN and ACK from both; a segment from a side that was reset | FIN from both, a reset that fits |
/// | `TcpClosing` | FIN from both, a reset that fits | a new SYN; a segment from a side that was reset |
/// | `Query` | a query of ICMP | |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Class {
    /// UDP, not answered.
    UdpOpening,
    /// UDP, answered.
    Udp,
    /// TCP before the handshake is done.
    TcpOpening,
    /// TCP, established.
    Tcp,
    /// TCP, closed by both sides or reset.
    TcpClosing,
    /// A query of ICMP.
    Query,
    /// SCTP, not answered.
    SctpOpening,
    /// SCTP, answered.
    Sctp,
    /// UDP with a well-known port: a question, an answer, and not much more (RFC 4787, REQ-5 a). UDP that
    /// outside began and has not gone on with since it was answered: its source may be forged.
    UdpExchange,
    /// No flow: the record is free.
    Vacant,
}

impl Class {
    /// Every class a flow can be in.
    pub(crate) const ALL: [Class; 9] = [
        Class::UdpOpening,
        Class::Udp,
        Class::TcpOpening,
        Class::Tcp,
        Class::TcpClosing,
        Class::Query,
        Class::SctpOpening,
        Class::Sctp,
        Class::UdpExchange,
    ];

    /// Whether a flow of this class never makes room for another.
    pub fn is_established(self) -> bool {
        matches!(self, Self::Udp | Self::Tcp | Self::Sctp)
    }

    /// Whether a flow of this class may have said all it will.
    pub(crate) fn may_be_spent(self) -> bool {
        matches!(self, Self::TcpClosing | Self::UdpExchange)
    }

    /// How long a flow of this class is kept after its last use.
    pub(crate) fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::UdpOpening => timeouts.udp_opening,
            Self::Udp => timeouts.udp,
            Self::TcpOpening => timeouts.tcp_opening,
            Self::Tcp => timeouts.tcp,
            Self::TcpClosing => timeouts.tcp_closing,
            Self::Query => timeouts.query,
            Self::SctpOpening => timeouts.sctp_opening,
            Self::Sctp => timeouts.sctp,
            Self::UdpExchange => timeouts.udp_exchange,
            Self::Vacant => Duration::ZERO,
        }
    }
}

/// How a flow came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Origin {
    /// From inside, through a mapping of its own.
    Outbound,
    /// From inside when no port was free, through a port that others use, too.
    Overloaded,
    /// To a published port, from outside or from inside.
    Published,
    /// From outside, through a mapping that lets it in.
    Inbound,
    /// From inside to a mapping of somebody else inside.
    Hairpin,
    /// From inside to a mapping of somebody else, who does not let it in, yet.
    Filtered,
}

impl Origin {
    /// Every origin.
    pub(crate) const ALL: [Self; 6] =
        [Self::Outbound, Self::Overloaded, Self::Published, Self::Inbound, Self::Hairpin, Self::Filtered];
}

/// The part of a payer's flows that one is of: those of the first go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    /// It has most likely said all it will.
    Spent,
    /// Nobody knows yet whether it will come to anything.
    Opening,
    /// It goes on.
    Established,
}

impl Rank {
    /// Every rank.
    pub(crate) const ALL: [Self; 3] = [Self::Spent, Self::Opening, Self::Established];

    /// The rank that a flow has as it is now.
    pub(crate) fn of(flow: &Flow) -> Self {
        if flow.is_spent() {
            Self::Spent
        } else if flow.class.is_established() {
            Self::Established
        } else {
            Self::Opening
        }
    }
}

/// A flow as it is remembered: plain data, indices instead of pointers.
///
/// A packet of one side is translated into the reverse of the other side's tuple.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Flow {
    /// The names of each side's packets when they come to us.
    pub(crate) tuples: [Tuple; 2],
    /// Bytes from each side, from the IP header on.
    pub(crate) bytes: [u64; 2],
    /// Frames from each side; a super-frame is one.
    pub(crate) frames: [u32; 2],
    /// TCP: the last acknowledgement of each side, which is what it expects next from the other.
    pub(crate) acked: [u32; 2],
    /// The mappings the two sides are behind.
    pub(crate) mappings: [MappingId; 2],
    /// The party that it is charged to, by its number.
    pub(crate) owner: u32,
    pub(crate) born: Tick,
    /// When it was last refreshed.
    pub(crate) used: Tick,
    /// Neighbours in the queue of the class; of a vacant record, `newer` is the next vacant one.
    pub(crate) older: u32,
    pub(crate) newer: u32,
    /// Neighbours in the ring of its payer's flows of its rank.
    pub(crate) before: u32,
    pub(crate) behind: u32,
    /// TCP: the last window of each side, not scaled.
    pub(crate) windows: [u16; 2],
    /// TCP: the window scale of each side (RFC 7323), 0 to 14.
    pub(crate) scales: [u8; 2],
    /// TCP: SYN, ACK, FIN and reset, a bit for each side.
    pub(crate) handshake: u8,
    /// Sides that have sent anything, a bit for each.
    pub(crate) seen: u8,
    pub(crate) class: Class,
    pub(crate) origin: Origin,
    /// The ring that it is in.
    pub(crate) rank: Rank,
}

impl Flow {
    /// Whether it has most likely said all it will: a connection that is over, or an exchange in which every
    /// question was answered.
    pub(crate) fn is_spent(&self) -> bool {
        let [questions, answers] = self.frames;
        self.class.may_be_spent() && (self.class != Class::UdpExchange || answers >= questions)
    }

    #[inline]
    pub(crate) fn tuple(&self, side: Side) -> &Tuple {
        &self.tuples[side.index()]
    }
}
