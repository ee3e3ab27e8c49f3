//! Questions over TCP (RFC 7766): each message with its length in front, several at once, answered in any
//! order.
//!
//! # Theory of operation
//!
//! A small TCP stack of its own (smoltcp) serves each address of a gateway for each port it is asked from,
//! for as long as there are connections. Everything it sends goes back to that port, so that no container can
//! be answered another's question. A frame is only put in its queue; the work is done once a turn.
//!
//! | limit | at the limit |
//! |---|---|
//! | [`CONNECTIONS_PER_PORT_MAX`] of a port | its oldest is reset |
//! | [`CONNECTIONS_MAX`] in all | the oldest of the port that has most is reset, or the new one refused if no port has more than its own |
//! | [`IDLE`] without a whole message, however much of one came | reset |
//! | a message that is no question | reset |
//! | [`QUESTION_BYTES_MAX`] for a question | reset |
//! | [`PIPELINED_MAX`] questions without an answer | nothing more is read until one is answered |
//! | [`PACKETS_MAX`] received packets in a turn | dropped; TCP sends them again |

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration as TcpDuration, Instant as TcpInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use vswitch_engine::dns::datagram::{DNS_PORT, is_right};
use vswitch_frame::headers::{be16, ethertype};
use vswitch_frame::{DropReason, Frame, Instant, Mac, Pool, PortId};

use super::connection::Connection;
use super::origin::Origin;
use super::upstream::QUESTION_BYTES_MAX;

const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_PER_PORT_MAX: usize = 16;
const IDLE: Duration = Duration::from_secs(10);
const PIPELINED_MAX: usize = 64;
const PACKETS_MAX: usize = 64;

const RECEIVE_BYTES: usize = 4096;
const SEND_BYTES: usize = 16 * 1024;
/// Bytes of answers that wait for the client to read, beyond which nothing more is read from it.
const BACKLOG_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = 2;

/// Every connection.
#[derive(Debug)]
pub(super) struct Streams {
    stacks: BTreeMap<(PortId, IpAddr), Stack>,
    next: u64,
    seed: u64,
}

/// The TCP stack that serves one address of a gateway at one port.
struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    queue: Queue,
    talks: Vec<Talk>,
    client_mac: Mac,
    gateway_mac: Mac,
    due: Option<Instant>,
}

/// One connection, or one to be.
#[derive(Debug)]
struct Talk {
    number: u64,
    handle: SocketHandle,
    inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    waiting: usize,
    active_at: Instant,
}

impl Streams {
    pub(super) fn new(seed: u64) -> Self {
        Self { stacks: BTreeMap::new(), next: 0, seed }
    }

    /// Takes a copy of a TCP segment to port 53.
    pub(super) fn take(&mut self, origin: Origin<'_>, frame: &Frame) -> Result<(), DropReason> {
        let Origin { ingress: port, now, .. } = origin;
        let (headers, bytes) = (&frame.headers, frame.bytes());
        if be16(bytes, headers.transport_offset() + 2) != DNS_PORT {
            return Err(DropReason::NotServed);
        }
        if !is_right(frame) {
            return Err(DropReason::BadChecksum);
        }
        let packet = &bytes[headers.network_offset()..headers.end_offset()];
        let gateway = destination(packet).ok_or(DropReason::NotServed)?;
        let first_of_connection = is_first(&bytes[headers.transport_offset()..]);
        let room = first_of_connection && self.make_room(port, now);
        self.next += 1;
        let (number, seed) = (self.next, self.seed.wrapping_add(self.next));
        let stack = self
            .stacks
            .entry((port, gateway))
            .or_insert_with(|| Stack::new(gateway, origin.mtu(), seed, now));
        (stack.client_mac, stack.gateway_mac) = (frame.source(), frame.destination());
        if stack.queue.received.len() >= PACKETS_MAX {
            return Err(DropReason::TxFull);
        }
        if room {
            stack.listen(number, now);
        }
        stack.queue.received.push_back(packet.to_vec());
        stack.due = Some(now);
        Ok(())
    }

    /// Makes room for a connection of a port; says whether there is any.
    fn make_room(&mut self, port: PortId, now: Instant) -> bool {
        let mut counts: BTreeMap<PortId, usize> = BTreeMap::new();
        for ((of, _), stack) in &self.stacks {
            *counts.entry(*of).or_default() += stack.open().count();
        }
        let own = counts.get(&port).copied().unwrap_or(0);
        let most = counts.iter().max_by_key(|(_, count)| **count);
        let loser = if own >= CONNECTIONS_PER_PORT_MAX {
            Some(port)
        } else if counts.values().sum::<usize>() < CONNECTIONS_MAX {
            return true;
        } else {
            most.filter(|(_, count)| **count > own).map(|(port, _)| *port)
        };
        let of_loser = self.stacks.iter_mut().filter(|((of, _), _)| Some(*of) == loser);
        let stacks = of_loser.filter(|(_, stack)| stack.open().next().is_some());
        let oldest = stacks.min_by_key(|(_, stack)| stack.open().map(|talk| talk.number).min());
        let reset = oldest.and_then(|(_, stack)| {
            let number = stack.open().map(|talk| talk.number).min()?;
            stack.due = Some(now);
            stack.reset(number);
            Some(())
        });
        reset.is_some()
    }

