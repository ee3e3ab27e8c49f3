//! Gossip: a cluster without a server.
//!
//! # Theory of operation
//! One UDP socket and one TCP listener, on the same port. [`machine`] decides everything; the [`node`], which
//! all tasks share, seals and sends its packets, and opens what arrives and hands it over. Here the machine
//! is woken when it wants to be. Conversations go over TCP, each in a task of its own.
//!
//! | file | |
//! |---|---|
//! | [`machine`] [`members`] [`member`] | who takes part, and all that is decided |
//! | [`spread`] [`ring`] | news, and the trees it goes by |
//! | [`agenda`] [`compare`] | when to compare records, and how |
//! | [`packet`] [`seal`] | datagrams |
//! | [`talk`] [`wire`] [`exchange`] [`door`] | conversations, their texts and connections, and who may come in |
//!
//! Packets that do not open are dropped and counted; who sends them is said in the log once a minute.

pub mod agenda;
pub mod compare;
mod door;
pub mod exchange;
pub mod machine;
pub mod member;
pub mod members;
mod node;
pub mod packet;
pub mod ring;
pub mod seal;
pub mod spread;
pub mod talk;
pub mod wire;
pub mod world;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use vswitch_sys::{clock, random, wallclock};

use super::record::HostId;
use super::view::{Request, Source};
use machine::Machine;
use member::Member;
use node::{Node, now};
use packet::PACKET_BYTES_MAX;
use seal::{OVERHEAD_BYTES_MAX, Seal};
use talk::Appointment;
use wire::Failure;

/// The port of gossip, which Docker's has, too.
pub const PORT: u16 = 7946;
/// The time between two looks for hosts to join that are not there.
const JOIN_EVERY: Duration = Duration::from_secs(5);
/// The time that a host to join may take to greet.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the longest datagram that is looked at.
const DATAGRAM_BYTES_MAX: usize = PACKET_BYTES_MAX + OVERHEAD_BYTES_MAX;

/// Settings of a host that takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file with the keys.
    pub key_file: PathBuf,
    /// Hosts to join, each `HOST` or `HOST:PORT`.
    pub join: Vec<String>,
    /// The address where others reach this host.
    pub advertise: SocketAddr,
    /// The address to listen at, if another one.
    pub bind: Option<SocketAddr>,
}

/// All that can be refused before a host takes part.
#[derive(Debug)]
pub struct Prepared {
    options: Options,
    seal: Seal,
    socket: UdpSocket,
    listener: TcpListener,
}

/// Reads the keys, listens, and knocks at the hosts to join.
///
/// # Errors
/// One line: the key file, the address, or that a host to join is of another cluster or has another key. One
/// that cannot be reached is no error: it is looked for until it is there.
pub async fn prepare(cluster: &str, options: Options) -> Result<Prepared, String> {
    let seal = Seal::read(cluster, &options.key_file)?;
    for host in &options.join {
        match greet(&seal, host).await {
            Ok(_) => {}
            Err(Failure::Unopened(error)) => return Err(format!("cannot join {host}: {error}")),
            Err(Failure::Io(error)) => {
                tracing::warn!("cannot join {host} yet: {error}: it is tried again until it is there");
            }
        }
    }
    let bind = options.bind.unwrap_or(options.advertise);
    let refused = |error: io::Error| {
        format!(
            "cannot listen for gossip on {bind}: {error}: give another address with --advertise or --cluster-bind"
        )
    };
    let (socket, listener) = (UdpSocket::bind(bind).await, TcpListener::bind(bind).await);
    let (socket, listener) = (socket.map_err(refused)?, listener.map_err(refused)?);
    Ok(Prepared { options, seal, socket, listener })
}

