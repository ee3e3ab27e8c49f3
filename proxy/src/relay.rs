//! One relay: an accepted connection, and a TCP connection to the container.
//!
//! # Theory of operation
//!
//! | what happens | what the other side gets |
//! |---|---|
//! | the client ends its direction | an end, behind the last byte; the other direction goes on |
//! | the container ends its direction | the same |
//! | the client resets, or its connection fails | a reset |
//! | the container resets, or does not listen | a reset |
//! | the container resets or vanishes behind its end, and took all | the rest, and an end; a reset once the client says more |
//! | the container is silent while it is connected to, for [`CONNECT_MAX`] | a reset of the client |
//! | the container is silent for [`SILENCE_MAX`], though it is asked every [`KEEP_ALIVE`] | a reset of both |
//!
//! The client's connection is accepted before the container was asked: so does the kernel, which knows
//! nothing of the container. A client of a port where nobody listens is therefore reset instead of refused.
//!
//! Nothing is read from the client before the container has accepted. In one turn a relay passes on a bounded
//! number of pieces and frames, and goes on in the next.
//!
//! Whoever reads late gets every byte, however late. The stack is not made for that, in two places:
//!
//! * At the end of TIME-WAIT it throws away what was received and not read yet. So its clock stands still
//!   from the beginning of TIME-WAIT on; a relay ends when the last byte is passed on, and rests no longer.
//! * In LAST-ACK it does not hear that the container's window has opened, nor that the container lives. So
//!   after the container's end it is told of the client's once the container has acknowledged all bytes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp};
use smoltcp::time::Duration as TcpDuration;
use smoltcp::wire::{HardwareAddress, IpCidr};
use vswitch_frame::{Frame, Instant};
use vswitch_sys::stream::Stream;

use crate::binding::Binding;
use crate::link::{Link, Outlet, instant, tcp_instant};
use crate::timestamp::not_yet;

/// How long the container may take to accept.
pub const CONNECT_MAX: Duration = Duration::from_secs(30);
/// After so much silence the container is asked whether it is still there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// After so much silence the container is taken for gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(200);

/// Pieces passed on in each direction, and frames sent, in one turn of a relay.
const PIECES: usize = 16;
/// How long to wait for a slot of the pool.
const NO_SLOT: Duration = Duration::from_millis(1);

/// The fate of a relay after work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on, and wants to be looked at then.
    Waits(Option<Instant>),
    /// Both directions have ended.
    Ended,
    /// One side was reset; the client's connection is to be reset, if it is not yet.
    Broken,
}

pub(crate) struct Relay {
    pub(crate) binding: Binding,
    pub(crate) source: SocketAddr,
    /// Bytes of the buffer of each direction.
    pub(crate) buffer: usize,
    /// When bytes were passed on last.
    pub(crate) active_at: Instant,
    stream: Stream,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    client: Ends,
    container: Ends,
    connected: bool,
    /// The client's socket may have something to read, or room to write, for all we know.
    readable: bool,
    writable: bool,
    /// It may have failed, for all we know.
    woken: bool,
    /// The beginning of TIME-WAIT.
    time_wait: Option<Instant>,
}

/// How far the direction that begins at one side has come.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// The side has ended it.
    ended: bool,
    /// The other side has been told, behind the last byte.
    passed_on: bool,
}

/// A socket with buffers of so many bytes for each direction.
pub(crate) fn socket(buffer: usize) -> tcp::Socket<'static> {
    let room = || tcp::SocketBuffer::new(vec![0; buffer]);
    let mut socket = tcp::Socket::new(room(), room());
    // Pieces are as the client wrote them, and acknowledged once a turn.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

