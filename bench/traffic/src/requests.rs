//! Requests, each on a TCP connection of its own that the target ends first, as a server of HTTP/1.0 does.
//!
//! The target's kernel then remembers each pair of ends for a minute, and a source that comes back meanwhile
//! must be told from a late segment: what takes a second to be settled shows in the greatest latency.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;
use vswitch_sys::clock;

use crate::source_end::source_end;
use crate::tcp::STALL;

/// Clients at once, each with one request after another; and threads that answer.
const CLIENTS: usize = 50;
/// How long requests are made before the first that counts: addresses are resolved, tables grow.
const WARM_UP: Duration = Duration::from_millis(250);
const QUESTION: [u8; 80] = [b'?'; 80];
const ANSWER: [u8; 200] = [b'!'; 200];

/// How long requests took, from before the connection was made until its end.
///
/// A wrong answer fails the measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestsReport {
    /// Requests whose answer came whole.
    pub requests: u64,
    /// Seconds in which they were counted.
    pub seconds: f64,
    /// Requests whose connection was refused, reset, ended early or took five seconds, of all that were made.
    pub failed: u64,
    /// The median, in microseconds.
    pub p50_us: f64,
    /// The time that one in a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// The longest, in microseconds.
    pub max_us: f64,
}

impl RequestsReport {
    /// Requests answered per second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.requests as f64 / self.seconds } else { 0.0 }
    }
}

/// The target's last word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Served {}

/// Answers every request to a port that `ready` is told, until standard input ends.
pub(crate) fn serve(address: IpAddr, ready: impl FnOnce(&[u16]) -> io::Result<()>) -> io::Result<Served> {
    let listener = TcpListener::bind((address, 0))?;
    let ended = source_end();
    ready(&[listener.local_addr()?.port()])?;
    for _ in 0..CLIENTS {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                // A source that went away counts it.
                let _ = answer(&mut connection);
            }
        });
    }
    // The threads end with this process.
    while !ended() {
        thread::park_timeout(Duration::from_millis(50));
    }
    Ok(Served {})
}

fn answer(connection: &mut TcpStream) -> io::Result<()> {
    connection.read_exact(&mut [0; QUESTION.len()])?;
    connection.write_all(&ANSWER)
}

/// Makes requests for `duration`, as many at once as there are clients.
pub(crate) fn ask(target: SocketAddr, duration: Duration) -> io::Result<RequestsReport> {
    let start = clock::now() + WARM_UP;
    let deadline = start + duration;
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| thread::spawn(move || client(target, start, deadline))).collect();
    let (mut nanos, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (of_client, failures) = client.join().map_err(|_| io::Error::other("a client panicked"))??;
        nanos.extend(of_client);
        failed += failures;
    }
    nanos.sort_unstable();
    let micros = |at: usize| nanos.get(at).map_or(0.0, |&nanos| nanos as f64 / 1000.0);
    Ok(RequestsReport {
        requests: nanos.len() as u64,
        seconds: duration.as_secs_f64(),
        failed,
        p50_us: micros(nanos.len() / 2),
        p99_us: micros(nanos.len() * 99 / 100),
        max_us: micros(nanos.len().saturating_sub(1)),
    })
}

/// The nanoseconds of each request of one client, and how many failed.
fn client(target: SocketAddr, start: Instant, deadline: Instant) -> io::Result<(Vec<u64>, u64)> {
    let (mut nanos, mut failed) = (Vec::new(), 0);
    loop {
        let begun = clock::now();
        if begun >= deadline {
            return Ok((nanos, failed));
        }
        match request(target) {
            Ok(true) if begun >= start => nanos.push(clock::now().as_nanos() - begun.as_nanos()),
            Ok(true) => {}
            Ok(false) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is wrong")),
            Err(_) => failed += 1,
        }
    }
}

/// Makes a request, and says whether the answer was right.
fn request(target: SocketAddr) -> io::Result<bool> {
    let mut connection = TcpStream::connect_timeout(&target, STALL)?;
    connection.set_read_timeout(Some(STALL))?;
    connection.write_all(&QUESTION)?;
    let mut answer = Vec::with_capacity(2 * ANSWER.len());
    connection.read_to_end(&mut answer)?;
    if answer.len() < ANSWER.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer == ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let target = listener.local_addr().expect("bound");
        (listener, target)
    }

    #[test]
    fn right_answers_are_told_from_wrong_ones_and_early_ends() {
        let (listener, target) = listener();
        let whole = ANSWER.to_vec();
        let answers = [whole.clone(), whole[1..].to_vec(), vec![b'?'; ANSWER.len()]];
        let target_thread = thread::spawn(move || {
            for answer in answers {
                let (mut connection, _) = listener.accept().expect("accept");
                connection.read_exact(&mut [0; QUESTION.len()]).expect("the question");
                connection.write_all(&answer).expect("send");
            }
        });
        assert!(request(target).expect("whole"));
        assert_eq!(request(target).expect_err("an early end").kind(), io::ErrorKind::UnexpectedEof);
        assert!(!request(target).expect("a wrong one"));
        target_thread.join().expect("target");
    }

    #[test]
    fn requests_are_counted() {
        let (listener, target) = listener();
        thread::spawn(move || listener.incoming().flatten().for_each(|mut one| drop(answer(&mut one))));
        let report = ask(target, Duration::from_millis(100)).expect("ask");
        assert!(report.requests > 0 && report.failed == 0 && report.per_second() > 0.0, "{report:?}");
        assert!(report.p50_us <= report.p99_us && report.p99_us <= report.max_us, "{report:?}");
    }
}
