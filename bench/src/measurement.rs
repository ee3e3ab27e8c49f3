//! The measurements: which there are, and what each gave.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use vswitch_traffic::{TrafficError, connections, ping_pong, requests, tcp, udp};

use crate::contender::Contender;
use crate::error::BenchError;
use crate::figure::Figure;

/// Ports of the target that connections go to in turn. With
/// [`SOURCE_PORTS`](crate::contender::outside::SOURCE_PORTS), of which the kernel takes one half first, there
/// are as many pairs as a sandbox may have flows, and fewer than connections the kernel tracks
/// (`nf_conntrack_max`): nobody is measured with a full table.
const PORTS: usize = 32;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
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
    /// Requests, fifty at once, each on a new TCP connection that the target ends first
    Requests,
}

/// The outcome of one measurement of one contender.
#[derive(Debug)]
pub struct Outcome {
    /// Its figures.
    pub figures: Vec<(Figure, f64)>,
    /// Everything the generators said.
    pub report: serde_json::Value,
    /// A fault that must never happen and did, for a person.
    pub fault: Option<String>,
}

impl Measurement {
    /// Measurements of every road, if nothing else is said.
    pub const BULK: [Measurement; 5] =
        [Measurement::Tcp1, Measurement::Tcp8, Measurement::Udp1, Measurement::Udp64, Measurement::Pingpong];

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
            Measurement::Tcp1 => bulk(Figure::Tcp1, 1),
            Measurement::Tcp8 => bulk(Figure::Tcp8, 8),
            Measurement::Udp1 => small(Figure::Udp1, 1),
            Measurement::Udp64 => small(Figure::Udp64, 64),
            Measurement::Pingpong => {
                let report = ping_pong(from, to, duration)?;
                let figures = [(Figure::PingpongP50, report.p50_us), (Figure::PingpongP99, report.p99_us)];
                Ok(outcome(figures, &report, None))
            }
            Measurement::Connections => {
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
            Measurement::Requests => {
                let report = requests(from, to, duration)?;
                let fault = (report.failed > 0).then(|| format!("{} requests failed", report.failed));
                let figures = [
                    (Figure::Requests, report.per_second()),
                    (Figure::RequestP50, report.p50_us),
                    (Figure::RequestP99, report.p99_us),
                    (Figure::RequestMax, report.max_us),
                    (Figure::RequestsFailed, report.failed as f64),
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
