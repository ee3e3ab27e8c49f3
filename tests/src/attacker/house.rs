//! A datapath with a whole configuration, whose descriptors' other ends are here.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::uio::writev;
use vswitch_contract::fact::Fact;
use vswitch_contract::port::{DeviceKind, PortSpec};
use vswitch_contract::tunnel::{Record, TUNNEL_SENDERS, TunnelSocket, TunnelSpec, Vni};
use vswitch_contract::uplink::{Hop, Route, UplinkSpec};
use vswitch_datapath::stepped::Stepped;
use vswitch_engine::{Action, Endpoint, Gateway, Network, Protocol, Rule, Station};
use vswitch_frame::{Accepts, GroupId, Instant, Mac};
use vswitch_nat::Binding;
use vswitch_sys::clock;

use super::frames::HEADER;
use super::places::*;
use super::seen::{Content, Seen};

/// The VTEPs: this host's, its peer's, and one that is none.
const VTEPS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
const VNI: u32 = 42;

/// The house, and the far ends of its descriptors.
#[derive(Debug)]
pub struct House {
    datapath: Stepped,
    /// In the order of [`PLACES`]; of the other host none.
    ends: Vec<Option<OwnedFd>>,
    peer: UdpSocket,
    stranger: UdpSocket,
    /// The port of all VTEPs.
    port: u16,
    now: Instant,
    room: Vec<u8>,
}

/// A frame that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The place where it did.
    pub at: Place,
    /// Its virtio-net header.
    pub header: [u8; HEADER],
    /// Its bytes.
    pub frame: Vec<u8>,
}

impl House {
    /// The house, with everything told.
    ///
    /// # Panics
    /// When the kernel or the datapath refuses something.
    pub fn new() -> Self {
        let mut datapath = Stepped::new(7).expect("a datapath");
        let ends = PLACES.iter().map(|place| (place.role != Role::Beyond).then(pair));
        let (near, far): (Vec<_>, Vec<_>) = ends.map(Option::unzip).unzip();
        let (port, peer, stranger, receiver) = vteps();
        datapath.tell(networks().map(|fact| (fact, Vec::new()))).expect("networks");
        datapath.tell([(Fact::Rules(rules()), Vec::new())]).expect("rules");
        let hosts = vec![HOST_V4.into(), HOST_V6.into(), HOST_OTHER.into()];
        datapath.tell([(Fact::HostAddresses(hosts), Vec::new())]).expect("addresses");
        for (place, fd) in PLACES.iter().zip(far) {
            let fact = match place.role {
                Role::World => Fact::Uplink(0, world()),
                Role::Container | Role::Host => Fact::Port(place.port(), port_of(place)),
                Role::Beyond => continue,
            };
            datapath.tell([(fact, fd.into_iter().collect())]).expect("a port");
        }
        let socket = (Fact::TunnelSocket(TunnelSocket::Receiver { port }), vec![receiver.into()]);
        datapath.tell([socket]).expect("a socket");
        datapath.tell((0..TUNNEL_SENDERS).map(sender)).expect("sockets");
        datapath.tell(overlay().map(|fact| (fact, Vec::new()))).expect("the overlay");
        datapath.tell(claims().map(|fact| (fact, Vec::new()))).expect("claims");
        datapath.begin();
        let (now, room) = (clock::now(), vec![0; HEADER + 70_000]);
        let mut house = Self { datapath, ends: near, peer, stranger, port, now, room };
        house.settle(Duration::ZERO);
        house
    }

