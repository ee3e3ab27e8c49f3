//! A host with two networks and an uplink, and packets as people write them down. etherparse makes every
//! packet and checks every checksum.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{
    Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TcpOptionElement, TransportHeader,
};
use vswitch_frame::{DropReason, Frame, Instant, NetworkId, Offload, Pool, PortId};
use vswitch_nat::{
    Binding, Destination, Inside, Leaving, Limits, Nat, Protocol, Realm, Record, Uplink, Verdicts, too_big,
};

pub(crate) const LAN: NetworkId = NetworkId(1);
pub(crate) const DMZ: NetworkId = NetworkId(2);
/// The port of the uplink; containers' ports have the number of their network.
pub(crate) const UPLINK: PortId = PortId(9);
pub(crate) const HOST_4: &str = "192.0.2.1";
pub(crate) const HOST_6: &str = "2001:db8::1";
pub(crate) const SLOTS: usize = 12;

/// The content of a packet, apart from where it comes from and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    /// Flags, sequence and acknowledgement number.
    Tcp(&'static str, u32, u32),
    /// An echo request; its identifier is the source port.
    Request,
    /// An echo reply; its identifier is the target port.
    Reply,
    /// An ICMP error of this type and code; what it quotes is the payload.
    Error(u8, u8),
}

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

/// An address with a port, which is zero where there is none.
pub(crate) fn end(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(ip(text), 0))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn packet(kind: Kind, source: &str, target: &str) -> Packet {
    Packet { kind, source: end(source), target: end(target), payload: b"payload".to_vec() }
}

pub(crate) fn udp(source: &str, target: &str) -> Packet {
    packet(Kind::Udp, source, target)
}

/// A segment without payload.
/// An ICMP error about a packet.
pub(crate) fn error(kind: u8, code: u8, source: &str, target: &str, about: &Packet) -> Packet {
    Packet { payload: about.quote(), ..packet(Kind::Error(kind, code), source, target) }
}

pub(crate) fn tcp(source: &str, target: &str, flags: &'static str, sequence: u32, ack: u32) -> Packet {
    Packet { payload: Vec::new(), ..packet(Kind::Tcp(flags, sequence, ack), source, target) }
}

pub(crate) fn syn(source: &str, target: &str) -> Packet {
    tcp(source, target, "S", 100, 0)
}

impl Packet {
    /// The packet that answers.
    pub(crate) fn reply(&self) -> Self {
        let kind = match self.kind {
            Kind::Request => Kind::Reply,
            Kind::Reply => Kind::Request,
            Kind::Tcp("S", sequence, _) => Kind::Tcp("SA", 500, sequence + 1),
            kind @ (Kind::Udp | Kind::Tcp(..) | Kind::Error(..)) => kind,
        };
        Self { kind, source: self.target, target: self.source, payload: self.payload.clone() }
    }

    /// This packet between other ends.
    pub(crate) fn between(&self, source: &str, target: &str) -> Self {
        Self { source: end(source), target: end(target), ..self.clone() }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = match (self.source.ip(), self.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => builder.ipv4(source.octets(), target.octets(), 64),
            (IpAddr::V6(source), IpAddr::V6(target)) => builder.ipv6(source.octets(), target.octets(), 64),
            _ => panic!("two families: {self:?}"),
        };
        let (source, target) = (self.source.port(), self.target.port());
        let (v4, payload) = (self.source.is_ipv4(), &self.payload);
        let mut frame = Vec::new();
        let written = match self.kind {
            Kind::Udp => builder.udp(source, target).write(&mut frame, payload),
            Kind::Tcp(flags, sequence, ack) => {
                let mut builder = builder.tcp(source, target, sequence, 1000);
                for flag in flags.chars() {
                    builder = match flag {
                        'S' => builder
                            .syn()
                            .options(&[TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(9000)])
                            .expect("options"),
                        'F' => builder.fin(),
                        'R' => builder.rst(),
                        'P' => builder.psh(),
                        'A' => builder.ack(ack),
                        _ => panic!("no such flag: {flag}"),
                    };
                }
                builder.write(&mut frame, payload)
            }
            Kind::Request if v4 => builder.icmpv4_echo_request(source, 1).write(&mut frame, payload),
            Kind::Request => builder.icmpv6_echo_request(source, 1).write(&mut frame, payload),
            Kind::Reply if v4 => builder.icmpv4_echo_reply(target, 1).write(&mut frame, payload),
            Kind::Reply => builder.icmpv6_echo_reply(target, 1).write(&mut frame, payload),
            Kind::Error(kind, code) if v4 => {
                builder.icmpv4_raw(kind, code, [0; 4]).write(&mut frame, payload)
            }
            Kind::Error(kind, code) => builder.icmpv6_raw(kind, code, [0; 4]).write(&mut frame, payload),
        };
        written.expect("a packet");
        frame
    }