impl Relay {
    /// Begins to connect to the container from `source`, by a socket that is not connected.
    ///
    /// # Errors
    /// Gives the connection back where that is impossible for the addresses.
    pub(crate) fn new(
        binding: Binding,
        source: SocketAddr,
        stream: Stream,
        mut socket: tcp::Socket<'static>,
        seed: u64,
        now: Instant,
    ) -> Result<Self, Stream> {
        let mut link = Link { packet: None, outlet: None, binding: &binding, credit: 0, now };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, tcp_instant(now));
        interface.update_ip_addrs(|addresses| {
            // A subnet of everything: the container is on this link, whatever its address.
            let _ = addresses.push(IpCidr::new(source.ip().into(), 0));
        });
        let buffer = socket.send_capacity();
        // Another relay may have used it.
        socket.set_keep_alive(None);
        socket.set_tsval_generator(Some(not_yet));
        socket.set_timeout(Some(tcp_duration(CONNECT_MAX)));
        if socket.connect(interface.context(), binding.container, source).is_err() {
            return Err(stream);
        }
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let (client, container) = (Ends::default(), Ends::default());
        let (connected, readable, writable, woken) = (false, true, true, false);
        Ok(Self {
            binding,
            source,
            buffer,
            active_at: now,
            stream,
            interface,
            sockets,
            handle,
            client,
            container,
            connected,
            readable,
            writable,
            woken,
            time_wait: None,
        })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The client's socket became ready for something.
    pub(crate) fn ready(&mut self) {
        (self.readable, self.writable, self.woken) = (true, true, true);
    }

    /// Takes a segment of the container's. What it is answered waits for the next [`work`](Self::work), but
    /// for a few answers to what makes no sense.
    pub(crate) fn take(&mut self, frame: &Frame, outlet: &mut Outlet<'_>, now: Instant) {
        let packet = &frame.bytes()[frame.headers.network_offset()..frame.headers.end_offset()];
        let outlet = Some(outlet);
        let mut link = Link { packet: Some(packet), outlet, binding: &self.binding, credit: 0, now };
        let clock = self.time_wait.unwrap_or(now);
        self.interface.poll_ingress_single(tcp_instant(clock), &mut link, &mut self.sockets);
        let state = self.sockets.get::<tcp::Socket<'_>>(self.handle).state();
        self.container.ended |= is_ended(state);
        if state == tcp::State::TimeWait {
            self.time_wait.get_or_insert(now);
        }
    }

    /// Passes bytes, ends and resets on, and sends what is due.
    pub(crate) fn work(&mut self, outlet: &mut Outlet<'_>, now: Instant) -> Fate {
        let passed = self.pass_on(now);
        if passed.is_err() {
            self.sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        }
        let starved = self.send(outlet, now);
        if passed.is_err() {
            return Fate::Broken;
        }
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let over = is_over(socket.state());
        if over && (!self.container.ended || socket.send_queue() > 0) {
            return Fate::Broken;
        }
        if over && self.client.ended && self.container.passed_on {
            return Fate::Ended;
        }
        let more = (self.readable && !self.client.ended && (over || socket.can_send()))
            || (self.writable && socket.can_recv())
            || (self.client.ended && !self.client.passed_on && may_end(socket))
            || (self.container.ended && !self.container.passed_on && !socket.can_recv());
        if more {
            return Fate::Waits(Some(now));
        }
        let clock = self.time_wait.unwrap_or(now);
        let at = self.interface.poll_at(tcp_instant(clock), &self.sockets).map(|at| instant(at, clock));
        // In TIME-WAIT a deadline is its end, which never comes.
        let at = at.filter(|at| self.time_wait.is_none_or(|since| *at <= since));
        Fate::Waits(if starved { at.map(|at| at.max(now + NO_SLOT)) } else { at })
    }

    /// Gives up: the container is sent a reset, and so is the client.
    pub(crate) fn abort(mut self, outlet: &mut Outlet<'_>, now: Instant) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        self.send(outlet, now);
        self.reset_client();
    }

    pub(crate) fn reset_client(self) {
        self.stream.reset();
    }

