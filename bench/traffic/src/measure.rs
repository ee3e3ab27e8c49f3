//! Measurements that callers ask for: one function each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::connections::{Answered, ConnectionsReport};
use crate::flood::{Flood, FloodReport};
use crate::ping::{PingReport, ProbeReport};
use crate::ping_pong::{PingPongReport, RoundTrips};
use crate::place::Place;
use crate::queries::QueryReport;
use crate::requests::{RequestsReport, Served};
use crate::spawn::{TrafficError, Worker};
use crate::tcp::{TcpReport, TcpSent};
use crate::udp::{UdpReceived, UdpReport, UdpSent};
use crate::worker::Job;

/// Sends bulk data over `streams` TCP connections for `duration`.
///
/// # Errors
/// When either end cannot reach the other, a payload is wrong, or nothing moves for five seconds.
pub fn tcp(from: &Place, to: &Place, streams: usize, duration: Duration) -> Result<TcpReport, TrafficError> {
    let receive = Job::TcpReceive { address: to.address, streams };
    let (_, report) =
        pair::<TcpSent, _>(from, to, receive, |targets| Ok(Job::TcpSend { targets, duration }))?;
    Ok(report)
}

/// Sends small datagrams, as many as will go, for `duration`, over `flows` flows interleaved one datagram
/// at a time.
///
/// # Errors
/// When a worker cannot be started or has no socket. Datagrams lost are no error but counted.
pub fn udp(from: &Place, to: &Place, flows: usize, duration: Duration) -> Result<UdpReport, TrafficError> {
    let receive = Job::UdpReceive { address: to.address, flows };
    let (sent, received) =
        pair::<UdpSent, UdpReceived>(from, to, receive, |targets| Ok(Job::UdpSend { targets, duration }))?;
    Ok(UdpReport::new(&sent, &received))
}

/// Sends small messages to and fro over one TCP connection, one at a time, for `duration`.
///
/// # Errors
/// When either end cannot reach the other, or an answer is wrong or five seconds late.
pub fn ping_pong(from: &Place, to: &Place, duration: Duration) -> Result<PingPongReport, TrafficError> {
    let echo = Job::Echo { address: to.address };
    let (report, _) = pair::<PingPongReport, RoundTrips>(from, to, echo, |targets| {
        let target = targets.first().copied().ok_or("it names no port")?;
        Ok(Job::PingPong { target, duration })
    })?;
    Ok(report)
}

/// Makes TCP connections, as many as will go, for `duration`, to `ports` ports in turn: a byte to and fro on
/// each, then it is closed.
///
/// # Errors
/// When a worker cannot be started or has no socket, or an answer is wrong. Connections that fail are no
/// error but counted.
pub fn connections(
    from: &Place,
    to: &Place,
    ports: usize,
    duration: Duration,
) -> Result<ConnectionsReport, TrafficError> {
    let serve = Job::Serve { address: to.address, listeners: ports };
    let (report, _) =
        pair::<ConnectionsReport, Answered>(from, to, serve, |targets| Ok(Job::Open { targets, duration }))?;
    Ok(report)
}

/// Makes requests for `duration`, fifty at once, each on a TCP connection of its own that the target ends.
///
/// # Errors
/// When a worker cannot be started or has no socket, or an answer is wrong. Requests that fail are no error
/// but counted.
pub fn requests(from: &Place, to: &Place, duration: Duration) -> Result<RequestsReport, TrafficError> {
    let answer = Job::Answer { address: to.address };
    let (report, _) = pair::<RequestsReport, Served>(from, to, answer, |targets| {
        let target = targets.first().copied().ok_or("it names no port")?;
        Ok(Job::Ask { target, duration })
    })?;
    Ok(report)
}

/// Sends `count` ICMP echo requests, one after another, and waits up to `wait` for each answer.
///
/// # Errors
/// When the worker cannot be started or may not open a raw socket. Silence is no error but counted.
pub fn ping(from: &Place, to: IpAddr, count: u16, wait: Duration) -> Result<PingReport, TrafficError> {
    Worker::start("source", &from.netns, Job::Ping { target: to, count, wait })?.finish()
}

/// Pings for `duration`, one request every two milliseconds or after the answer to the one before.
///
/// # Errors
/// When the worker cannot be started or may not open a raw socket. Silence is no error but counted.
pub fn probe(from: &Place, to: IpAddr, duration: Duration) -> Result<ProbeReport, TrafficError> {
    Worker::start("source", &from.netns, Job::Probe { target: to, duration })?.finish()
}

/// Begins to send frames of a hostile kind by `eth0`, behind which this gateway is; without one into a TAP
/// that nobody reads.
///
/// # Errors
/// When the worker cannot be started, or the gateway does not say its MAC address.
pub fn flood(from: &Place, kind: Flood, gateway: Option<Ipv4Addr>) -> Result<Flooding, TrafficError> {
    let mut worker = Worker::start("source", &from.netns, Job::Flood { kind, gateway })?;
    worker.hear::<()>()?;
    Ok(Flooding(worker))
}

/// A flood that goes on until it is stopped or dropped.
pub struct Flooding(Worker);

impl std::fmt::Debug for Flooding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flooding").finish_non_exhaustive()
    }
}

impl Flooding {
    /// Ends the flood, and says what it was.
    ///
    /// # Errors
    /// When the worker has failed meanwhile.
    pub fn stop(self) -> Result<FloodReport, TrafficError> {
        self.0.finish()
    }
}

/// Asks a name server for the IPv4 address of `name`, which must be `expected`: first one question at a
/// time, then many at once for `duration`.
///
/// # Errors
/// When the worker cannot be started, or an answer is wrong. Silence is no error but counted.
pub fn query(
    from: &Place,
    server: SocketAddr,
    name: &str,
    expected: Ipv4Addr,
    duration: Duration,
) -> Result<QueryReport, TrafficError> {
    let job = Job::Query { server, name: name.to_owned(), expected, duration };
    Worker::start("source", &from.netns, job)?.finish()
}

/// Runs a target, and a source towards the ports it opened. Answers with what both say in the end.
fn pair<S: DeserializeOwned, T: DeserializeOwned>(
    from: &Place,
    to: &Place,
    target: Job,
    source: impl FnOnce(Vec<SocketAddr>) -> Result<Job, &'static str>,
) -> Result<(S, T), TrafficError> {
    let mut target = Worker::start("target", &to.netns, target)?;
    let ports: Vec<u16> = target.hear()?;
    let targets = ports.iter().map(|&port| SocketAddr::new(to.goal(), port)).collect();
    let job = source(targets)
        .map_err(|message| TrafficError::Worker { role: "target", message: message.to_owned() })?;
    let sent = match Worker::start("source", &from.netns, job)?.finish() {
        Ok(sent) => sent,
        // When the target gave up first, its word is the better one, and the source's a consequence.
        Err(error) => return Err(target.failed().unwrap_or(error)),
    };
    Ok((sent, target.finish()?))
}
