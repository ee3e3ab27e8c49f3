//! Questions as frames, over UDP and TCP, against a switch that knows one name.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use simple_dns::{CLASS, Name, Packet, QTYPE, Question, RCODE, TYPE};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};
use vswitch_contract::names::NUMBER_BYTES;
use vswitch_engine::{Endpoint, Limits, Network, Port, Station};
use vswitch_frame::headers::ethertype;
use vswitch_frame::{Checksum, Gso, GsoKind, Mac, NetworkId, Offload};
use vswitch_sys::seqpacket::Channel;

use super::stream::{Queue, tcp_instant};
use super::*;

const WEB: PortId = PortId(1);
const DB: PortId = PortId(2);
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SLOTS: usize = 128;

struct Bench {
    switch: Switch,
    resolver: Resolver,
    control: Channel,
    pool: Pool,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let mut switch = Switch::new(Limits::default(), 7);
        let network = Network { name: "lan".to_owned(), resolves: true, ..Network::default() };
        switch.add_network(NetworkId(1), network).expect("a network");
        for (sandbox, (id, name)) in (1..).zip([(WEB, "web"), (DB, "db")]) {
            let endpoint = Endpoint {
                sandbox,
                addresses: vec![format!("10.0.0.{}/24", sandbox + 1).parse().expect("a subnet")],
                names: vec![name.to_owned()],
                ..Endpoint::default()
            };
            let station = Station::Container(endpoint);
            let port = Port { network: NetworkId(1), mtu: 1500, station, ..Port::default() };
            switch.add_port(id, port).expect("a port");
        }
        let (control, channel) = Channel::pair().expect("a pair");
        let mut resolver = Resolver::new(7);
        resolver.set_upstream(channel.into());
        Self { switch, resolver, control, pool: Pool::new(SLOTS), now: Instant::from_nanos(1) }
    }

    /// Hands over a frame from WEB; returns why it was dropped, and the answers.
    fn take(&mut self, frame: Frame) -> (Option<DropReason>, Vec<Vec<u8>>) {
        let mut verdicts = Verdicts { names: vec![frame], ..Verdicts::default() };
        let origin = Origin { switch: &self.switch, ingress: WEB, now: self.now };
        let made = self.resolver.serve(origin, &mut verdicts, &mut self.pool);
        assert_eq!(verdicts.len(), 1 + made);
        let dropped = verdicts.drop.pop().map(|(reason, port, frame)| {
            assert_eq!(port, WEB);
            self.pool.free(frame);
            reason
        });
        (dropped, self.free(verdicts.forward))
    }

    /// The frames sent at the end of a turn.
    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut forward = Vec::new();
        self.resolver.poll(&self.switch, &mut self.pool, &mut forward, self.now);
        self.free(forward)
    }

    fn free(&mut self, frames: Vec<(PortId, Frame)>) -> Vec<Vec<u8>> {
        let bytes = frames.into_iter().map(|(port, frame)| {
            assert_eq!(port, WEB);
            assert_eq!((frame.destination(), frame.source()), (CLIENT_MAC, GATEWAY_MAC));
            let bytes = frame.bytes().to_vec();
            self.pool.free(frame);
            bytes
        });
        let bytes = bytes.collect();
        assert_eq!(self.pool.available(), SLOTS);
        bytes
    }

    /// A datagram to port 53.
    fn datagram(&mut self, message: &[u8]) -> Frame {
        let asked = Asked {
            client_mac: GATEWAY_MAC,
            gateway_mac: CLIENT_MAC,
            client: [10, 0, 0, 1].into(),
            gateway: [10, 0, 0, 2].into(),
            client_port: 53,
        };
        let mut frame = self.pool.take().expect("a slot");
        asked.answer(message, &mut Vec::new(), &mut frame);
        frame
    }

    fn asked_control(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let (length, _) = self.control.receive(&mut buffer).expect("open")?;
        buffer.truncate(length);
        Some(buffer)
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a message")
}

fn told(message: &[u8]) -> (RCODE, usize) {
    let packet = Packet::parse(message).expect("an answer");
    (packet.rcode(), packet.answers.len())
}

/// The payload of a UDP frame without VLAN tag over IPv4.
fn payload(frame: &[u8]) -> &[u8] {
    &frame[42..]
}

#[test]
fn a_datagram_is_answered_at_once() {
    let mut bench = Bench::new();
    let frame = bench.datagram(&question("db"));
    let (dropped, answers) = bench.take(frame);
    assert_eq!(dropped, None);
    assert_eq!(answers.iter().map(|frame| told(payload(frame))).collect::<Vec<_>>(), [(RCODE::NoError, 1)]);
    assert_eq!(bench.asked_control(), None);
    let frame = bench.datagram(b"nothing");
    assert_eq!(bench.take(frame), (Some(DropReason::Consumed), Vec::new()));
}