    /// The IP packet, as an ICMP error quotes it.
    pub(crate) fn quote(&self) -> Vec<u8> {
        self.frame()[14..].to_vec()
    }

    /// Reads a frame, whose checksums must be right.
    pub(crate) fn read(frame: &[u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).expect("a frame");
        let payload = headers.payload.slice();
        let mut transport = headers.transport.clone().expect("a transport");
        let (source, target) = match headers.net.expect("an IP packet") {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header checksum");
                transport.update_checksum_ipv4(&ip, payload).expect("lengths");
                (IpAddr::from(ip.source), IpAddr::from(ip.destination))
            }
            NetHeaders::Ipv6(ip, _) => {
                transport.update_checksum_ipv6(&ip, payload).expect("lengths");
                (IpAddr::from(ip.source), IpAddr::from(ip.destination))
            }
            other => panic!("not IP: {other:?}"),
        };
        let given = headers.transport.expect("a transport");
        let none = matches!(&given, TransportHeader::Udp(udp) if udp.checksum == 0);
        assert!(none || given == transport, "checksum: {given:?} should be {transport:?}");
        let (kind, ports) = kind(&given);
        Self {
            kind,
            source: SocketAddr::new(source, ports.0),
            target: SocketAddr::new(target, ports.1),
            payload: payload.to_vec(),
        }
    }

    /// The ends of the packet that an ICMP error quotes, of which only eight bytes of transport are read.
    pub(crate) fn quoted(&self) -> (SocketAddr, SocketAddr) {
        assert!(matches!(self.kind, Kind::Error(..)), "{self:?}");
        let bytes = &self.payload;
        let v4 = bytes[0] >> 4 == 4;
        let (source, target, at) = if v4 { (12, 16, 20) } else { (8, 24, 40) };
        let address = |at: usize| -> IpAddr {
            if v4 {
                let bytes: [u8; 4] = bytes[at..at + 4].try_into().expect("an address");
                bytes.into()
            } else {
                let bytes: [u8; 16] = bytes[at..at + 16].try_into().expect("an address");
                bytes.into()
            }
        };
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let ports = match bytes[at] {
            8 | 128 if bytes[if v4 { 9 } else { 6 }] != 17 => (word(at + 4), 0),
            _ => (word(at), word(at + 2)),
        };
        (SocketAddr::new(address(source), ports.0), SocketAddr::new(address(target), ports.1))
    }
}

