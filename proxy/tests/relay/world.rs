//! A proxy between real sockets of the host and a simulated container, on a clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use vswitch_frame::headers::{be16, ethertype};
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Frame, Instant, Mac, NetworkId, Pool};
use vswitch_proxy::{Binding, Limits, Proxy, Refused, Token};
use vswitch_sys::poll::Poller;
use vswitch_sys::stream::Stream;

pub(crate) const NETWORK: NetworkId = NetworkId(3);
pub(crate) const PORT: u16 = 80;
const STEPS_MAX: usize = 400_000;

pub(crate) fn binding(container: &str) -> Binding {
    let container: IpAddr = container.parse().expect("address");
    let gateway = if container.is_ipv4() { "172.17.0.1" } else { "fd00::1" };
    Binding {
        publication: 1,
        network: NETWORK,
        container: (container, PORT).into(),
        container_mac: Mac([2; 6]),
        gateway_mac: Mac([4; 6]),
        gateway: gateway.parse().expect("address"),
        prefix: 16,
        mtu: 1500,
        keeps_client: true,
    }
}

pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) pool: Pool,
    pub(crate) now: Instant,
    /// One stack for each connection, by what the container takes for the client.
    pub(crate) stacks: BTreeMap<SocketAddr, Stack>,
    /// Bytes of each buffer of the container's.
    pub(crate) window: usize,
    pub(crate) listens: bool,
    /// Says which of the frames to and from the container are lost (`None`) or late (steps).
    pub(crate) fate: Box<dyn FnMut() -> Option<usize>>,
    pub(crate) largest: usize,
    /// Packets of further connections, whose container a test plays itself.
    pub(crate) played: Option<Vec<Vec<u8>>>,
    late: BTreeMap<usize, Vec<(bool, Vec<u8>)>>,
    steps: usize,
    poller: Poller,
}

pub(crate) struct Stack {
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) handle: SocketHandle,
    queue: Queue,
}