#[test]
fn every_datagram_of_a_super_frame_is_answered() {
    let mut bench = Bench::new();
    let size = question("db").len();
    let mut frame = bench.datagram(&question("db").repeat(3));
    let gso =
        Gso { kind: GsoKind::Udp, size: u16::try_from(size).expect("short"), ecn: false, same_id: false };
    frame.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Some(gso) };
    frame.parse().expect("well-formed");
    let (dropped, answers) = bench.take(frame);
    assert_eq!(dropped, Some(DropReason::Consumed));
    assert_eq!(
        answers.iter().map(|frame| told(payload(frame))).collect::<Vec<_>>(),
        [(RCODE::NoError, 1); 3]
    );
}

#[test]
fn what_control_answers_goes_to_who_asked() {
    let mut bench = Bench::new();
    let frame = bench.datagram(&question("example.com"));
    assert_eq!(bench.take(frame), (Some(DropReason::Consumed), Vec::new()));
    let mut asked = bench.asked_control().expect("a question");
    assert_eq!(asked[NUMBER_BYTES..], question("example.com"));
    asked[NUMBER_BYTES + 2] |= 0x80;
    bench.control.send(&asked, &[]).expect("sent");
    bench.resolver.set_ready();
    let answers = bench.poll();
    assert_eq!(answers.len(), 1);
    assert_eq!(payload(&answers[0]), &asked[NUMBER_BYTES..]);
}

#[test]
fn what_control_does_not_answer_fails_in_time() {
    let mut bench = Bench::new();
    let frame = bench.datagram(&question("example.com"));
    bench.take(frame);
    bench.poll();
    let at = bench.resolver.poll_at().expect("a deadline");
    assert_eq!(at, bench.now + upstream::DEADLINE);
    bench.now = at;
    let answers = bench.poll();
    assert_eq!(told(payload(&answers[0])), (RCODE::ServerFailure, 0));
    assert_eq!(bench.resolver.poll_at(), None);
}

#[test]
fn a_port_that_went_gets_no_answer() {
    let mut bench = Bench::new();
    let frame = bench.datagram(&question("example.com"));
    bench.take(frame);
    bench.resolver.forget_port(WEB);
    bench.now = bench.now + upstream::DEADLINE;
    assert!(bench.poll().is_empty());
}

/// A TCP stack like that of a container.
struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    queue: Queue,
}

impl Client {
    fn new(now: Instant) -> Self {
        let mut queue = Queue { received: VecDeque::new(), sent: Vec::new(), mtu: 1500 };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut queue, tcp_instant(now));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddr::from([10, 0, 0, 2]).into(), 24)).expect("room");
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), queue }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 8192]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let gateway = (IpAddr::from([10, 0, 0, 1]), 53);
        socket.connect(self.interface.context(), gateway, port).expect("a free port");
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets frames go to and fro until nobody has anything to say.
    fn settle(&mut self, bench: &mut Bench) {
        for _ in 0..100 {
            self.interface.poll(tcp_instant(bench.now), &mut self.queue, &mut self.sockets);
            for packet in std::mem::take(&mut self.queue.sent) {
                let ether_type = ethertype::IPV4.to_be_bytes();
                let frame = [&GATEWAY_MAC.0[..], &CLIENT_MAC.0, &ether_type, &packet].concat();
                let mut slot = bench.pool.take().expect("a slot");
                slot.fill(&frame);
                slot.parse().expect("well-formed");
                assert_eq!(bench.take(slot), (Some(DropReason::Consumed), Vec::new()));
            }
            let frames = bench.poll();
            if frames.is_empty() && self.queue.sent.is_empty() {
                return;
            }
            self.queue.received.extend(frames.into_iter().map(|frame| frame[14..].to_vec()));
        }
        panic!("they never stop");
    }

    /// Whole answers that were received.
    fn answers(&mut self, handle: SocketHandle) -> Vec<(RCODE, usize)> {
        let mut bytes = vec![0; 8192];
        let length = self.socket(handle).recv_slice(&mut bytes).unwrap_or(0);
        let (mut rest, mut answers) = (&bytes[..length], Vec::new());
        while let [high, low, after @ ..] = rest {
            let (message, after) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            answers.push(told(message));
            rest = after;
        }
        answers
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes(), message].concat()
}