fn kind(transport: &TransportHeader) -> (Kind, (u16, u16)) {
    match transport {
        TransportHeader::Udp(udp) => (Kind::Udp, (udp.source_port, udp.destination_port)),
        TransportHeader::Tcp(tcp) => {
            let flags = match (tcp.syn, tcp.ack, tcp.fin, tcp.rst) {
                (true, false, false, false) => "S",
                (true, true, false, false) => "SA",
                (false, true, false, false) => "A",
                (false, true, true, false) => "FA",
                (false, false, false, true) => "R",
                (false, true, false, true) => "RA",
                other => panic!("flags {other:?}"),
            };
            let kind = Kind::Tcp(flags, tcp.sequence_number, tcp.acknowledgment_number);
            (kind, (tcp.source_port, tcp.destination_port))
        }
        TransportHeader::Icmpv4(icmp) => {
            if let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type {
                (Kind::Request, (echo.id, 0))
            } else if let Icmpv4Type::EchoReply(echo) = icmp.icmp_type {
                (Kind::Reply, (0, echo.id))
            } else {
                (Kind::Error(icmp.to_bytes()[0], icmp.to_bytes()[1]), (0, 0))
            }
        }
        TransportHeader::Icmpv6(icmp) => {
            if let Icmpv6Type::EchoRequest(echo) = icmp.icmp_type {
                (Kind::Request, (echo.id, 0))
            } else if let Icmpv6Type::EchoReply(echo) = icmp.icmp_type {
                (Kind::Reply, (0, echo.id))
            } else {
                (Kind::Error(icmp.to_bytes()[0], icmp.to_bytes()[1]), (0, 0))
            }
        }
        other => panic!("transport {other:?}"),
    }
}

/// Where a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Outside,
    Inside(NetworkId),
    Host,
    Plain,
    Answered(DropReason),
    Dropped(DropReason),
}

/// A frame that came out.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) fate: Fate,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

impl Out {
    pub(crate) fn packet(&self) -> Packet {
        Packet::read(&self.bytes)
    }
}

thread_local! {
    /// A pool lives as long as the process, so the tests of a thread share one.
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// The host.
pub(crate) struct World {
    pub(crate) nat: Nat,
    pub(crate) now: Instant,
    pub(crate) leaving: Leaving,
    /// The address containers leave with.
    pub(crate) address: Option<IpAddr>,
    pool: Option<Pool>,
    limits: Limits,
    /// Flows as they are written down.
    records: BTreeMap<u32, Record>,
}

/// A translator that was told what all are told.
fn told(limits: Limits) -> Nat {
    let mut nat = Nat::new(limits, 7);
    nat.note_changes();
    nat.set_uplink(Uplink {
        v4: Some(HOST_4.parse().expect("IPv4")),
        v6: Some(HOST_6.parse().expect("IPv6")),
        host: vec![ip("192.0.2.2"), ip("10.1.0.1"), ip("10.2.0.1"), ip("fd01::1")],
        mtu: 1500,
        mtus: [].into(),
    });
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for address in [HOST_4, HOST_6] {
            nat.grant(protocol, ip(address), 40_000..40_064);
        }
    }
    nat
}

