//! Small datagrams: one flow, or many interleaved one datagram at a time.
//!
//! The payload is 18 bytes, which makes the smallest Ethernet frame. Flows differ in the target's port, so
//! that one socket and one `sendmmsg` of 64 carry 64 flows in turn; with one flow the socket is connected.
//! The target has a socket a flow, each with room for 32 MiB: it blocks on the only one, or has epoll say
//! which of many have something. It ends when the source has and nothing has come for a while.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;
use vswitch_sys::clock;
use vswitch_sys::socket::{BATCH, ReceiveBatch, SendBatch};

use crate::pattern::mix;
use crate::ready::Ready;
use crate::source_end::source_end;

/// Bytes of payload: flow, sequence number, and a word that both determine.
const PAYLOAD: usize = 18;
const RECEIVE_BUFFER: usize = 32 << 20;
/// When nothing has come for so long, nothing is under way any more.
const QUIET: Duration = Duration::from_millis(50);

/// Counts of the small datagrams of a measurement.
///
/// Every datagram's content is checked, and within each flow that none comes twice or behind a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpReport {
    /// Datagrams the kernel took from the source.
    pub sent: u64,
    /// Datagrams received with the right content, each counted once.
    pub received: u64,
    /// Seconds from the first received to the last.
    pub seconds: f64,
    /// Sent and never received.
    pub lost: u64,
    /// Received behind a later one of their flow.
    pub reordered: u64,
    /// Received again.
    pub duplicated: u64,
    /// Received with a wrong length or content.
    pub corrupt: u64,
    /// System calls of the source that sent nothing.
    pub send_errors: u64,
}

impl UdpReport {
    pub(crate) fn new(sent: &UdpSent, received: &UdpReceived) -> Self {
        Self {
            sent: sent.sent,
            received: received.received,
            seconds: received.seconds,
            lost: sent.sent.saturating_sub(received.received),
            reordered: received.reordered,
            duplicated: received.duplicated,
            corrupt: received.corrupt,
            send_errors: sent.errors,
        }
    }

    /// Datagrams received per second, in millions.
    pub fn millions_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.received as f64 * 1e-6 / self.seconds } else { 0.0 }
    }
}

/// The source's counts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UdpSent {
    sent: u64,
    errors: u64,
}

/// The target's counts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct UdpReceived {
    received: u64,
    seconds: f64,
    reordered: u64,
    duplicated: u64,
    corrupt: u64,
}