    /// Ends the client's connection, both of whose directions have ended. Gives back the socket.
    pub(crate) fn end_client(mut self) -> Option<tcp::Socket<'static>> {
        self.stream.close();
        if let Socket::Tcp(socket) = self.sockets.remove(self.handle) { Some(socket) } else { None }
    }

    /// Passes on what there is, in both directions.
    fn pass_on(&mut self, now: Instant) -> io::Result<()> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if !self.connected && socket.may_send() {
            self.connected = true;
            socket.set_keep_alive(Some(tcp_duration(KEEP_ALIVE)));
            socket.set_timeout(Some(tcp_duration(SILENCE_MAX)));
        }
        self.container.ended |= is_ended(socket.state());
        // A reset shows in a read; while nothing is read, it is asked for.
        if std::mem::take(&mut self.woken) && (self.client.ended || !socket.can_send()) {
            self.stream.failure()?;
        }
        for _ in 0..PIECES {
            if !(self.readable && !self.client.ended && socket.can_send()) {
                break;
            }
            match filled(socket, &self.stream)? {
                Passed::Some => self.active_at = now,
                Passed::None => self.readable = false,
                Passed::End => self.client.ended = true,
            }
        }
        if self.readable && !self.client.ended && is_over(socket.state()) && self.container.ended {
            // Nobody takes what the client says now; only its end is no loss.
            match passed(self.stream.read(&mut [0]))? {
                Passed::Some => return Err(ErrorKind::ConnectionReset.into()),
                Passed::None => self.readable = false,
                Passed::End => self.client.ended = true,
            }
        }
        if self.client.ended && !self.client.passed_on && may_end(socket) {
            self.client.passed_on = true;
            socket.close();
        }
        for _ in 0..PIECES {
            if !(self.writable && socket.can_recv()) {
                break;
            }
            match drained(socket, &self.stream)? {
                Passed::Some | Passed::End => self.active_at = now,
                Passed::None => self.writable = false,
            }
        }
        if self.container.ended && !self.container.passed_on && !socket.can_recv() {
            self.container.passed_on = true;
            self.stream.end()?;
        }
        Ok(())
    }

    /// Sends what is due, and says whether slots were missing.
    fn send(&mut self, outlet: &mut Outlet<'_>, now: Instant) -> bool {
        let outlet_of_link = Some(&mut *outlet);
        let binding = &self.binding;
        let mut link = Link { packet: None, outlet: outlet_of_link, binding, credit: PIECES, now };
        let mut left = PIECES;
        let clock = self.time_wait.unwrap_or(now);
        loop {
            self.interface.poll_egress(tcp_instant(clock), &mut link, &mut self.sockets);
            if link.credit == left || link.credit == 0 {
                break;
            }
            left = link.credit;
        }
        outlet.pool.available() == 0
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (client, container) = (self.client, self.container);
        f.debug_struct("Relay")
            .field("client", &client)
            .field("container", &container)
            .finish_non_exhaustive()
    }
}

/// The outcome of one attempt to pass bytes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// Some bytes.
    Some,
    /// None: it would block.
    None,
    /// The end.
    End,
}

/// Reads from the client into the send buffer, which has room.
fn filled(socket: &mut tcp::Socket<'_>, stream: &Stream) -> io::Result<Passed> {
    let read = socket.send(|room| {
        let read = stream.read(room);
        (*read.as_ref().unwrap_or(&0), read)
    });
    passed(read.unwrap_or(Err(ErrorKind::NotConnected.into())))
}

/// Writes to the client from the receive buffer, which is not empty.
fn drained(socket: &mut tcp::Socket<'_>, stream: &Stream) -> io::Result<Passed> {
    let written = socket.recv(|bytes| {
        let written = stream.write(bytes);
        (*written.as_ref().unwrap_or(&0), written)
    });
    passed(written.unwrap_or(Err(ErrorKind::NotConnected.into())))
}

fn passed(outcome: io::Result<usize>) -> io::Result<Passed> {
    match outcome {
        Ok(0) => Ok(Passed::End),
        Ok(_) => Ok(Passed::Some),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Passed::None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Passed::Some),
        Err(error) => Err(error),
    }
}

/// Whether the container has sent its end.
fn is_ended(state: tcp::State) -> bool {
    use tcp::State::{CloseWait, Closing, LastAck, TimeWait};
    matches!(state, CloseWait | Closing | LastAck | TimeWait)
}

/// Whether nothing more goes to the container or comes from it.
fn is_over(state: tcp::State) -> bool {
    matches!(state, tcp::State::Closed | tcp::State::TimeWait)
}

/// Whether the container can be told of the client's end: in LAST-ACK the stack is deaf.
fn may_end(socket: &tcp::Socket<'_>) -> bool {
    socket.state() != tcp::State::CloseWait || socket.send_queue() == 0
}

fn tcp_duration(duration: Duration) -> TcpDuration {
    TcpDuration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