#[test]
fn a_stream_takes_several_questions_at_once() {
    let mut bench = Bench::new();
    let mut client = Client::new(bench.now);
    let handle = client.connect(4000);
    client.settle(&mut bench);
    let questions = [framed(&question("db")), framed(&question("example.com")), framed(&question("web"))];
    let bytes = questions.concat();
    // In two pieces, the first of which ends within a length.
    let (first, second) = bytes.split_at(questions[0].len() + 1);
    for piece in [first, second] {
        client.socket(handle).send_slice(piece).expect("room");
        client.settle(&mut bench);
    }
    assert_eq!(client.answers(handle), [(RCODE::NoError, 1), (RCODE::NoError, 1)]);
    let mut asked = bench.asked_control().expect("a question");
    asked[NUMBER_BYTES + 2] |= 0x80;
    bench.control.send(&asked, &[]).expect("sent");
    bench.resolver.set_ready();
    client.settle(&mut bench);
    assert_eq!(client.answers(handle), [(RCODE::NoError, 0)]);
    client.socket(handle).close();
    client.settle(&mut bench);
    assert_eq!(bench.resolver.poll_at(), None, "nothing is left of a closed connection");
}

#[test]
fn connections_have_limits() {
    let mut bench = Bench::new();
    let mut client = Client::new(bench.now);
    let handles: Vec<SocketHandle> = (4000..4020).map(|port| client.connect(port)).collect();
    client.settle(&mut bench);
    let open = |client: &mut Client| {
        handles.iter().filter(|handle| client.socket(**handle).state() == tcp::State::Established).count()
    };
    assert_eq!(open(&mut client), 16);
    // A question longer than any.
    client.socket(handles[0]).send_slice(&[0xff; 100]).expect("room");
    client.settle(&mut bench);
    assert_eq!(open(&mut client), 15);
    // Silence.
    bench.now = bench.now + Duration::from_secs(10);
    assert!(bench.resolver.poll_at().is_some_and(|at| at <= bench.now));
    client.settle(&mut bench);
    client.settle(&mut bench);
    assert_eq!(open(&mut client), 0);
    assert_eq!(bench.resolver.poll_at(), None);
}

#[test]
fn the_oldest_connection_of_a_port_makes_room_for_its_newest() {
    let mut bench = Bench::new();
    let mut client = Client::new(bench.now);
    let mut handles = Vec::new();
    for port in 4000..4020 {
        handles.push(client.connect(port));
        client.settle(&mut bench);
    }
    let states = handles.iter().map(|handle| client.socket(*handle).state() == tcp::State::Established);
    let open: Vec<bool> = states.collect();
    assert_eq!(open, [[false; 4].as_slice(), &[true; 16]].concat());
}

#[test]
fn a_message_that_is_no_question_ends_its_connection() {
    let mut bench = Bench::new();
    let mut client = Client::new(bench.now);
    let handle = client.connect(4000);
    client.settle(&mut bench);
    client.socket(handle).send_slice(&framed(&question("db")[..9])).expect("room");
    client.settle(&mut bench);
    client.settle(&mut bench);
    assert_eq!(client.socket(handle).state(), tcp::State::Closed);
    assert_eq!(bench.resolver.poll_at(), None);
}

#[test]
fn a_question_that_never_ends_is_not_waited_for() {
    let mut bench = Bench::new();
    let mut client = Client::new(bench.now);
    let handle = client.connect(4000);
    client.settle(&mut bench);
    for byte in framed(&question("db")).into_iter().take(6) {
        client.socket(handle).send_slice(&[byte]).unwrap_or(0);
        client.settle(&mut bench);
        bench.now = bench.now + Duration::from_secs(3);
        client.settle(&mut bench);
    }
    assert_eq!(client.socket(handle).state(), tcp::State::Closed);
    assert_eq!(bench.resolver.poll_at(), None);
}

#[test]
fn a_port_that_asks_much_leaves_connections_to_others() {
    let mut streams = stream::Streams::new(7);
    let bench = Bench::new();
    let mut pool = Pool::new(SLOTS);
    let now = bench.now;
    let mut begin = |port: u16, from: u16| {
        let mut client = Client::new(now);
        client.connect(from);
        client.interface.poll(tcp_instant(now), &mut client.queue, &mut client.sockets);
        let packet = client.queue.sent.pop().expect("its first segment");
        let mut frame = pool.take().expect("a slot");
        frame.fill(&[&GATEWAY_MAC.0[..], &CLIENT_MAC.0, &ethertype::IPV4.to_be_bytes(), &packet].concat());
        frame.parse().expect("well-formed");
        let origin = Origin { switch: &bench.switch, ingress: PortId(port), now };
        streams.take(origin, &frame).expect("taken");
        pool.free(frame);
        let mut forward = Vec::new();
        streams.receive(now, &mut Vec::new());
        streams.send(now, &mut pool, &mut Vec::new(), &mut forward);
        // A SYN with an ACK, or a reset.
        const SYN: u8 = 0x02;
        let answers = forward.into_iter().map(|(to, frame)| {
            let accepted = to == PortId(port) && frame.bytes()[47] & SYN != 0;
            pool.free(frame);
            accepted
        });
        answers.fold(false, |any, accepted| any | accepted)
    };
    for port in 0..4 {
        assert!((4000..4016).all(|from| begin(port, from)));
    }
    assert!((4..20).all(|port| begin(port, 4000)), "each finds room");
}
