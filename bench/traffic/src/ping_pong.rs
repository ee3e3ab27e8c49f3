//! Round trips over TCP: a small message to and fro, one at a time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_sys::clock;

use crate::pattern::mix;
use crate::tcp::STALL;

/// Bytes of a message.
const MESSAGE: usize = 64;
/// Round trips before the first that counts: addresses get resolved, windows open, caches fill.
const WARM_UP: u64 = 200;

/// How long a message of 64 bytes takes one way: half of a round trip, as sockperf has it.
///
/// Every answer is checked whole; a wrong one fails the measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingPongReport {
    /// Round trips measured.
    pub round_trips: u64,
    /// Half of the median round trip, in microseconds.
    pub p50_us: f64,
    /// Half of the round trip that one in a hundred exceeds, in microseconds.
    pub p99_us: f64,
}

/// The target's count.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrips {
    echoed: u64,
}

/// Sends everything back, on one connection to a port that `ready` is told.
pub(crate) fn echo(address: IpAddr, ready: impl FnOnce(&[u16]) -> io::Result<()>) -> io::Result<RoundTrips> {
    let listener = TcpListener::bind((address, 0))?;
    ready(&[listener.local_addr()?.port()])?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (mut message, mut echoed) = ([0; MESSAGE], 0);
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(RoundTrips { echoed }),
            Err(error) => return Err(error),
        }
        echoed += 1;
    }
}

/// Sends a message, waits for it to come back, and so on.
pub(crate) fn initiate(target: SocketAddr, duration: Duration) -> io::Result<PingPongReport> {
    let mut stream = TcpStream::connect_timeout(&target, STALL)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {target}: {error}")))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    for number in 0..WARM_UP {
        round_trip(&mut stream, number)?;
    }
    let mut nanos = Vec::new();
    let mut now = clock::now();
    let deadline = now + duration;
    while now < deadline {
        let sent = now;
        round_trip(&mut stream, WARM_UP + nanos.len() as u64)?;
        now = clock::now();
        nanos.push(now.as_nanos() - sent.as_nanos());
    }
    nanos.sort_unstable();
    let half = |per_hundred: usize| {
        nanos.get(nanos.len() * per_hundred / 100).map_or(0.0, |&whole| whole as f64 / 2000.0)
    };
    Ok(PingPongReport { round_trips: nanos.len() as u64, p50_us: half(50), p99_us: half(99) })
}

fn round_trip(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    for (word, bytes) in (0..).zip(message.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&mix(number ^ (word << 56)).to_le_bytes());
    }
    stream.write_all(&message)?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).map_err(|error| {
        io::Error::new(error.kind(), format!("no answer to round trip {number}: {error}"))
    })?;
    if answer != message {
        let message = format!("the answer to round trip {number} is wrong");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    #[test]
    fn every_message_comes_back() {
        let (say, hear) = mpsc::channel();
        let target = std::thread::spawn(move || {
            echo(Ipv4Addr::LOCALHOST.into(), |ports| say.send(ports[0]).map_err(io::Error::other))
        });
        let port = hear.recv().expect("port");
        let report =
            initiate((Ipv4Addr::LOCALHOST, port).into(), Duration::from_millis(20)).expect("initiate");
        let echoed = target.join().expect("target").expect("echo").echoed;
        assert_eq!(echoed, report.round_trips + WARM_UP);
        assert!(0.0 < report.p50_us && report.p50_us <= report.p99_us, "{report:?}");
    }
}
