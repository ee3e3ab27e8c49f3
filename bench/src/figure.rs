//! What is measured, and the figures it gives.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use vswitch_traffic::{TrafficError, connections, ping_pong, tcp, udp};

use crate::contender::Contender;
use crate::error::BenchError;

/// Ports of the target that connections go to in turn. With the source's [`SOURCE_PORTS`](crate::contender::outside::SOURCE_PORTS),
/// of which the kernel takes one half first, there are as many pairs as a sandbox may have flows, and fewer than
/// connections the kernel tracks (`nf_conntrack_max`): nobody is measured with a full table.
const PORTS: usize = 32;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// Bulk TCP, one stream
    Tcp1,
    /// Bulk TCP, eight streams
    Tcp8,
    /// Datagrams of 18 bytes, one flow
    Udp1,
    /// Datagrams of 18 bytes, 64 flows interleaved one datagram at a time
    Udp64,
    /// TCP round trips of 64 bytes
    Pingpong,
    /// New TCP connections, a byte to and fro on each
    Connections,
}

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
}

impl Figure {
    /// Every figure, in the order they are shown in.
    pub const ALL: [Figure; 8] = [
        Figure::Tcp1,
        Figure::Tcp8,
        Figure::Udp1,
        Figure::Udp64,
        Figure::PingpongP50,
        Figure::PingpongP99,
        Figure::Connections,
        Figure::ConnectionsFailed,
    ];

    /// What it is, for a person.
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
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Tcp1 | Figure::Tcp8 => "Gb/s",
            Figure::Udp1 | Figure::Udp64 => "Mpps",
            Figure::PingpongP50 | Figure::PingpongP99 => "µs",
            Figure::Connections => "/s",
            Figure::ConnectionsFailed => "in all",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self.unit() != "µs"
    }

    /// Whether the switch and a peer are compared in it. Where none is the rule there is nothing to divide by.
    pub fn is_compared(self) -> bool {
        self != Figure::ConnectionsFailed
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

/// What one measurement of one contender gave.
#[derive(Debug)]
pub struct Outcome {
    /// Its figures.
    pub figures: Vec<(Figure, f64)>,
    /// Everything the generators said.
    pub report: serde_json::Value,
    /// What must never happen and did, for a person.
    pub fault: Option<String>,
}

impl Test {
    /// What is measured on every road, if nothing else is said.
    pub const BULK: [Test; 5] = [Test::Tcp1, Test::Tcp8, Test::Udp1, Test::Udp64, Test::Pingpong];

    /// Measures a contender.
    ///
    /// # Errors
    /// When a generator fails.
    pub fn measure(self, contender: &Contender, duration: Duration) -> Result<Outcome, BenchError> {
        self.run(contender, duration).map_err(|error| BenchError::Measurement {
            metric: format!("{self:?}").to_lowercase(),
            who: contender.who.to_string(),
            error,
        })
    }

    fn run(self, contender: &Contender, duration: Duration) -> Result<Outcome, TrafficError> {
        let [from, to] = &contender.places;
        let bulk = |figure, streams| {
            let report = tcp(from, to, streams, duration)?;
            Ok(outcome([(figure, report.gigabits_per_second())], &report, None))
        };
        let small = |figure, flows| {
            let report = udp(from, to, flows, duration)?;
            let wrong = report.reordered + report.duplicated + report.corrupt;
            let fault = (wrong > 0).then(|| {
                let (late, twice, corrupt) = (report.reordered, report.duplicated, report.corrupt);
                format!("{late} datagrams out of order, {twice} received twice, {corrupt} corrupt")
            });
            Ok(outcome([(figure, report.millions_per_second())], &report, fault))
        };
        match self {
            Test::Tcp1 => bulk(Figure::Tcp1, 1),
            Test::Tcp8 => bulk(Figure::Tcp8, 8),
            Test::Udp1 => small(Figure::Udp1, 1),
            Test::Udp64 => small(Figure::Udp64, 64),
            Test::Pingpong => {
                let report = ping_pong(from, to, duration)?;
                let figures = [(Figure::PingpongP50, report.p50_us), (Figure::PingpongP99, report.p99_us)];
                Ok(outcome(figures, &report, None))
            }
            Test::Connections => {
                let report = connections(from, to, PORTS, duration)?;
                let fault = report.is_faulty().then(|| {
                    format!("{} connections timed out, {} were reset", report.timeouts, report.resets)
                });
                let figures = [
                    (Figure::Connections, report.per_second()),
                    (Figure::ConnectionsFailed, (report.timeouts + report.resets) as f64),
                ];
                Ok(outcome(figures, &report, fault))
            }
        }
    }
}

fn outcome<const N: usize>(
    figures: [(Figure, f64); N],
    report: &impl Serialize,
    fault: Option<String>,
) -> Outcome {
    // The reports are plain numbers, which always have a JSON form.
    Outcome { figures: figures.into(), report: serde_json::to_value(report).unwrap_or_default(), fault }
}