impl Stack {
    fn new(local: SocketAddr, window: usize, seed: u64) -> Self {
        let mut queue = Queue::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queue, TcpInstant::from_micros(0));
        interface.update_ip_addrs(|all| all.push(IpCidr::new(local.ip().into(), 0)).expect("room"));
        let room = || tcp::SocketBuffer::new(vec![0; window]);
        let mut socket = tcp::Socket::new(room(), room());
        socket.set_ack_delay(None);
        socket.listen(local.port()).expect("listen");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self { interface, sockets, handle, queue }
    }

    pub(crate) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let socket = self.socket();
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), all.extend_from_slice(bytes))).expect("receive");
        }
        all
    }
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            proxy: Proxy::new(limits, 7),
            pool: Pool::new(512),
            now: Instant::from_nanos(1_000_000_000),
            stacks: BTreeMap::new(),
            window: 65_535,
            listens: true,
            fate: Box::new(|| Some(0)),
            largest: 0,
            played: None,
            late: BTreeMap::new(),
            steps: 0,
            poller: Poller::new().expect("epoll"),
        }
    }

    /// A client's connection, relayed.
    pub(crate) fn connect(&mut self, listener: &TcpListener, binding: Binding) -> (TcpStream, Token) {
        let (client, token) = self.try_connect(listener, binding);
        (client, token.expect("relayed"))
    }

    pub(crate) fn try_connect(
        &mut self,
        listener: &TcpListener,
        binding: Binding,
    ) -> (TcpStream, Result<Token, Refused>) {
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        client.set_nonblocking(true).expect("non-blocking");
        let (stream, address) = Stream::accept(listener.as_fd()).expect("accept");
        (client, self.accept(binding, stream, address))
    }

    /// Hands the proxy an accepted connection.
    pub(crate) fn accept(
        &mut self,
        binding: Binding,
        stream: Stream,
        client: SocketAddr,
    ) -> Result<Token, Refused> {
        let mut out = Vec::new();
        let token = self.proxy.tcp_accepted(binding, stream, client, &mut self.pool, &mut out, self.now);
        self.deliver(out);
        if let Ok(token) = token {
            self.wait_for(token);
        }
        token
    }

    pub(crate) fn wait_for(&mut self, token: Token) {
        let descriptor = self.proxy.descriptor(token).expect("there");
        let number = usize::try_from(token.0).expect("a number");
        self.poller.add_both_ways(descriptor, number).expect("wait");
    }

    /// Steps until `done` has an answer.
    pub(crate) fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..STEPS_MAX {
            if let Some(answer) = done(self) {
                return answer;
            }
            self.step();
        }
        panic!("never happened: {:?}", self.proxy.counts());
    }

    /// One turn of the proxy, a millisecond later, whose frames go on waiting.
    pub(crate) fn step_without_delivery(&mut self, out: &mut Vec<(NetworkId, Frame)>) {
        self.now = self.now + Duration::from_millis(1);
        self.steps += 1;
        let (proxy, now) = (&mut self.proxy, self.now);
        let ready = |number| {
            proxy.ready(Token(u64::try_from(number).expect("a number")), now);
        };
        self.poller.wait(Some(Duration::ZERO), ready).expect("epoll");
        self.proxy.work(&mut self.pool, out, now);
    }

    /// One turn of the proxy and one of the container, a millisecond later.
    pub(crate) fn step(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        self.step_without_delivery(&mut out);
        let datagrams = self.deliver(out);
        let steps = self.steps;
        while let Some(entry) = self.late.first_entry().filter(|entry| *entry.key() <= steps) {
            for (to_container, packet) in entry.remove() {
                if to_container {
                    self.arrives(packet);
                } else {
                    self.returns(&packet);
                }
            }
        }
        let all = self.stacks.len() < 100;
        let at = TcpInstant::from_micros(i64::try_from(self.now.as_nanos() / 1000).expect("a time"));
        let mut sent = Vec::new();
        for stack in self.stacks.values_mut().filter(|stack| all || !stack.queue.received.is_empty()) {
            stack.interface.poll(at, &mut stack.queue, &mut stack.sockets);
            sent.append(&mut stack.queue.sent);
        }
        sent.into_iter().for_each(|packet| self.later(false, packet));
        assert_eq!(self.pool.available(), self.pool.capacity(), "no slot is lost");
        datagrams
    }

    /// Splits and finishes frames for the container. Answers those of UDP.
    fn deliver(&mut self, out: Vec<(NetworkId, Frame)>) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        for (network, frame) in out {
            assert_eq!((network, frame.destination(), frame.source()), (NETWORK, Mac([2; 6]), Mac([4; 6])));
            self.largest = self.largest.max(frame.len());
            let mut pieces = Vec::new();
            let mut splitter = Splitter::new(&frame, Accepts::NONE);
            while splitter.next_batch(&mut self.pool, &mut pieces).expect("slots") {
                for piece in pieces.drain(..) {
                    assert!(piece.mtu_bytes() <= 1500, "fits into the MTU");
                    let packet = piece.bytes()[14..].to_vec();
                    self.pool.free(piece);
                    self.sort(packet, &mut datagrams);
                }
            }
            for piece in pieces.drain(..) {
                let packet = piece.bytes()[14..].to_vec();
                self.pool.free(piece);
                self.sort(packet, &mut datagrams);
            }
            self.pool.free(frame);
        }
        datagrams
    }

    fn sort(&mut self, packet: Vec<u8>, datagrams: &mut Vec<Vec<u8>>) {
        let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
        if matches!(protocol, 17 | 44) { datagrams.push(packet) } else { self.later(true, packet) }
    }

    fn later(&mut self, to_container: bool, packet: Vec<u8>) {
        if let Some(steps) = (self.fate)() {
            self.late.entry(self.steps + steps).or_default().push((to_container, packet));
        }
    }

    fn arrives(&mut self, packet: Vec<u8>) {
        let (from, to, flags) = ends(&packet);
        if let Some(played) = self.played.as_mut().filter(|_| !self.stacks.contains_key(&from)) {
            return played.push(packet);
        }
        const SYN: u8 = 2;
        if flags & SYN != 0 && self.listens && !self.stacks.contains_key(&from) {
            self.stacks.insert(from, Stack::new(to, self.window, u64::from(from.port())));
        }
        match self.stacks.get_mut(&from) {
            Some(stack) => stack.queue.received.push_back(packet),
            None if flags & SYN != 0 => {
                // A stack without the socket answers with a reset.
                let mut stack = Stack::new(to, 1024, 1);
                stack.socket().abort();
                stack.queue.received.push_back(packet);
                stack.interface.poll(TcpInstant::from_micros(0), &mut stack.queue, &mut stack.sockets);
                for packet in stack.queue.sent {
                    self.returns(&packet);
                }
            }
            None => {}
        }
    }

    /// Hands the proxy a packet of the container's.
    pub(crate) fn returns(&mut self, packet: &[u8]) -> bool {
        let ether_type = if packet[0] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 };
        let mut bytes = vec![4; 6];
        bytes.extend([2; 6]);
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet);
        self.returns_frame(&bytes)
    }

    pub(crate) fn returns_frame(&mut self, bytes: &[u8]) -> bool {
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        let mut out = Vec::new();
        let parsed = frame.parse().is_ok();
        let taken = parsed && self.proxy.from_container(NETWORK, &frame, &mut self.pool, &mut out, self.now);
        self.pool.free(frame);
        self.deliver(out);
        taken
    }
}

fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr, u8) {
    let (from, to, transport): (IpAddr, IpAddr, usize) = if packet[0] >> 4 == 4 {
        let four = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes").into();
        (four(12), four(16), 20)
    } else {
        let six = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes").into();
        (six(8), six(24), 40)
    };
    let port = |at| be16(packet, transport + at);
    ((from, port(0)).into(), (to, port(2)).into(), packet.get(transport + 13).copied().unwrap_or(0))
}

#[derive(Default)]
struct Queue {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Packet(Vec<u8>);
struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Queue {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: TcpInstant) -> Option<(Packet, Sent<'_>)> {
        Some((Packet(self.received.pop_front()?), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: TcpInstant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, 1500);
        capabilities
    }
}

impl RxToken for Packet {
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