impl Prepared {
    /// Takes part. Hosts that this one knew before are looked for, too.
    ///
    /// # Errors
    /// One line, when the kernel has no random numbers.
    pub fn start(self, host: HostId, others: Vec<IpAddr>, source: Source) -> Result<JoinHandle<()>, String> {
        let Self { options, seal, socket, listener } = self;
        let join = options.join.into_iter().chain(others.iter().map(IpAddr::to_string)).collect();
        let life = u64::try_from(wallclock::since_epoch().as_millis()).unwrap_or(u64::MAX);
        let seed = random::bytes().map_err(|error| format!("cannot draw a seed: {error}"))?;
        let me = Member { address: options.advertise, host, life };
        let Source { requests, events } = source;
        let machine = Machine::new(me, u64::from_ne_bytes(seed), now());
        let (talks, appointments) = mpsc::unbounded_channel();
        let node = Arc::new(Node::new(seal, socket, machine, events, talks));
        tokio::spawn(exchange::listen(Arc::clone(&node), listener));
        tokio::spawn(keep_joined(Arc::clone(&node), join));
        Ok(tokio::spawn(work(node, requests, appointments)))
    }
}

/// Works until control has gone, and says goodbye.
async fn work(
    node: Arc<Node>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    mut appointments: mpsc::UnboundedReceiver<Appointment>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let wait = node.machine().poll_at().since(clock::now());
        tokio::select! {
            received = node.socket.recv_from(&mut buffer) => match received {
                // Longer ones are none of ours, whatever is in them.
                Ok((length, from)) if length <= DATAGRAM_BYTES_MAX => node.receive(&buffer[..length], from),
                Ok(_) => {}
                // An ICMP error of a member that is gone.
                Err(error) => tracing::debug!("gossip: {error}"),
            },
            request = requests.recv() => match request {
                Some(request) => serve(&node, request),
                None => break,
            },
            // The node keeps an end of the channel, so there is always one.
            Some(appointment) = appointments.recv() => {
                tokio::spawn(exchange::hold(Arc::clone(&node), appointment));
            }
            () = sleep(wait) => node.act(|machine| machine.tick(now())),
            () = node.woken.notified() => {}
        }
    }
    node.act(|machine| machine.leave(now()));
}

fn serve(node: &Arc<Node>, request: Request) {
    match request {
        Request::Publish(records) => node.act(|machine| machine.publish(records, now())),
        Request::Claim(records, answer) => {
            let outcome = node.act(|machine| machine.claim(records, now()));
            // The task that asked may have gone.
            let _ = answer.send(outcome);
        }
        Request::Acquire(ask, answer) => {
            tokio::spawn(exchange::acquire(Arc::clone(node), ask, answer));
        }
    }
}

/// Looks for hosts that are to be joined and are not there.
async fn keep_joined(node: Arc<Node>, hosts: Vec<String>) {
    while !node.events.is_closed() {
        for host in &hosts {
            if let Err(error) = join(&node, host).await {
                tracing::debug!("cannot join {host}: {error}");
            }
        }
        sleep(JOIN_EVERY).await;
    }
}

/// Makes a host's acquaintance, unless it is this one or known already.
async fn join(node: &Arc<Node>, host: &str) -> Result<(), Failure> {
    let addresses: Vec<SocketAddr> = lookup_host(with_port(host)).await?.collect();
    let is_known = |address: &SocketAddr| {
        let machine = node.machine();
        machine.me().address == *address || machine.members().iter().any(|(_, up)| up == *address)
    };
    if !addresses.iter().any(is_known) {
        let member = greet(&node.seal, host).await?;
        node.act(|machine| machine.join(member, now()));
    }
    Ok(())
}

/// Makes a host greet; the member that it is.
async fn greet(seal: &Seal, host: &str) -> Result<Member, Failure> {
    let mut failure = io::Error::other("it has no address").into();
    for address in lookup_host(with_port(host)).await? {
        let greeted = timeout(JOIN_PATIENCE, exchange::Exchange::open(seal, address)).await;
        match greeted.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
            Ok(exchange) => return Ok(exchange.with()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A host with a port: the one that it is written with, as in `HOST:PORT` or `[ADDRESS]:PORT`, or else
/// [`PORT`].
pub fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']'))
    });
    match host {
        _ if has_port => host.to_owned(),
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{PORT}"),
        _ => format!("{host}:{PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_the_usual_port_unless_they_say_another() {
        let hosts = [
            ("host", "host:7946"),
            ("host:1", "host:1"),
            ("192.0.2.1", "192.0.2.1:7946"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("2001:db8::1", "[2001:db8::1]:7946"),
            ("[2001:db8::1]", "[2001:db8::1]:7946"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ];
        for (written, expected) in hosts {
            assert_eq!(with_port(written), expected);
        }
    }
}