/// Takes all claims back.
pub(crate) fn without_claims(nat: &mut Nat) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for address in [HOST_4, HOST_6] {
            nat.set_claims(protocol, ip(address), &[]);
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    /// Few flows, so that tables are small.
    pub(crate) fn limits() -> Limits {
        Limits { flows: 1000, ..Limits::default() }
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let limits = Limits { flows: limits.flows.min(1000), ..limits };
        let nat = told(limits);
        let pool = POOL.take().filter(|pool| pool.available() == pool.capacity());
        let pool = Some(pool.unwrap_or_else(|| Pool::new(SLOTS)));
        let (now, leaving, records) = (Instant::from_nanos(1 << 40), Leaving::Masqueraded, BTreeMap::new());
        Self { nat, now, leaving, address: None, pool, limits, records }
    }

    /// Puts another translator in place of this one, told the same and more, which goes on with its flows.
    /// Everybody is there but 10.1.0.99.
    pub(crate) fn restart(&mut self, tell: impl FnOnce(&mut Nat)) {
        self.write_down();
        self.nat = told(self.limits);
        tell(&mut self.nat);
        let owner = |network: NetworkId, address: IpAddr| {
            (address != ip("10.1.0.99")).then_some(u32::from(network.0))
        };
        let records = self.records.clone();
        let words = |record: &Record| Record::from_words(*record.words());
        let read = records.iter().map(|(number, record)| (*number, words(record)));
        let kept = self.nat.restore(read, self.now, &owner);
        assert_eq!(kept, self.flows());
        self.write_down();
        assert_eq!(self.records.len(), self.flows(), "what has ended is written down");
    }

    fn write_down(&mut self) {
        self.nat.take_changes(|number, record| {
            match record {
                Some(record) => self.records.insert(number, record),
                None => self.records.remove(&number),
            };
        });
        assert!(!self.nat.has_changes());
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("a pool")
    }

    fn load(&mut self, bytes: &[u8], offload: Offload) -> Result<Frame, DropReason> {
        let mut frame = self.pool().take().expect("a slot");
        frame.fill(bytes);
        frame.offload = offload;
        match frame.parse() {
            Ok(()) => Ok(frame),
            Err(reason) => {
                self.pool().free(frame);
                Err(reason)
            }
        }
    }

    /// A frame from a container.
    pub(crate) fn outbound(&mut self, network: NetworkId, bytes: &[u8], offload: Offload) -> Vec<Out> {
        let from = Inside {
            port: PortId(network.0),
            network,
            sandbox: u32::from(network.0),
            leaving: self.leaving,
            address: self.address,
        };
        let (now, mut verdicts) = (self.now, Verdicts::default());
        match self.load(bytes, offload) {
            Ok(frame) => self.nat.outbound(frame, from, now, &mut verdicts),
            Err(reason) => return refused(reason),
        }
        self.settle(verdicts)
    }

    /// A frame from the uplink.
    pub(crate) fn inbound(&mut self, bytes: &[u8], offload: Offload) -> Vec<Out> {
        let (now, mut verdicts) = (self.now, Verdicts::default());
        match self.load(bytes, offload) {
            Ok(frame) => self.nat.inbound(frame, UPLINK, now, &mut verdicts),
            Err(reason) => return refused(reason),
        }
        self.settle(verdicts)
    }

    /// Collects the frames, whose slots go back: none is lost but those that wait.
    fn settle(&mut self, verdicts: Verdicts) -> Vec<Out> {
        let mut out = Vec::new();
        let mut take = |fate: Fate, frame: Frame| {
            out.push(Out { fate, bytes: frame.bytes().to_vec(), offload: frame.offload });
            self.pool.as_mut().expect("a pool").free(frame);
        };
        let Verdicts { outside, inside, host, plain, answered, dropped, made } = verdicts;
        outside.into_iter().for_each(|(_, frame)| take(Fate::Outside, frame));
        inside.into_iter().for_each(|(_, network, frame)| take(Fate::Inside(network), frame));
        host.into_iter().for_each(|(_, frame)| take(Fate::Host, frame));
        plain.into_iter().for_each(|(_, frame)| take(Fate::Plain, frame));
        answered.into_iter().for_each(|(_, reason, frame)| take(Fate::Answered(reason), frame));
        dropped.into_iter().for_each(|(_, reason, frame)| take(Fate::Dropped(reason), frame));
        let fate = |realm: Realm| realm.inside().map_or(Fate::Outside, Fate::Inside);
        made.into_iter().for_each(|(realm, frame)| take(fate(realm), frame));
        let waiting = self.nat.stats().fragments_waiting;
        let pool = self.pool();
        assert_eq!(pool.available() + waiting, pool.capacity(), "slots are conserved");
        out
    }

    /// One whole packet from a network, and the one thing that becomes of it.
    pub(crate) fn out_of(&mut self, network: NetworkId, packet: &Packet) -> Out {
        let mut outs = self.outbound(network, &packet.frame(), Offload::NONE);
        assert_eq!(outs.len(), 1, "{outs:?}");
        outs.remove(0)
    }

    pub(crate) fn out(&mut self, packet: &Packet) -> Out {
        self.out_of(LAN, packet)
    }

    /// One whole packet from the uplink, and the one thing that becomes of it.
    pub(crate) fn inn(&mut self, packet: &Packet) -> Out {
        let mut outs = self.inbound(&packet.frame(), Offload::NONE);
        assert_eq!(outs.len(), 1, "{outs:?}");
        outs.remove(0)
    }

    /// A packet from the first network that must leave.
    pub(crate) fn leaves(&mut self, packet: &Packet) -> Packet {
        let out = self.out(packet);
        assert_eq!(out.fate, Fate::Outside, "{packet:?}");
        out.packet()
    }

    /// A packet from the uplink that must reach the first network.
    pub(crate) fn enters(&mut self, packet: &Packet) -> Packet {
        let out = self.inn(packet);
        assert_eq!(out.fate, Fate::Inside(LAN), "{packet:?}");
        out.packet()
    }

    /// Packets that the passing of time has made.
    pub(crate) fn poll(&mut self) -> Vec<Out> {
        let (now, mut verdicts) = (self.now, Verdicts::default());
        let mut pool = self.pool.take().expect("a pool");
        self.nat.poll(now, &mut pool, &mut verdicts);
        self.pool = Some(pool);
        self.settle(verdicts)
    }

    /// Where a packet leads, asked and not sent.
    pub(crate) fn destination(&mut self, realm: Realm, packet: &Packet) -> Option<Destination> {
        let before = self.nat.stats();
        let frame = self.load(&packet.frame(), Offload::NONE).expect("a good frame");
        let destination = self.nat.destination(&frame, realm);
        self.pool().free(frame);
        assert_eq!(self.nat.stats(), before, "nothing is changed by asking");
        destination
    }

    /// Whether a packet from a network is of a flow, asked and not sent.
    pub(crate) fn has_flow_of(&mut self, network: NetworkId, packet: &Packet) -> bool {
        let frame = self.load(&packet.frame(), Offload::NONE).expect("a good frame");
        let has = self.nat.has_flow_of(&frame, network);
        self.pool().free(frame);
        has
    }

    /// The fragments of a packet that is too large.
    pub(crate) fn fragment(&mut self, bytes: &[u8], offload: Offload, mtu: u16) -> Vec<Vec<u8>> {
        let frame = self.load(bytes, offload).expect("a good frame");
        let mut fragments = Vec::new();
        too_big::fragment(frame, mtu, self.pool(), &mut fragments).expect("may be fragmented");
        let copies = fragments.iter().map(|frame| frame.bytes().to_vec()).collect();
        fragments.into_iter().for_each(|frame| self.pool().free(frame));
        copies
    }

    /// A container of the first network is gone; all others, which share its sandbox here, are still there.
    pub(crate) fn forget(&mut self, address: &str) {
        let others = (0..=255).map(|last| ip(&format!("10.1.0.{last}")));
        let others: Vec<IpAddr> = others.filter(|other| *other != ip(address)).collect();
        self.nat.forget(LAN, u32::from(LAN.0), &[ip(address)], &others);
    }

    pub(crate) fn flows(&self) -> usize {
        self.nat.stats().flows
    }

    /// Opens a connection from inside, handshake and all; returns the SYN as it left.
    pub(crate) fn connect(&mut self, source: &str, target: &str) -> Packet {
        let left = self.leaves(&syn(source, target));
        self.enters(&left.reply());
        self.leaves(&tcp(source, target, "A", 101, 501));
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        POOL.set(self.pool.take());
    }
}

fn refused(reason: DropReason) -> Vec<Out> {
    vec![Out { fate: Fate::Dropped(reason), bytes: Vec::new(), offload: Offload::NONE }]
}

/// A published port of the first network: the host's port 8080 leads to 10.1.0.2, port 80.
pub(crate) fn binding(protocol: Protocol) -> Binding {
    Binding {
        host: ip("0.0.0.0"),
        host_port: 8080,
        protocol,
        ports: 1,
        network: LAN,
        container: ip("10.1.0.2"),
        container_port: 80,
        sandbox: 1,
        gateway: ip("10.1.0.1"),
        keeps_client: true,
    }
}
