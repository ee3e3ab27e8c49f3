//! Questions to a name server over UDP (RFC 1035), without a resolver library: one name, one address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_sys::clock;

/// Questions one at a time, for the round trip.
const SINGLY: u16 = 2_000;
/// Questions before the first that counts.
const WARM_UP: u16 = 200;
/// Questions on their way at once, for the rate.
const WINDOW: u16 = 32;
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Response, recursion available and desired, no error: what bytes 2 and 3 of an answer must have.
const RESPONSE: u8 = 0x80;
const CODE_MASK: u8 = 0x0f;

/// Counts of questions, and times of their answers. Every answer is checked: its number, its code, its one
/// address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryReport {
    /// The median round trip of questions asked one at a time, in microseconds.
    pub p50_us: f64,
    /// The round trip that one in a hundred of those exceeds, in microseconds.
    pub p99_us: f64,
    /// Questions answered in a second with 32 on their way at once.
    pub per_second: f64,
    /// Questions asked, in both ways together.
    pub asked: u64,
    /// Questions not answered within a second.
    pub lost: u64,
}

/// Asks `server` for the IPv4 address of `name`, first one question at a time, then many at once for
/// `duration`. The answer must be `expected`.
pub(crate) fn ask(
    server: SocketAddr,
    name: &str,
    expected: Ipv4Addr,
    duration: Duration,
) -> io::Result<QueryReport> {
    let unspecified: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut client = Client { socket, question: question(name)?, expected, asked: 0, lost: 0 };
    let mut nanos = client.singly()?;
    nanos.sort_unstable();
    let percentile =
        |per_hundred: usize| nanos.get(nanos.len() * per_hundred / 100).map_or(0.0, |&n| n as f64 / 1000.0);
    let (p50_us, p99_us) = (percentile(50), percentile(99));
    let per_second = client.many(duration)?;
    Ok(QueryReport { p50_us, p99_us, per_second, asked: client.asked, lost: client.lost })
}

struct Client {
    socket: UdpSocket,
    question: Vec<u8>,
    expected: Ipv4Addr,
    asked: u64,
    lost: u64,
}

impl Client {
    fn singly(&mut self) -> io::Result<Vec<u64>> {
        let mut nanos = Vec::new();
        for number in 0..WARM_UP + SINGLY {
            let sent = clock::now();
            self.send(number)?;
            if self.receive()?.is_some() && number >= WARM_UP {
                nanos.push(clock::now().as_nanos() - sent.as_nanos());
            }
        }
        Ok(nanos)
    }

    /// Keeps a window of questions on their way, and answers with how many were answered a second.
    fn many(&mut self, duration: Duration) -> io::Result<f64> {
        let start = clock::now();
        let (mut number, mut answered) = (0u16, 0u64);
        for _ in 0..WINDOW {
            self.send(number)?;
            number = number.wrapping_add(1);
        }
        let deadline = start + duration;
        while clock::now() < deadline {
            answered += u64::from(self.receive()?.is_some());
            self.send(number)?;
            number = number.wrapping_add(1);
        }
        for _ in 0..WINDOW {
            answered += u64::from(self.receive()?.is_some());
        }
        Ok(answered as f64 / clock::now().since(start).as_secs_f64())
    }

    fn send(&mut self, number: u16) -> io::Result<()> {
        self.question[..2].copy_from_slice(&number.to_be_bytes());
        self.asked += 1;
        self.socket.send(&self.question).map(|_| ())
    }

    /// The number of the next answer, or `None` when there was none in time.
    fn receive(&mut self) -> io::Result<Option<u16>> {
        let mut answer = [0; 512];
        let length = match self.socket.recv(&mut answer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.lost += 1;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let answer = &answer[..length];
        let right = length > self.question.len()
            && answer[2] & RESPONSE != 0
            && answer[3] & CODE_MASK == 0
            && answer[6..8] == [0, 1]
            && answer.windows(4).any(|window| window == self.expected.octets());
        if !right {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a wrong answer: {answer:02x?}")));
        }
        Ok(Some(u16::from_be_bytes([answer[0], answer[1]])))
    }
}

/// A question for the IPv4 address of a name, recursion desired.
fn question(name: &str) -> io::Result<Vec<u8>> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        message.push(length.ok_or_else(|| io::Error::other(format!("{name:?} is no name")))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every question with 192.0.2.7, as a name server would.
    fn serve(socket: &UdpSocket) -> io::Result<()> {
        let mut message = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut message)?;
            let mut answer = message[..length].to_vec();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 7]);
            socket.send_to(&answer, from)?;
        }
    }

    #[test]
    fn answers_are_checked_and_counted() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        server.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        let address = server.local_addr().expect("bound");
        let serving = std::thread::spawn(move || serve(&server));
        let right = Ipv4Addr::new(192, 0, 2, 7);
        let report = ask(address, "db.lan", right, Duration::from_millis(20)).expect("ask");
        assert_eq!(report.lost, 0, "{report:?}");
        assert!(report.p50_us > 0.0 && report.per_second > 0.0, "{report:?}");
        assert!(ask(address, "db", Ipv4Addr::LOCALHOST, Duration::ZERO).is_err());
        assert!(question("a..b").is_err());
        assert!(serving.join().expect("server").is_err());
    }
}
