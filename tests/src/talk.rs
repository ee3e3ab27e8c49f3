//! Conversations of containers: pings, TCP transfers and datagrams whose content is checked.
//!
//! Content is a pseudo-random stream of a seed, so a byte that is lost, doubled, moved or changed shows, and
//! so does a byte of another conversation.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{iter, thread};

use crate::namespace::inside;
use crate::wait;

/// The time that a peer may stay silent.
const SILENCE: Duration = Duration::from_secs(20);
const BLOCK: usize = 64 * 1024;

/// An endless pseudo-random stream of bytes (xorshift64).
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next bytes of it: whole words, so ask for multiples of eight until the last time.
    pub fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// Writes the first `bytes` of a stream.
///
/// # Errors
/// When the connection fails.
pub fn send(connection: &mut impl Write, seed: u64, bytes: usize) -> io::Result<()> {
    let mut stream = Stream::new(seed);
    let mut block = vec![0; BLOCK];
    for at in (0..bytes).step_by(BLOCK) {
        let part = &mut block[..BLOCK.min(bytes - at)];
        stream.fill(part);
        connection.write_all(part)?;
    }
    Ok(())
}

/// Reads the first `bytes` of a stream.
///
/// # Errors
/// When the connection fails or ends early, or when a byte is wrong.
pub fn check(connection: &mut impl Read, seed: u64, bytes: usize) -> io::Result<()> {
    let mut stream = Stream::new(seed);
    let (mut expected, mut block) = (vec![0; BLOCK], vec![0; BLOCK]);
    for at in (0..bytes).step_by(BLOCK) {
        let length = BLOCK.min(bytes - at);
        stream.fill(&mut expected[..length]);
        connection.read_exact(&mut block[..length])?;
        if let Some(wrong) = iter::zip(&block[..length], &expected[..length]).position(|(a, b)| a != b) {
            return Err(io::Error::other(format!("byte {} is wrong", at + wrong)));
        }
    }
    Ok(())
}

/// A listening socket inside a namespace.
///
/// # Panics
/// When the address cannot be bound.
pub fn listen(namespace: &Path, address: IpAddr) -> TcpListener {
    inside(namespace, || TcpListener::bind((address, 0))).expect("listen")
}

/// A listening socket inside a namespace at an address that another has just left: a child that some test
/// starts has all our sockets for a moment.
pub fn listen_at(namespace: &Path, at: SocketAddr) -> TcpListener {
    wait::until("a free port", || inside(namespace, || TcpListener::bind(at)).ok())
}

/// A socket for datagrams at such an address.
pub fn bind_at(namespace: &Path, at: SocketAddr) -> UdpSocket {
    wait::until("a free port", || inside(namespace, || UdpSocket::bind(at)).ok())
}

/// A connection from inside a namespace.
///
/// # Panics
/// When it cannot be made.
pub fn connect(namespace: &Path, target: SocketAddr) -> TcpStream {
    let connection = inside(namespace, || TcpStream::connect_timeout(&target, SILENCE)).expect("connect");
    connection.set_read_timeout(Some(SILENCE)).expect("read timeout");
    connection.set_write_timeout(Some(SILENCE)).expect("write timeout");
    connection
}

/// Moves `bytes` both ways at once through one TCP connection and checks every one.
///
/// # Panics
/// When the connection cannot be made, fails, or a byte is wrong.
pub fn transfer(initiator: &Path, target: &Path, address: IpAddr, bytes: usize) {
    let listener = listen(target, address);
    let outgoing = connect(initiator, listener.local_addr().expect("bound"));
    let (incoming, _) = listener.accept().expect("accept");
    incoming.set_read_timeout(Some(SILENCE)).expect("read timeout");
    incoming.set_write_timeout(Some(SILENCE)).expect("write timeout");
    let run = |connection: &TcpStream, sends: u64, checks: u64| {
        let (mut writer, mut reader) = (connection, connection);
        thread::scope(|scope| {
            let writing = scope.spawn(move || send(&mut writer, sends, bytes));
            check(&mut reader, checks, bytes).expect("receive");
            writing.join().expect("no panic").expect("send");
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&incoming, 1, 2));
        run(&outgoing, 2, 1);
    });
}

/// Sends datagrams of these sizes in one go and checks that all arrive, in order and whole.
///
/// # Panics
/// When one is lost, changed or out of order.
pub fn datagrams(initiator: &Path, target: &Path, address: IpAddr, sizes: &[usize]) {
    let receiver = inside(target, || UdpSocket::bind((address, 0))).expect("bind");
    receiver.set_read_timeout(Some(SILENCE)).expect("timeout");
    let goal = receiver.local_addr().expect("bound");
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let sender = inside(initiator, || UdpSocket::bind((any, 0))).expect("bind");
    let mut stream = Stream::new(7);
    let contents: Vec<Vec<u8>> = sizes
        .iter()
        .map(|&size| {
            let mut content = vec![0; size];
            stream.fill(&mut content);
            content
        })
        .collect();
    for content in &contents {
        assert_eq!(sender.send_to(content, goal).expect("send"), content.len());
    }
    let mut buffer = vec![0; 65_536];
    for (number, content) in contents.iter().enumerate() {
        let length = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
        assert!(buffer[..length] == content[..], "datagram {number} is wrong: {length} bytes");
    }
}

/// Whether one of a few pings from inside a namespace is answered.
///
/// # Panics
/// When `ping` cannot be started.
pub fn answers(namespace: &Path, address: IpAddr) -> bool {
    ping(namespace, address, &["-c", "5", "-i", "0.2", "-W", "2", "-w", "10"])
}

/// Whether a single ping, sent once and waited for shortly, stays without an answer.
///
/// # Panics
/// When `ping` cannot be started.
pub fn is_silent(namespace: &Path, address: IpAddr) -> bool {
    !ping(namespace, address, &["-c", "2", "-i", "0.2", "-W", "0.3"])
}

/// Runs `ping` with options of its own; true when an answer came.
///
/// # Panics
/// When it cannot be started.
pub fn ping(namespace: &Path, address: IpAddr, options: &[&str]) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-q"]).args(options).arg(address.to_string());
    inside(namespace, || command.output()).expect("ping is installed").status.success()
}