    /// Resets a connection, if it is still there.
    pub(super) fn reset(&mut self, connection: Connection) {
        if let Some(stack) = self.stacks.get_mut(&(connection.port, connection.gateway)) {
            stack.due = Some(Instant::ZERO);
            stack.reset(connection.number);
        }
    }

    /// Does what is due and appends the questions that came in.
    pub(super) fn receive(&mut self, now: Instant, asked: &mut Vec<(Connection, Vec<u8>)>) {
        for ((port, gateway), stack) in &mut self.stacks {
            if stack.due.is_some_and(|due| due <= now) {
                stack.work(now, |number, question| {
                    asked.push((Connection { port: *port, gateway: *gateway, number }, question));
                });
            }
        }
    }

    /// Answers a question of a connection, if that is still there.
    pub(super) fn answer(&mut self, connection: Connection, message: &[u8]) {
        let Some(stack) = self.stacks.get_mut(&(connection.port, connection.gateway)) else { return };
        let Some(talk) = stack.talks.iter_mut().find(|talk| talk.number == connection.number) else { return };
        talk.waiting = talk.waiting.saturating_sub(1);
        if let Ok(length) = u16::try_from(message.len()) {
            talk.outbox.extend(length.to_be_bytes());
            talk.outbox.extend(message);
        }
        stack.due = Some(Instant::ZERO);
    }

    /// Sends what is due and appends the frames that carry it. Stacks without connections go.
    pub(super) fn send(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        scratch: &mut Vec<u8>,
        forward: &mut Vec<(PortId, Frame)>,
    ) {
        for ((port, _), stack) in &mut self.stacks {
            if stack.due.is_some_and(|due| due <= now) {
                stack.write(now);
                stack.emit(*port, pool, scratch, forward);
                stack.due = stack.next_due(now);
            }
        }
        self.stacks.retain(|_, stack| !stack.talks.is_empty());
    }

    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.stacks.values().filter_map(|stack| stack.due).min()
    }

    pub(super) fn forget_port(&mut self, port: PortId) {
        self.stacks.retain(|(of, _), _| *of != port);
    }
}

