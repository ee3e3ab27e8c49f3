//! New connections over TCP: connect, a byte to and fro, close, and so on, many at once.
//!
//! Each end is one thread around epoll. The source keeps [`LANES`] connections on their way, in turn to each
//! port of the target, and closes first, so that what is left of a connection for a minute (`TIME-WAIT`) is
//! on its side; the kernel chooses its ports. How many there are to choose from is up to the namespace: see
//! `ip_local_port_range` and `tcp_tw_reuse`.
//!
//! Every answer is checked, and nothing that goes wrong is passed over: see [`ConnectionsReport`].

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;
use vswitch_sys::clock;

use crate::source_end::source_end;

/// Connections on their way at once.
const LANES: usize = 64;
/// How long a connection may take. A lost SYN is sent again after a second (RFC 6298, 2.1), so one that takes
/// as long has lost a packet.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long connections are made before the first that counts: addresses are resolved, tables grow.
const WARM_UP: Duration = Duration::from_millis(250);
/// How often either end looks at the time when nothing happens.
const GLANCE: Duration = Duration::from_millis(50);
const EVENTS: usize = 256;
/// Errors that may happen by chance: one in so many connections, and always a few.
const CHANCE: u64 = 10_000;
const FEW: u64 = 3;

/// How many connections were made, each with a byte to and fro.
///
/// A wrong answer fails the measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsReport {
    /// Connections whose answer came.
    pub connections: u64,
    /// Seconds in which they were counted.
    pub seconds: f64,
    /// Connections given up after a second, of all that were made.
    pub timeouts: u64,
    /// Connections that were refused or reset, of all that were made.
    pub resets: u64,
}

impl ConnectionsReport {
    /// Connections made per second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.connections as f64 / self.seconds } else { 0.0 }
    }

    /// Whether more went wrong than may by chance.
    pub fn is_faulty(&self) -> bool {
        self.timeouts + self.resets > FEW.max(self.connections / CHANCE)
    }
}

/// The target's count.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    answered: u64,
}

/// The byte that is sent back for a byte.
fn answer(byte: u8) -> u8 {
    !byte
}

/// Answers every connection to `listeners` ports that `ready` is told, until standard input ends and nothing
/// more comes.
pub(crate) fn serve(
    address: IpAddr,
    listeners: usize,
    ready: impl FnOnce(&[u16]) -> io::Result<()>,
) -> io::Result<Answered> {
    let listeners: Vec<TcpListener> =
        (0..listeners).map(|_| TcpListener::bind((address, 0))).collect::<io::Result<_>>()?;
    let mut server = Server { epoll: new_epoll()?, open: BTreeMap::new(), next: 0, answered: 0 };
    let mut ports = Vec::with_capacity(listeners.len());
    for listener in &listeners {
        listener.set_nonblocking(true)?;
        server.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, server.next))?;
        server.next += 1;
        ports.push(listener.local_addr()?.port());
    }
    let ended = source_end();
    ready(&ports)?;
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = wait(&server.epoll, &mut events)?;
        if ready.is_empty() && ended() {
            return Ok(Answered { answered: server.answered });
        }
        for event in ready {
            match usize::try_from(event.data()).ok().and_then(|index| listeners.get(index)) {
                Some(listener) => server.accept(listener)?,
                None => server.answer(event.data())?,
            }
        }
    }
}

/// The target's connections, by a number that is never used again.
struct Server {
    epoll: Epoll,
    open: BTreeMap<u64, TcpStream>,
    next: u64,
    answered: u64,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, self.next))?;
                    self.open.insert(self.next, stream);
                    self.next += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Gone before it was accepted: the source counts it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers a byte, or closes what the source has closed.
    fn answer(&mut self, number: u64) -> io::Result<()> {
        let Some(stream) = self.open.get_mut(&number) else { return Ok(()) };
        let mut byte = [0];
        if matches!(stream.read(&mut byte), Ok(1)) && stream.write(&[answer(byte[0])]).is_ok() {
            self.answered += 1;
        } else {
            // At an end, or after a reset, which the source counts. Closing takes it out of the epoll set.
            self.open.remove(&number);
        }
        Ok(())
    }
}