/// Sends one flow to each of `targets`, in turn.
pub(crate) fn send(targets: &[SocketAddr], duration: Duration) -> io::Result<UdpSent> {
    let any: IpAddr = match targets {
        [SocketAddr::V6(_), ..] => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    let mut batch = if let [only] = targets {
        socket.connect(only)?;
        SendBatch::new(PAYLOAD, &[])
    } else {
        SendBatch::new(PAYLOAD, targets)
    };
    let (deadline, mut report) = (clock::now() + duration, UdpSent { sent: 0, errors: 0 });
    let mut next = (0..).flat_map(|sequence| (0u16..).zip(targets).map(move |(flow, _)| (flow, sequence)));
    while clock::now() < deadline {
        for (datagram, (flow, sequence)) in batch.datagrams().zip(&mut next) {
            datagram.copy_from_slice(&payload(flow, sequence));
        }
        let mut first = 0;
        while first < BATCH && clock::now() < deadline {
            match batch.send(&socket, first) {
                Ok(count) => first += count,
                Err(_) => report.errors += 1,
            }
        }
        report.sent += first as u64;
    }
    Ok(report)
}

fn payload(flow: u16, sequence: u64) -> [u8; PAYLOAD] {
    let mut bytes = [0; PAYLOAD];
    bytes[..2].copy_from_slice(&flow.to_le_bytes());
    bytes[2..10].copy_from_slice(&sequence.to_le_bytes());
    bytes[10..].copy_from_slice(&mix((u64::from(flow) << 48) ^ sequence).to_le_bytes());
    bytes
}

/// Receives `flows` flows, each on a port of its own that `ready` is told, until standard input ends and
/// nothing more comes.
pub(crate) fn receive(
    address: IpAddr,
    flows: usize,
    ready: impl FnOnce(&[u16]) -> io::Result<()>,
) -> io::Result<UdpReceived> {
    let sockets: Vec<UdpSocket> = (0..flows).map(|_| listen(address)).collect::<io::Result<_>>()?;
    let ports: Vec<u16> = sockets
        .iter()
        .map(|socket| socket.local_addr().map(|address| address.port()))
        .collect::<io::Result<_>>()?;
    let ended = source_end();
    ready(&ports)?;
    match sockets.as_slice() {
        [only] => receive_one(only, ended),
        several => receive_several(several, ended),
    }
}

fn listen(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    Ok(socket)
}

fn receive_one(socket: &UdpSocket, ended: impl Fn() -> bool) -> io::Result<UdpReceived> {
    socket.set_read_timeout(Some(QUIET))?;
    let (mut batch, mut tally) = (ReceiveBatch::new(PAYLOAD + 1), Tally::new(1));
    while tally.receive(0, socket, &mut batch)? || !ended() {}
    Ok(tally.report())
}

fn receive_several(sockets: &[UdpSocket], ended: impl Fn() -> bool) -> io::Result<UdpReceived> {
    sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
    let mut ready = Ready::new(sockets, EpollFlags::EPOLLIN, QUIET)?;
    let (mut batch, mut tally) = (ReceiveBatch::new(PAYLOAD + 1), Tally::new(sockets.len()));
    loop {
        let mut quiet = true;
        for flow in ready.next()? {
            tally.receive(flow, &sockets[flow], &mut batch)?;
            quiet = false;
        }
        if quiet && ended() {
            return Ok(tally.report());
        }
    }
}

/// The datagrams that have been received.
struct Tally {
    flows: Vec<Flow>,
    span: Option<(Instant, Instant)>,
    so_far: UdpReceived,
}

/// The sequence numbers of a flow that have been received.
#[derive(Default)]
struct Flow {
    number: u16,
    /// One above the highest.
    next: u64,
    /// A bit a number.
    seen: Vec<u64>,
}

impl Tally {
    fn new(flows: usize) -> Self {
        let flows = (0..).take(flows).map(|number| Flow { number, ..Flow::default() }).collect();
        Self { flows, span: None, so_far: UdpReceived::default() }
    }

    /// Receives once on a flow's socket; `false` when there was nothing.
    fn receive(&mut self, flow: usize, socket: &UdpSocket, batch: &mut ReceiveBatch) -> io::Result<bool> {
        match batch.receive(socket) {
            Ok(datagrams) => self.count(flow, datagrams),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // A process that was stopped and goes on is interrupted, handler or none (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Counts what one receive on a flow's socket gave.
    fn count<'a>(&mut self, flow: usize, datagrams: impl Iterator<Item = &'a [u8]>) {
        let now = clock::now();
        self.span = Some((self.span.map_or(now, |(first, _)| first), now));
        let (report, flow) = (&mut self.so_far, &mut self.flows[flow]);
        for datagram in datagrams {
            let sequence =
                datagram.get(2..10).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
            if datagram != payload(flow.number, sequence) {
                report.corrupt += 1;
                continue;
            }
            match flow.note(sequence) {
                Order::Next => report.received += 1,
                Order::Late => {
                    report.received += 1;
                    report.reordered += 1;
                }
                Order::Again => report.duplicated += 1,
            }
        }
    }

    fn report(self) -> UdpReceived {
        let seconds = self.span.map_or(0.0, |(first, last)| last.since(first).as_secs_f64());
        UdpReceived { seconds, ..self.so_far }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Order {
    Next,
    Late,
    Again,
}

impl Flow {
    fn note(&mut self, sequence: u64) -> Order {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let seen = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        if seen {
            return Order::Again;
        }
        if sequence < self.next {
            return Order::Late;
        }
        self.next = sequence + 1;
        Order::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_within_a_flow_is_told() {
        let mut flow = Flow::default();
        let noted: Vec<Order> = [0, 1, 200, 5, 5, 201, 0].map(|number| flow.note(number)).into();
        use Order::{Again, Late, Next};
        assert_eq!(noted, [Next, Next, Next, Late, Again, Next, Again]);
    }

    #[test]
    fn wrong_datagrams_are_counted_as_such() {
        let mut tally = Tally::new(2);
        let (right, mut wrong) = (payload(1, 7), payload(1, 8));
        wrong[17] ^= 1;
        let other_flow = payload(0, 9);
        let datagrams: [&[u8]; 5] = [&right, &wrong, &other_flow, &right[..17], &[]];
        tally.count(1, datagrams.into_iter());
        let report = tally.report();
        assert_eq!((report.received, report.corrupt), (1, 4));
    }

    #[test]
    fn flows_take_turns() {
        let sockets =
            [listen(Ipv4Addr::LOCALHOST.into()).expect("a"), listen(Ipv4Addr::LOCALHOST.into()).expect("b")];
        let targets = sockets.each_ref().map(|socket| socket.local_addr().expect("address"));
        let sent = send(&targets, Duration::from_millis(5)).expect("send");
        let received = receive_several(&sockets, || true).expect("receive");
        assert_eq!(received.received, sent.sent, "{received:?}");
        assert_eq!((received.reordered, received.duplicated, received.corrupt), (0, 0, 0));
    }
}