impl Stack {
    fn new(gateway: IpAddr, mtu: usize, seed: u64, now: Instant) -> Self {
        let mut queue = Queue { received: VecDeque::new(), sent: Vec::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queue, tcp_instant(now));
        interface.update_ip_addrs(|addresses| {
            // A subnet of everything: whoever asks is on this port.
            let _ = addresses.push(IpCidr::new(gateway.into(), 0));
        });
        let none = Mac::ZERO;
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            queue,
            talks: Vec::new(),
            client_mac: none,
            gateway_mac: none,
            due: None,
        }
    }

    /// Connections that are not over.
    fn open(&self) -> impl Iterator<Item = &Talk> {
        self.talks
            .iter()
            .filter(|talk| self.sockets.get::<tcp::Socket<'_>>(talk.handle).state() != tcp::State::Closed)
    }

    /// Ends a connection at once. It is over with the next turn, when the reset has been sent.
    fn reset(&mut self, number: u64) {
        if let Some(talk) = self.talks.iter().find(|talk| talk.number == number) {
            self.sockets.get_mut::<tcp::Socket<'_>>(talk.handle).abort();
        }
    }

    /// Makes a socket for the connection that is about to begin.
    fn listen(&mut self, number: u64, now: Instant) {
        let (receive, send) = (vec![0; RECEIVE_BYTES], vec![0; SEND_BYTES]);
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(send));
        socket.set_timeout(Some(tcp_duration(IDLE)));
        socket.set_nagle_enabled(false);
        if socket.listen(DNS_PORT).is_err() {
            return;
        }
        let handle = self.sockets.add(socket);
        let (inbox, outbox) = (Vec::new(), VecDeque::new());
        self.talks.push(Talk { number, handle, inbox, outbox, waiting: 0, active_at: now });
    }

    /// Takes in what was received and reports each question.
    fn work(&mut self, now: Instant, mut asked: impl FnMut(u64, Vec<u8>)) {
        self.interface.poll(tcp_instant(now), &mut self.queue, &mut self.sockets);
        for talk in &mut self.talks {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(talk.handle);
            talk.read(socket);
            while let Some(question) = talk.next_question() {
                talk.waiting += 1;
                talk.active_at = now;
                asked(talk.number, question);
            }
            if talk.is_too_long() || talk.idle_at().is_some_and(|at| at <= now) {
                socket.abort();
            }
        }
    }

    /// Hands answers to the sockets, closes what is over, and lets the stack send.
    fn write(&mut self, now: Instant) {
        for talk in &mut self.talks {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(talk.handle);
            talk.write(socket, now);
            let over = talk.waiting == 0 && talk.outbox.is_empty();
            if over && socket.state() == tcp::State::CloseWait {
                socket.close();
            }
        }
        self.interface.poll(tcp_instant(now), &mut self.queue, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.talks.retain(|talk| {
            let state = sockets.get::<tcp::Socket<'_>>(talk.handle).state();
            // A socket that still listens lost its first segment: the client sends it again.
            let gone = matches!(state, tcp::State::Closed | tcp::State::TimeWait | tcp::State::Listen);
            if gone {
                sockets.remove(talk.handle);
            }
            !gone
        });
    }

    /// Makes frames of the packets that the stack sent.
    fn emit(
        &mut self,
        port: PortId,
        pool: &mut Pool,
        scratch: &mut Vec<u8>,
        forward: &mut Vec<(PortId, Frame)>,
    ) {
        for packet in self.queue.sent.drain(..) {
            let ether_type = match packet.first() {
                Some(version) if version >> 4 == 4 => ethertype::IPV4,
                _ => ethertype::IPV6,
            };
            scratch.clear();
            scratch.extend(self.client_mac.0);
            scratch.extend(self.gateway_mac.0);
            scratch.extend(ether_type.to_be_bytes());
            scratch.extend(packet);
            // Without a slot the segment is lost, as on a full queue: TCP sends it again.
            let Some(mut frame) = pool.take() else { continue };
            frame.fill(scratch);
            match frame.parse() {
                Ok(()) => forward.push((port, frame)),
                Err(_) => pool.free(frame),
            }
        }
    }

    fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let tcp = self.interface.poll_at(tcp_instant(now), &self.sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            Instant::from_nanos(micros.saturating_mul(1000)).max(now)
        });
        let idle = self.talks.iter().filter_map(Talk::idle_at).min();
        let sockets = &self.sockets;
        let mut talks = self.talks.iter();
        let unread =
            talks.any(|talk| talk.has_room() && sockets.get::<tcp::Socket<'_>>(talk.handle).can_recv());
        [tcp, idle, unread.then_some(now)].into_iter().flatten().min()
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("talks", &self.talks).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Talk {
    /// Takes what the socket received, unless there is enough to do.
    fn read(&mut self, socket: &mut tcp::Socket<'_>) {
        let mut part = [0; RECEIVE_BYTES];
        while self.has_room()
            && let Ok(length @ 1..) = socket.recv_slice(&mut part)
        {
            self.inbox.extend(&part[..length]);
        }
    }

    fn has_room(&self) -> bool {
        self.waiting < PIPELINED_MAX
            && self.outbox.len() < BACKLOG_BYTES
            && self.inbox.len() < LENGTH_BYTES + QUESTION_BYTES_MAX
    }

    /// The time at which it is closed for want of messages; `None` while an answer is owed to it.
    fn idle_at(&self) -> Option<Instant> {
        (self.waiting == 0).then(|| self.active_at + IDLE)
    }

    /// Takes the next whole question out of the inbox.
    fn next_question(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(be16(self.inbox.get(..LENGTH_BYTES)?, 0));
        let question = self.inbox.get(LENGTH_BYTES..LENGTH_BYTES + length)?.to_vec();
        self.inbox.drain(..LENGTH_BYTES + length);
        Some(question)
    }

    fn is_too_long(&self) -> bool {
        self.inbox.get(..LENGTH_BYTES).is_some_and(|length| usize::from(be16(length, 0)) > QUESTION_BYTES_MAX)
    }

    fn write(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) {
        while let (part @ [_, ..], _) = self.outbox.as_slices()
            && let Ok(length @ 1..) = socket.send_slice(part)
        {
            self.outbox.drain(..length);
            if self.outbox.is_empty() {
                self.active_at = now;
            }
        }
    }
}

/// The link under a stack: packets, no frames.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) received: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) mtu: usize,
}

pub(super) struct Received(Vec<u8>);

pub(super) struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Queue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: TcpInstant) -> Option<(Received, Sent<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: TcpInstant) -> Option<Sent<'_>> {
        (self.sent.len() < PACKETS_MAX).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // Checked before; one that is left to the receiver would be found wrong.
        checksum.tcp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

/// The destination of an IP packet whose header was parsed.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
    }
}

/// Whether a TCP header is that of the first segment of a connection: SYN without ACK.
fn is_first(segment: &[u8]) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    segment.get(13).is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

pub(super) fn tcp_instant(now: Instant) -> TcpInstant {
    TcpInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

fn tcp_duration(duration: Duration) -> TcpDuration {
    TcpDuration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