/// Makes connections to the `targets` in turn.
pub(crate) fn open(targets: &[SocketAddr], duration: Duration) -> io::Result<ConnectionsReport> {
    let start = clock::now() + WARM_UP;
    let deadline = start + duration;
    let mut client = Client {
        epoll: new_epoll()?,
        targets: targets.iter().copied().cycle(),
        lanes: std::iter::repeat_with(|| None).take(LANES).collect(),
        report: ConnectionsReport { connections: 0, seconds: duration.as_secs_f64(), timeouts: 0, resets: 0 },
        start,
    };
    for number in 0..LANES {
        client.begin(number)?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut next_glance = start;
    loop {
        let ready = wait(&client.epoll, &mut events)?;
        let now = clock::now();
        if now >= deadline {
            return Ok(client.report);
        }
        for event in ready {
            if let Ok(number) = usize::try_from(event.data()) {
                client.go_on(number, event.events(), now)?;
            }
        }
        if now >= next_glance {
            client.glance(now)?;
            next_glance = now + GLANCE;
        }
    }
}

/// The source's connections on their way.
struct Client<T> {
    epoll: Epoll,
    targets: T,
    lanes: Vec<Option<Lane>>,
    report: ConnectionsReport,
    /// Answers count from then on.
    start: Instant,
}

/// One connection on its way.
struct Lane {
    stream: TcpStream,
    since: Instant,
    asked: bool,
}

impl<T: Iterator<Item = SocketAddr>> Client<T> {
    fn begin(&mut self, number: usize) -> io::Result<()> {
        let target = self.targets.next().ok_or_else(|| io::Error::other("no target"))?;
        let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(Errno::ECONNREFUSED) => {
                self.fail(number);
                return Ok(());
            }
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(io::Error::new(error.kind(), format!("cannot connect to {target}: {error}")));
            }
        }
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(&fd, EpollEvent::new(interest, number as u64))?;
        self.lanes[number] = Some(Lane { stream: fd.into(), since: clock::now(), asked: false });
        Ok(())
    }

    /// Asks on a connection that is made, and begins another when its answer has come, or never will.
    fn go_on(&mut self, number: usize, events: EpollFlags, now: Instant) -> io::Result<()> {
        let Some(lane) = &mut self.lanes[number] else { return Ok(()) };
        let question = u8::try_from(number).unwrap_or(0);
        if !lane.asked {
            match lane.stream.write(&[question]) {
                Ok(_) => lane.asked = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {
                    self.fail(number);
                    return Ok(());
                }
            }
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            return Ok(());
        }
        let mut byte = [0];
        match lane.stream.read(&mut byte) {
            Ok(1) if byte[0] == answer(question) => {
                self.report.connections += u64::from(now >= self.start);
                self.begin(number)
            }
            Ok(1) => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to a byte is wrong")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(_) | Err(_) => {
                self.fail(number);
                Ok(())
            }
        }
    }

    /// Notes that a connection was refused or reset. Its lane rests until the next glance.
    fn fail(&mut self, number: usize) {
        self.report.resets += 1;
        self.lanes[number] = None;
    }

    /// Begins others for those that failed or take too long.
    fn glance(&mut self, now: Instant) -> io::Result<()> {
        for number in 0..self.lanes.len() {
            match &self.lanes[number] {
                Some(lane) if now < lane.since + PATIENCE => continue,
                Some(_) => self.report.timeouts += 1,
                None => {}
            }
            self.begin(number)?;
        }
        Ok(())
    }
}

fn new_epoll() -> io::Result<Epoll> {
    Ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?)
}

/// Events that are ready; none after a while.
fn wait<'a>(epoll: &Epoll, events: &'a mut [EpollEvent]) -> io::Result<&'a [EpollEvent]> {
    let patience = EpollTimeout::try_from(GLANCE).map_err(io::Error::other)?;
    let count = loop {
        // A process that was stopped and goes on is interrupted, handler or none (signal(7)).
        match epoll.wait(events, patience) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    Ok(&events[..count])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    #[test]
    fn every_connection_is_answered() {
        let (say, hear) = mpsc::channel();
        let target = std::thread::spawn(move || {
            serve(Ipv4Addr::LOCALHOST.into(), 4, |ports| say.send(ports.to_vec()).map_err(io::Error::other))
        });
        let ports = hear.recv().expect("ports");
        let targets: Vec<SocketAddr> = ports.iter().map(|&port| (Ipv4Addr::LOCALHOST, port).into()).collect();
        let report = open(&targets, Duration::from_millis(50)).expect("open");
        let answered = target.join().expect("target").expect("serve").answered;
        assert!(0 < report.connections && report.connections <= answered, "{report:?} {answered}");
        assert_eq!((report.timeouts, report.resets), (0, 0));
        assert!(!report.is_faulty() && report.per_second() > 0.0);
    }

    #[test]
    fn who_refuses_is_counted() {
        let port = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            listener.local_addr().expect("bound").port()
        };
        let report = open(&[(Ipv4Addr::LOCALHOST, port).into()], Duration::from_millis(20)).expect("open");
        assert!(report.connections == 0 && report.resets > 0 && report.is_faulty(), "{report:?}");
    }
}
