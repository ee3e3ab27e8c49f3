//! Networks and endpoints of each host in a simulated cluster, and the records that say so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use vswitch_cluster::gossip::world::{BEGINNING, World};
use vswitch_cluster::id::Id;
use vswitch_cluster::record::{
    Endpoint, Host, Key, More, Network, Pool, Record, Space, Subscription, Value, Version,
};
use vswitch_frame::Mac;

/// Networks that a host is on, and hosts that a network is on, where networks do not span all hosts.
const NETWORKS_PER_HOST: usize = 10;

/// A cluster of some size.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Hosts.
    pub hosts: usize,
    /// Endpoints of each host.
    pub endpoints: usize,
    /// Whether a single network spans all hosts; otherwise there are as many networks as hosts.
    pub spans: bool,
}

impl Layout {
    /// The number of networks.
    pub fn networks(&self) -> usize {
        if self.spans { 1 } else { self.hosts }
    }

    /// The networks of a host. Steps between them spread a host's neighbours over the whole cluster.
    pub fn networks_of(&self, host: usize) -> Vec<usize> {
        match self.spans {
            true => vec![0],
            false => (0..NETWORKS_PER_HOST.min(self.hosts))
                .map(|step| (host + step * (step + 1) / 2 * 7) % self.hosts)
                .collect::<std::collections::BTreeSet<usize>>()
                .into_iter()
                .collect(),
        }
    }

    /// The hosts of each network.
    pub fn subscribers(&self) -> Vec<Vec<usize>> {
        let mut subscribers = vec![Vec::new(); self.networks()];
        for host in 0..self.hosts {
            self.networks_of(host).into_iter().for_each(|network| subscribers[network].push(host));
        }
        subscribers
    }

    /// The records that every host has.
    pub fn global(&self) -> Vec<Arc<Record>> {
        let subscribers = self.subscribers();
        let networks = (0..self.networks()).flat_map(|network| {
            let maker = subscribers[network].first().copied().unwrap_or_default();
            let spaces = subscribers[network].iter().enumerate().map(move |(index, host)| {
                let (first, last) = (address(network, index, 0), address(network, index, 255));
                let space = Space { last, owner: Some(World::id(*host)) };
                record(maker, Key::Space(id(network), first), Value::Space(space))
            });
            spaces.chain(describe(network, maker))
        });
        let hosts = (0..self.hosts).flat_map(|host| self.own(host));
        networks.chain(hosts).map(Arc::new).collect()
    }

    /// The records of one host that every host has.
    pub fn own(&self, host: usize) -> Vec<Record> {
        let (name, vtep) = (format!("host-{host}.example"), vtep(host));
        let itself =
            record(host, Key::Host(World::id(host)), Value::Host(Host { name, vtep, more: More::new() }));
        let subscription = |network| {
            let key = Key::Subscription(id(network), World::id(host));
            record(host, key, Value::Subscription(Subscription::default()))
        };
        let subscriptions = self.networks_of(host).into_iter().map(subscription);
        std::iter::once(itself).chain(subscriptions).collect()
    }

    /// The records of the endpoints of a host on its networks, in turns.
    pub fn endpoints(&self, host: usize) -> Vec<(usize, Record)> {
        let networks = self.networks_of(host);
        let all = networks.iter().cycle().take(self.endpoints).enumerate();
        all.map(|(number, network)| (*network, endpoint(host, *network, number, 0))).collect()
    }
}

/// An endpoint of a host, as it is after so many changes.
pub fn endpoint(host: usize, network: usize, number: usize, change: u64) -> Record {
    let [high, low] = small(host).to_be_bytes();
    let [upper, lower] = small(number).to_be_bytes();
    let name = format!("container-{host}-{number}");
    let short = format!("{:012x}", host * 65_536 + number);
    let value = Value::Endpoint(Endpoint {
        sandbox: name.clone(),
        id: Id::new([low; 32]),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, high, low, lower))],
        vtep: vtep(host),
        names: vec![name, short],
        more: More::new(),
    });
    let version = Version(Version::at(BEGINNING - Duration::from_secs(3600)).0 + change);
    let key = Key::Endpoint(id(network), Mac([2, 0x42, high, low, upper, lower]));
    Record { key, version, host: World::id(host), value: Some(value) }
}

/// The identifier of a network.
pub fn id(network: usize) -> Id {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&network.to_be_bytes());
    Id::new(bytes)
}

fn describe(network: usize, maker: usize) -> [Record; 2] {
    let name = format!("network-{network}");
    let vni = 4_096 + u32::from(small(network));
    let subnet = format!("10.{}.{}.0/24", network / 256 % 256, network % 256);
    let pools = subnet.parse().ok().map(|subnet| Pool {
        subnet,
        gateway: address(network, 0, 1),
        range: None,
        reserved: std::collections::BTreeMap::new(),
    });
    let value = Network {
        id: id(network),
        created: "2026-01-01T00:00:00.000000000Z".to_owned(),
        gateway_mac: Mac([2, 0x42, 0, 0, 0, 1]),
        vni,
        pools: pools.into_iter().collect(),
        internal: false,
        attachable: true,
        options: [("com.docker.network.driver.mtu".to_owned(), "1450".to_owned())].into(),
        labels: [("stack".to_owned(), name.clone())].into(),
        more: More::new(),
    };
    [
        record(maker, Key::Network(name), Value::Network(Box::new(value))),
        record(maker, Key::Vni(vni), Value::Vni { network: id(network).to_string() }),
    ]
}

fn record(host: usize, key: Key, value: Value) -> Record {
    let version = Version::at(BEGINNING - Duration::from_secs(3600));
    Record { key, version, host: World::id(host), value: Some(value) }
}

/// Where gossip of a simulated host would listen.
pub fn vtep(host: usize) -> IpAddr {
    let [high, low] = small(host).to_be_bytes();
    SocketAddr::from(([192, 0, high, low], 1)).ip()
}

fn address(network: usize, index: usize, last: u8) -> IpAddr {
    let [high, low] = small(network).to_be_bytes();
    let [upper, lower] = small(index).to_be_bytes();
    IpAddr::from([
        0xfd00,
        u16::from_be_bytes([high, low]),
        0,
        0,
        0,
        0,
        u16::from_be_bytes([upper, lower]),
        last.into(),
    ])
}

fn small(number: usize) -> u16 {
    u16::try_from(number % 65_536).unwrap_or_default()
}
