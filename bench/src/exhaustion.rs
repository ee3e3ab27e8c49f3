//! Short flows to one destination, from one container or from many, more of them than there are ports: how
//! many fail, and how long they take.
//!
//! A server in the world closes each connection first, so that its end stays in TIME-WAIT. The flows of each
//! container come from threads of its own, each of which begins the next when one is over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use vswitch_frame::Instant;
use vswitch_sys::clock;
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::enter_stage;

use crate::contender::outside::{self, Crowd};
use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::table::Table;

/// How long a flow may take before it has failed: a lost SYN is sent again after 1, 2 and 4 seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a server that waits looks whether all is over.
const GLANCE: Duration = Duration::from_millis(100);
/// Containers of the largest crowd.
const MANY: usize = 50;
/// Threads of all containers together.
const AT_ONCE: usize = 50;
const SERVERS: usize = 4;
const PORTS: (u16, u16) = (80, 53);

/// The kind of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flows {
    /// Connections that the server closes.
    Connections,
    /// A question and an answer, from a new socket each.
    Questions,
}

/// The outcome of many flows.
#[derive(Debug, Default)]
struct Outcome {
    failed: usize,
    /// Milliseconds that each took which did not fail, in order.
    millis: Vec<f64>,
    seconds: f64,
}

/// Begins `count` flows of each kind to one destination, from one container and from many, by way of the
/// switch and of the kernel. Prints how many failed, and how long they took.
///
/// # Errors
/// When a contender cannot be started, or a server has no socket.
pub fn run(count: usize) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    let mut table = Table::new(["flows", "failed", "a second", "p50 ms", "p99", "max"]);
    for containers in [1, MANY] {
        for kind in [Flows::Connections, Flows::Questions] {
            for crowd in [outside::crowd_of_switch(containers)?, outside::crowd_of_kernel(containers)?] {
                let outcome = measure(&crowd, kind, count)?;
                let at = |percent: usize| {
                    let index = outcome.millis.len().saturating_sub(1) * percent / 100;
                    outcome.millis.get(index).map_or("-".to_owned(), |millis| format!("{millis:.1}"))
                };
                let name = format!("{kind:?} from {containers}, {}", crowd.who);
                let rate = outcome.millis.len() as f64 / outcome.seconds;
                let cells = [outcome.failed.to_string(), format!("{rate:.0}"), at(50), at(99), at(100)];
                table.row(std::iter::once(name).chain(cells));
            }
        }
    }
    println!("{count} flows each, {AT_ONCE} at once\n\n{}", table.text());
    println!("at least: none failed");
    Ok(())
}

fn measure(crowd: &Crowd, kind: Flows, count: usize) -> Result<Outcome, BenchError> {
    let over = AtomicBool::new(false);
    let begun = AtomicUsize::new(0);
    let port = if kind == Flows::Connections { PORTS.0 } else { PORTS.1 };
    let target = SocketAddr::new(crowd.target.into(), port);
    let server = Server::bind(&crowd.world, kind, port)?;
    let threads = AT_ONCE.div_ceil(crowd.containers.len());
    let start = clock::now();
    std::thread::scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| server.serve(&over));
        }
        let places = crowd.containers.iter().flat_map(|container| std::iter::repeat_n(container, threads));
        let clients: Vec<_> = places
            .map(|container| scope.spawn(|| run_in(container, || visit(kind, target, &begun, count))))
            .collect();
        let mut outcome = Outcome::default();
        for client in clients {
            let of_one = client.join().map_err(|_| BenchError::Fault("a client panicked".to_owned()))??;
            outcome.failed += of_one.failed;
            outcome.millis.extend(of_one.millis);
        }
        outcome.seconds = clock::now().since(start).as_secs_f64();
        over.store(true, Relaxed);
        outcome.millis.sort_unstable_by(f64::total_cmp);
        Ok(outcome)
    })
}

/// Begins flows, one after another, until all have begun so many together.
fn visit(kind: Flows, target: SocketAddr, begun: &AtomicUsize, count: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while begun.fetch_add(1, Relaxed) < count {
        let from: Instant = clock::now();
        let done = match kind {
            Flows::Connections => connect(target),
            Flows::Questions => ask(target),
        };
        match done {
            Ok(()) => outcome.millis.push(clock::now().since(from).as_secs_f64() * 1000.0),
            Err(_) => outcome.failed += 1,
        }
    }
    outcome
}

fn connect(target: SocketAddr) -> std::io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&target, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.read_exact(&mut [0])?;
    // To the server's end: it closes first.
    connection.read_to_end(&mut Vec::new()).map(drop)
}

fn ask(target: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    socket.send(b"?")?;
    socket.recv(&mut [0]).map(drop)
}

/// A server in the world.
enum Server {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

impl Server {
    fn bind(world: &NetNs, kind: Flows, port: u16) -> Result<Self, BenchError> {
        const BACKLOG: i32 = 4096;
        let at = (Ipv4Addr::UNSPECIFIED, port);
        if kind == Flows::Questions {
            let socket = run_in(world, || UdpSocket::bind(at))??;
            socket.set_read_timeout(Some(GLANCE))?;
            return Ok(Self::Datagram(socket));
        }
        let listener = run_in(world, || TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let backlog = Backlog::new(BACKLOG).map_err(std::io::Error::from)?;
        listen(&listener, backlog).map_err(std::io::Error::from)?;
        Ok(Self::Stream(listener))
    }

    /// Serves until all is over.
    fn serve(&self, over: &AtomicBool) {
        while !over.load(Relaxed) {
            match self {
                Self::Stream(listener) => match listener.accept() {
                    // A client that is gone counts itself.
                    Ok((mut connection, _)) => drop(connection.write_all(b"!")),
                    Err(_) => wait_for(listener),
                },
                Self::Datagram(socket) => {
                    if let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                        let _ = socket.send_to(b"!", from);
                    }
                }
            }
        }
    }
}

/// Waits a while for a connection.
fn wait_for(listener: &TcpListener) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let patience = PollTimeout::try_from(GLANCE).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], patience);
}
