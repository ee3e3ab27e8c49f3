//! Limits and time-outs, with what happens at each.

use std::time::Duration;

/// How much there may be of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    /// Flows at once. At the limit one of who has most makes room; who has most itself, and only such as are
    /// established, has the new one dropped as `nat-table-full`.
    pub flows: usize,
    /// Flows at once that one sandbox begins, as many that outside begins to each of its publications, and as
    /// many to its mappings. At the limit one of these that is not established makes room, or of datagrams
    /// from outside the one longest unused; when there is none the new one is dropped as `nat-sandbox-full`.
    pub flows_per_sandbox: u32,
    /// Outside ports claimed for one protocol and address. At the limit no more are asked for.
    pub claims: usize,
    /// Free claimed ports below which more are asked for, until there are twice as many. If a quarter of
    /// those in use is more, it is that.
    pub claims_ahead: usize,
    /// Fragmented datagrams remembered at once. At the limit the oldest of the port that has most is
    /// forgotten.
    pub datagrams: usize,
    /// Fragments that wait for the first of their datagram. At the limit those of the oldest datagram of the
    /// port that has most are dropped as `nat-fragment-lost`, or the new one, if it is of that port.
    pub fragments_waiting: usize,
    /// Unsolicited connections about which an answer waits. At the limit one more gets no answer.
    pub unsolicited: usize,
    /// From whom a mapping lets packets in.
    pub filtering: Filtering,
    /// When what is not used is forgotten.
    pub timeouts: Timeouts,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 1_000_000,
            flows_per_sandbox: 65_536,
            claims: 16_384,
            claims_ahead: 256,
            datagrams: 1024,
            fragments_waiting: 64,
            unsolicited: 256,
            filtering: Filtering::AddressDependent,
            timeouts: Timeouts::default(),
        }
    }
}

/// From whom a mapping lets packets in that are not of a flow (RFC 4787, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Filtering {
    /// From everybody.
    EndpointIndependent,
    /// From addresses that the inside has sent to.
    AddressDependent,
    /// From nobody: only what the inside has sent to, address and port, gets in.
    AddressAndPortDependent,
}

/// How long what is not used is kept. A flow is kept for up to a quarter of a second more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Timeouts {
    /// UDP that was not answered (RFC 4787, REQ-5: two minutes or more).
    pub udp_opening: Duration,
    /// UDP that was answered (RFC 4787, REQ-5 b: five minutes or more).
    pub udp: Duration,
    /// UDP with a well-known port of which each side has sent a few frames: names, time (RFC 4787, REQ-5 a,
    /// leaves it to the application; Linux's connection tracking has the same). UDP that outside began, was
    /// answered, and has not gone on with since.
    pub udp_exchange: Duration,
    /// TCP before its handshake is done (RFC 5382, REQ-5: four minutes or more).
    pub tcp_opening: Duration,
    /// TCP (RFC 5382, REQ-5: two hours and four minutes or more).
    pub tcp: Duration,
    /// TCP after both sides have closed, or one was reset (RFC 5382, REQ-5: four minutes or more).
    pub tcp_closing: Duration,
    /// A query of ICMP (RFC 5508, REQ-2: sixty seconds or more).
    pub query: Duration,
    /// SCTP that was not answered.
    pub sctp_opening: Duration,
    /// SCTP that was answered. Its heartbeats come twice a minute (RFC 9260, 16).
    pub sctp: Duration,
    /// An unsolicited SYN, before it is answered (RFC 5382, REQ-4: six seconds or more).
    pub unsolicited: Duration,
    /// A fragmented datagram (RFC 8200, 4.5: sixty seconds).
    pub datagram: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            udp_opening: Duration::from_secs(120),
            udp: Duration::from_secs(300),
            udp_exchange: Duration::from_secs(30),
            tcp_opening: Duration::from_secs(240),
            tcp: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(240),
            query: Duration::from_secs(60),
            sctp_opening: Duration::from_secs(120),
            sctp: Duration::from_secs(900),
            unsolicited: Duration::from_secs(6),
            datagram: Duration::from_secs(60),
        }
    }
}
