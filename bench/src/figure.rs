//! The figures that measurements give.

use serde::{Deserialize, Serialize};

/// A figure that a measurement gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Payload received.
    Tcp1,
    /// Payload received, of all streams together.
    Tcp8,
    /// Datagrams received.
    Udp1,
    /// Datagrams received, of all flows together.
    Udp64,
    /// Half of the median round trip.
    PingpongP50,
    /// Half of the round trip that one in a hundred exceeds.
    PingpongP99,
    /// Connections made and answered.
    Connections,
    /// Connections that timed out, were refused or reset.
    ConnectionsFailed,
    /// Requests answered, each on a connection of its own.
    Requests,
    /// The median time of a request.
    RequestP50,
    /// The time of a request that one in a hundred exceeds.
    RequestP99,
    /// The longest time of a request.
    RequestMax,
    /// Requests that were not answered.
    RequestsFailed,
}

impl Figure {
    /// Every figure, in the order they are shown in.
    pub const ALL: [Figure; 13] = [
        Figure::Tcp1,
        Figure::Tcp8,
        Figure::Udp1,
        Figure::Udp64,
        Figure::PingpongP50,
        Figure::PingpongP99,
        Figure::Connections,
        Figure::ConnectionsFailed,
        Figure::Requests,
        Figure::RequestP50,
        Figure::RequestP99,
        Figure::RequestMax,
        Figure::RequestsFailed,
    ];

    /// Its name, for a person.
    pub fn label(self) -> &'static str {
        match self {
            Figure::Tcp1 => "TCP, 1 stream",
            Figure::Tcp8 => "TCP, 8 streams",
            Figure::Udp1 => "UDP 18 B, 1 flow",
            Figure::Udp64 => "UDP 18 B, 64 flows",
            Figure::PingpongP50 => "TCP ping-pong p50",
            Figure::PingpongP99 => "TCP ping-pong p99",
            Figure::Connections => "TCP connections",
            Figure::ConnectionsFailed => "TCP connections failed",
            Figure::Requests => "requests",
            Figure::RequestP50 => "request p50",
            Figure::RequestP99 => "request p99",
            Figure::RequestMax => "request max",
            Figure::RequestsFailed => "requests failed",
        }
    }

    /// The unit it is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Tcp1 | Figure::Tcp8 => "Gb/s",
            Figure::Udp1 | Figure::Udp64 => "Mpps",
            Figure::PingpongP50
            | Figure::PingpongP99
            | Figure::RequestP50
            | Figure::RequestP99
            | Figure::RequestMax => "µs",
            Figure::Connections | Figure::Requests => "/s",
            Figure::ConnectionsFailed | Figure::RequestsFailed => "in all",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self.unit() != "µs"
    }

    /// Whether the switch and a peer are compared in it. Where none is the rule there is nothing to divide
    /// by.
    pub fn is_compared(self) -> bool {
        !matches!(self, Figure::ConnectionsFailed | Figure::RequestsFailed)
    }

    /// A value of it, with its unit and three or four digits that mean something.
    pub fn show(self, value: f64) -> String {
        let digits = match self.unit() {
            "Mpps" => 3,
            "Gb/s" => 2,
            "/s" | "in all" => 0,
            _ => 1,
        };
        format!("{value:.digits$} {}", self.unit())
    }
}