    /// Lets time pass, and the router answer who looks for it; what else arrives is nobody's doing.
    ///
    /// # Panics
    /// When the datapath fails.
    pub fn settle(&mut self, pass: Duration) {
        self.now = self.now + pass;
        self.datapath.step(self.now).expect("a step");
        loop {
            let arrived = self.collect();
            let questions = arrived.iter().filter(|arrived| arrived.at == WORLD).filter_map(answer);
            let answers: Vec<Vec<u8>> = questions.collect();
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.write(&WORLD, &[&[0; HEADER], &answer]);
            }
            self.datapath.step(self.now).expect("a step");
        }
    }

    /// Sends a frame with a virtio-net header in front from a place; returns all that arrived anywhere. From
    /// the other host it comes in a datagram, without the header.
    ///
    /// # Panics
    /// When the datapath fails.
    pub fn send(&mut self, from: &Place, bytes: &[u8]) -> Vec<Arrived> {
        let (header, frame) = bytes.split_at(bytes.len().min(HEADER));
        match from.role {
            Role::Beyond => self.send_in_tunnel(frame, false),
            Role::Container | Role::Host | Role::World => self.write(from, &[header, frame]),
        }
        self.datapath.step(self.now).expect("a step");
        self.collect()
    }

    /// Sends a frame in a datagram from a host that is no peer; returns all that arrived anywhere.
    ///
    /// # Panics
    /// When the datapath fails.
    pub fn send_as_stranger(&mut self, bytes: &[u8]) -> Vec<Arrived> {
        self.send_in_tunnel(bytes.get(HEADER..).unwrap_or_default(), true);
        self.datapath.step(self.now).expect("a step");
        self.collect()
    }

    fn send_in_tunnel(&self, frame: &[u8], as_stranger: bool) {
        let [_, a, b, c] = VNI.to_be_bytes();
        let datagram = [&[8, 0, 0, 0, a, b, c, 0], frame].concat();
        let socket = if as_stranger { &self.stranger } else { &self.peer };
        socket.send_to(&datagram, (VTEPS[0], self.port)).expect("sent");
    }

    fn write(&self, from: &Place, parts: &[&[u8]]) {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let at = PLACES.iter().position(|place| place == from).expect("a place");
        writev(self.ends[at].as_ref().expect("a descriptor"), &parts).expect("written");
    }

    /// All that has arrived.
    fn collect(&mut self) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for (place, end) in PLACES.iter().zip(&self.ends) {
            let Some(end) = end else { continue };
            loop {
                let length = match nix::unistd::read(end, &mut self.room) {
                    Ok(length) => length,
                    Err(Errno::EAGAIN) => break,
                    Err(errno) => panic!("{}: {errno}", place.name),
                };
                let (header, frame) = self.room[..length].split_first_chunk().expect("a header");
                arrived.push(Arrived { at: *place, header: *header, frame: frame.to_vec() });
            }
        }
        for (socket, name) in [(&self.peer, "peer"), (&self.stranger, "stranger")] {
            loop {
                match socket.recv_from(&mut self.room) {
                    Ok((length, _)) => {
                        assert_eq!(name, "peer", "a datagram for somebody who is no peer");
                        let frame = self.room.get(8..length).expect("VXLAN").to_vec();
                        arrived.push(Arrived { at: BEYOND, header: [0; HEADER], frame });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
        arrived
    }
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}

/// The answer of the router to a question that arrived on its link.
fn answer(arrived: &Arrived) -> Option<Vec<u8>> {
    let seen = Seen::of(&arrived.frame)?;
    let Content::Arp(mac, sender, wanted) = seen.content else { return None };
    (wanted == ROUTER_V4 && arrived.frame[21] == 1).then(|| {
        let ends = [&ROUTER_MAC[..], &ROUTER_V4.octets(), &mac, &sender.octets()].concat();
        [&seen.source[..], &ROUTER_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &ends].concat()
    })
}

/// A pair of sockets that keep messages apart: ours, and the datapath's.
fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair")
}

/// A port that is free at all VTEPs, with sockets at it: the peer's, the stranger's, and ours.
fn vteps() -> (u16, UdpSocket, UdpSocket, UdpSocket) {
    loop {
        let own = UdpSocket::bind((VTEPS[0], 0)).expect("a socket");
        let port = own.local_addr().expect("bound").port();
        let others = [VTEPS[1], VTEPS[2]].map(|vtep| UdpSocket::bind((vtep, port)));
        if let [Ok(peer), Ok(stranger)] = others {
            for socket in [&own, &peer, &stranger] {
                socket.set_nonblocking(true).expect("non-blocking");
            }
            return (port, peer, stranger, own);
        }
    }
}

fn sender(index: u16) -> (Fact, Vec<OwnedFd>) {
    let local = IpAddr::from(VTEPS[0]);
    let socket = vswitch_sys::udp::open_sender(SocketAddr::new(local, 0)).expect("a socket");
    (Fact::TunnelSocket(TunnelSocket::Sender { local, index }), vec![socket])
}

fn networks() -> impl Iterator<Item = Fact> {
    NETWORKS.into_iter().map(|id| {
        let (v4, v6) = gateway(id);
        let gateway =
            Gateway { mac: Mac(gateway_mac(id)), addresses: vec![v4.into(), v6.into()], isolated: false };
        let subnets = [format!("10.{id}.0.0/24"), format!("fd00:0:0:{id}::/64")];
        let network = Network {
            name: format!("net{id}"),
            subnets: subnets.iter().map(|text| text.parse().expect("a subnet")).collect(),
            gateway: Some(gateway),
            internal: id == INTERNAL,
            icc: id != APART,
            masquerade: true,
            port_security: true,
            resolves: true,
            mtu: 1500,
            ..Network::default()
        };
        Fact::Network(vswitch_frame::NetworkId(id), network)
    })
}

fn rules() -> Vec<Rule> {
    vec![Rule {
        network: Some(vswitch_frame::NetworkId(1)),
        protocol: Protocol::Tcp,
        target_ports: vec![FORBIDDEN..=FORBIDDEN],
        ..Rule::new(1, Action::Drop)
    }]
}

fn port_of(place: &Place) -> PortSpec {
    let container = place.role == Role::Container;
    let endpoint = Endpoint {
        sandbox: u32::from(place.port().0),
        priority: 0,
        addresses: [format!("{}/24", place.v4()), format!("{}/64", place.v6())]
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        names: vec![place.name.to_string()],
        gateways: vec![gateway(place.network).0.into(), gateway(place.network).1.into()],
    };
    let is_apart = container && place.network == APART;
    PortSpec {
        network: place.network_id(),
        kind: DeviceKind::Tap { vnet_header: true },
        group: if is_apart { GroupId::containers_of(place.network_id()) } else { GroupId::own(place.port()) },
        mtu: 1500,
        accepts: if place.number.is_multiple_of(2) { Accepts::ALL } else { Accepts::NONE },
        addresses: vec![place.mac_address()],
        station: if container { Station::Container(endpoint) } else { Station::Host },
    }
}

fn world() -> UplinkSpec {
    let route = |destination: &str, hop| Route {
        destination: destination.parse().expect("a subnet"),
        interface: "up0".to_owned(),
        hop,
    };
    UplinkSpec {
        interface: "up0".to_owned(),
        mac: Some(WORLD.mac_address()),
        mtu: 1500,
        v4: Some(HOST_V4),
        v6: Some(HOST_V6),
        link_local: None,
        routes: vec![
            route("203.0.113.0/24", Hop::Link),
            route("2001:db8:1::/64", Hop::Link),
            route("0.0.0.0/0", Hop::Router(ROUTER_V4.into())),
            route("::/0", Hop::Router(ROUTER_V6.into())),
        ],
    }
}

fn overlay() -> impl Iterator<Item = Fact> {
    let network = BEYOND.network_id();
    let spec = TunnelSpec {
        port: BEYOND.port(),
        group: GroupId::own(BEYOND.port()),
        vni: Vni::new(VNI).expect("an identifier"),
        local: VTEPS[0].into(),
        underlay_mtu: 1600,
        learning: false,
    };
    let record = Record {
        mac: BEYOND.mac_address(),
        addresses: vec![BEYOND.v4().into(), BEYOND.v6().into()],
        vtep: VTEPS[1].into(),
        version: 1,
    };
    let facts =
        [Fact::Tunnel(network, spec), Fact::Peer(network, VTEPS[1].into()), Fact::Record(network, record)];
    facts.into_iter()
}

/// Claimed ports, and the published one.
fn claims() -> impl Iterator<Item = Fact> {
    let protocols = [vswitch_nat::Protocol::Tcp, vswitch_nat::Protocol::Udp];
    let grants = protocols.into_iter().flat_map(|protocol| {
        [IpAddr::from(HOST_V4), HOST_V6.into()].map(|host| Fact::Grant(protocol, host, vec![40_000..=40_063]))
    });
    let (v4, v6) = gateway(SERVER.network);
    let ends: [[IpAddr; 3]; 2] = [
        [Ipv4Addr::UNSPECIFIED.into(), SERVER.v4().into(), v4.into()],
        [std::net::Ipv6Addr::UNSPECIFIED.into(), SERVER.v6().into(), v6.into()],
    ];
    let bindings = ends.map(|[host, container, gateway]| {
        Fact::Binding(Binding {
            host,
            host_port: PUBLISHED.0,
            protocol: vswitch_nat::Protocol::Tcp,
            ports: 1,
            network: SERVER.network_id(),
            container,
            container_port: PUBLISHED.1,
            sandbox: u32::from(SERVER.port().0),
            gateway,
            keeps_client: true,
        })
    });
    grants.chain(bindings)
}
