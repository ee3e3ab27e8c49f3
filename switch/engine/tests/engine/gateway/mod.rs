//! The gateway from outside: two networks with a gateway each, and stations on them.
//!
//! Frames are made and answers read by smoltcp, so that ours is not the only opinion of the wire.

mod advertisements;
mod answers;
mod craft;
mod errors;
mod garbage;
mod gate;
mod outside;
mod routing;
mod stack;
mod walls;
mod ways;

use std::net::IpAddr;

use vswitch_engine::{Endpoint, Gateway, GatewayMode, Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::{DropReason, Frame, GroupId, Instant, Mac, NetworkId, Offload, Pool, PortId};

const RED: NetworkId = NetworkId(0);
const BLUE: NetworkId = NetworkId(1);

/// A container on the red network.
const ALICE: PortId = PortId(5);
/// Another one.
const BOB: PortId = PortId(2);
/// A container on the blue network.
const CAROL: PortId = PortId(3);
/// The host, on the red network, where a test wants it.
const HOST: PortId = PortId(9);

const MTU: u16 = 1500;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The MAC address of whoever is behind a port.
fn mac(port: PortId) -> Mac {
    let [high, low] = port.0.to_be_bytes();
    Mac([2, 0, 0, 0, high, low])
}

/// The MAC address of a network's gateway.
fn gateway_mac(network: NetworkId) -> Mac {
    let [high, low] = network.0.to_be_bytes();
    Mac([2, 0xff, 0, 0, high, low])
}

/// A network with a subnet of each family: red has 10.1.0.0/24 and fd01::/64, blue 10.2.0.0/24 and fd02::/64.
fn network(id: NetworkId) -> Network {
    let number = id.0 + 1;
    let texts = [format!("10.{number}.0.0/24"), format!("fd0{number}::/64")];
    let addresses = vec![ip(&format!("10.{number}.0.1")), ip(&format!("fd0{number}::1"))];
    Network {
        subnets: texts.iter().map(|text| text.parse().expect("a subnet")).collect(),
        gateway: Some(Gateway { mac: gateway_mac(id), addresses, isolated: false }),
        icc: true,
        mode_v4: GatewayMode::NatUnprotected,
        mode_v6: GatewayMode::NatUnprotected,
        mtu: MTU,
        ..Network::default()
    }
}

/// A container whose addresses end in the number of its port, which is not one: that is the gateway's.
fn container(network: NetworkId, port: PortId) -> Port {
    let number = network.0 + 1;
    let addresses = [format!("10.{number}.0.{}/24", port.0), format!("fd0{number}::{}/64", port.0)];
    let endpoint = Endpoint {
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        names: vec!["web".to_owned()],
        gateways: vec![ip(&format!("10.{number}.0.1")), ip(&format!("fd0{number}::1"))],
        ..Endpoint::default()
    };
    Port {
        network,
        group: GroupId::own(port),
        mtu: usize::from(MTU),
        addresses: vec![mac(port)],
        station: Station::Container(endpoint),
    }
}

/// The fates of frames.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fates {
    forward: Vec<(PortId, Vec<u8>)>,
    flood: Vec<Vec<u8>>,
    /// Questions for names.
    names: Vec<Vec<u8>>,
    /// Packets that leave the networks of the host, and whether each is to be masqueraded.
    outbound: Vec<(bool, Vec<u8>)>,
    /// Errors for somebody outside; those that are to be translated have the network they are from.
    errors: Vec<(Option<NetworkId>, Vec<u8>)>,
    drop: Vec<(DropReason, PortId)>,
}

impl Fates {
    /// The one frame there is, which goes to a port.
    fn only(self, port: PortId) -> Vec<u8> {
        let others = (self.flood.len(), self.names.len(), self.outbound.len(), self.drop.len());
        assert_eq!((others, self.errors.len()), ((0, 0, 0, 0), 0), "{self:?}");
        self.answer(port)
    }

    /// The one frame that goes to a port, whatever was dropped.
    fn answer(mut self, port: PortId) -> Vec<u8> {
        assert_eq!(self.forward.len(), 1, "{self:?}");
        let (egress, frame) = self.forward.remove(0);
        assert_eq!(egress, port);
        frame
    }
}

fn dropped(reason: DropReason, port: PortId) -> Fates {
    Fates { drop: vec![(reason, port)], ..Fates::default() }
}

/// A switch with red and blue, Alice, Bob and Carol.
struct Bench {
    switch: Switch,
    pool: Pool,
    verdicts: Verdicts,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// With networks changed before they are made.
    fn with(change: impl Fn(&mut Network)) -> Self {
        let mut switch = Switch::new(Limits::default(), 7);
        for id in [RED, BLUE] {
            let mut network = network(id);
            change(&mut network);
            switch.add_network(id, network).expect("a new network");
        }
        let mut bench =
            Self { switch, pool: Pool::new(64), verdicts: Verdicts::default(), now: Instant::ZERO };
        bench.port(ALICE, container(RED, ALICE));
        bench.port(BOB, container(RED, BOB));
        bench.port(CAROL, container(BLUE, CAROL));
        bench
    }

    fn port(&mut self, id: PortId, port: Port) {
        self.switch.add_port(id, port).expect("a new port");
    }

    /// Plugs the host into the red network.
    fn plug_host(&mut self) {
        let port = Port { addresses: vec![gateway_mac(RED)], station: Station::Host, ..container(RED, HOST) };
        self.port(HOST, port);
    }

    /// One frame from a port.
    fn send(&mut self, ingress: PortId, bytes: &[u8]) -> Fates {
        self.send_with(ingress, bytes, Offload::NONE)
    }

    /// One frame from a port, with work left on it.
    fn send_with(&mut self, ingress: PortId, bytes: &[u8], offload: Offload) -> Fates {
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        frame.offload = offload;
        let mut burst = vec![frame];
        self.switch.process(ingress, &mut burst, &mut self.verdicts, self.now);
        assert_eq!(self.verdicts.len(), 1);
        let made = self.switch.serve(ingress, &mut self.verdicts, &mut self.pool, self.now);
        assert_eq!((self.verdicts.len(), self.verdicts.local.len()), (1 + made, 0));
        self.drain()
    }

    fn drain(&mut self) -> Fates {
        let pool = &mut self.pool;
        let mut bytes = |mut frame: Frame| {
            frame.parse().expect("what leaves is well-formed");
            let bytes = frame.bytes().to_vec();
            pool.free(frame);
            bytes
        };
        let forward = self.verdicts.forward.drain(..).map(|(port, frame)| (port, bytes(frame))).collect();
        let flood = self.verdicts.flood.drain(..).map(&mut bytes).collect();
        let names = self.verdicts.names.drain(..).map(&mut bytes).collect();
        let outbound = self.verdicts.outbound.drain(..);
        let outbound = outbound.map(|out| (out.masqueraded, bytes(out.frame))).collect();
        let errors = self.verdicts.errors.drain(..);
        let errors = errors.map(|error| (error.network, bytes(error.frame))).collect();
        let mut drop = Vec::new();
        for (reason, port, frame) in self.verdicts.drop.drain(..) {
            drop.push((reason, port));
            self.pool.free(frame);
        }
        assert_eq!(self.pool.available(), self.pool.capacity());
        Fates { forward, flood, names, outbound, errors, drop }
    }
}
