//! The index of what was said: what follows from records and would otherwise be looked for among all.
//!
//! # Theory of operation
//! Each record that comes in changes the entries that follow from it, and touches the facts that the datapath
//! is to have ([`Touched`]); nothing is looked at that the record does not name. So a change costs the same
//! in a cluster of two hosts and of a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{HostId, Key, Record, Value};
use vswitch_cluster::space::Range;
use vswitch_frame::Mac;

use crate::cluster::held::Held;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Index {
    me: HostId,
    /// Names of networks, by their identifiers.
    names: BTreeMap<Id, String>,
    /// Names of networks, by their numbers on the wire: two, where hosts were cut off from each other.
    vnis: BTreeMap<u32, BTreeSet<String>>,
    /// Addresses of endpoints, by network.
    addresses: BTreeMap<Id, BTreeSet<(IpAddr, Mac)>>,
    /// Endpoints, by host and network.
    endpoints: BTreeMap<(HostId, Id), BTreeSet<Mac>>,
    /// The address that the tunnels of each host end at.
    vteps: BTreeMap<HostId, IpAddr>,
    /// Networks that each host has endpoints on.
    subscriptions: BTreeMap<HostId, BTreeSet<Id>>,
    /// Hosts with endpoints on a network, by where their tunnels end.
    peers: BTreeMap<(Id, IpAddr), BTreeSet<HostId>>,
    /// Addresses that another host's endpoints have, and that are not its own to give.
    held: BTreeMap<Id, BTreeMap<HostId, Vec<Held>>>,
    /// Ranges of addresses that this host owns, by their first ones.
    owned: BTreeMap<Id, BTreeMap<IpAddr, IpAddr>>,
    /// Ranges of addresses that are nobody's, and that this host said so of.
    common: BTreeMap<Id, BTreeSet<IpAddr>>,
}

/// Everything that has changed since it was last followed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Endpoints.
    pub(crate) endpoints: BTreeSet<(Id, Mac)>,
    /// Addresses at which the tunnels of hosts with endpoints on a network end.
    pub(crate) peers: BTreeSet<(Id, IpAddr)>,
    /// Names of networks.
    pub(crate) networks: BTreeSet<String>,
    /// Hosts that came, or were given up.
    pub(crate) hosts: BTreeSet<HostId>,
    /// Networks whose addresses this host may give have changed.
    pub(crate) spaces: BTreeSet<Id>,
}

impl Index {
    /// The index of a host that knows nothing yet.
    pub(crate) fn new(me: HostId) -> Self {
        Self {
            me,
            names: BTreeMap::new(),
            vnis: BTreeMap::new(),
            addresses: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            vteps: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            peers: BTreeMap::new(),
            held: BTreeMap::new(),
            owned: BTreeMap::new(),
            common: BTreeMap::new(),
        }
    }

    /// Follows a record that takes the place of another one of its key, or of none.
    pub(crate) fn follow(&mut self, old: Option<&Record>, new: Option<&Record>, touched: &mut Touched) {
        if let Some(Key::Host(host)) = old.or(new).map(|record| &record.key) {
            let vtep = |record: Option<&Record>| match &record?.value {
                Some(Value::Host(host)) => Some(host.vtep),
                _ => None,
            };
            self.set_vtep(*host, vtep(old), vtep(new), touched);
            return;
        }
        for (record, is_there) in [(old, false), (new, true)] {
            let Some(record) = record else { continue };
            let Some(value) = &record.value else { continue };
            match (&record.key, value) {
                (Key::Endpoint(network, mac), Value::Endpoint(endpoint)) => {
                    self.set_endpoint(record.host, (*network, *mac), &endpoint.addresses, is_there, touched);
                }
                (Key::Subscription(network, host), Value::Subscription(value)) => {
                    let held = is_there.then(|| Held::read(&value.more));
                    self.set_subscription(*network, *host, held, touched);
                }
                (Key::Space(network, first), Value::Space(space)) => {
                    let range = Range { first: *first, last: space.last };
                    self.set_space(*network, range, (space.owner, record.host), is_there, touched);
                }
                (Key::Network(name), Value::Network(network)) => {
                    let of_vni = self.vnis.entry(network.vni).or_default();
                    set(of_vni, name.clone(), is_there);
                    if of_vni.is_empty() {
                        self.vnis.remove(&network.vni);
                    }
                    if is_there {
                        self.names.insert(network.id, name.clone());
                    } else if self.names.get(&network.id) == Some(name) {
                        self.names.remove(&network.id);
                    }
                    touched.networks.insert(name.clone());
                }
                (Key::Vni(vni), _) => {
                    touched.networks.extend(self.vnis.get(vni).into_iter().flatten().cloned());
                }
                _ => {}
            }
        }
    }

    fn set_endpoint(
        &mut self,
        host: HostId,
        (network, mac): (Id, Mac),
        addresses: &[IpAddr],
        is_there: bool,
        touched: &mut Touched,
    ) {
        touched.endpoints.insert((network, mac));
        // Of two with one address only one is told, so the other one may take its place now.
        let rivals = addresses.iter().flat_map(|address| self.at(network, *address)).collect::<Vec<_>>();
        touched.endpoints.extend(rivals.into_iter().map(|rival| (network, rival)));
        let of_network = self.addresses.entry(network).or_default();
        addresses.iter().for_each(|address| set(of_network, (*address, mac), is_there));
        if of_network.is_empty() {
            self.addresses.remove(&network);
        }
        let of_host = self.endpoints.entry((host, network)).or_default();
        set(of_host, mac, is_there);
        if of_host.is_empty() {
            self.endpoints.remove(&(host, network));
        }
    }

    fn set_vtep(
        &mut self,
        host: HostId,
        before: Option<IpAddr>,
        vtep: Option<IpAddr>,
        touched: &mut Touched,
    ) {
        if before.is_some() != vtep.is_some() {
            // Its endpoints count while it is one of the cluster.
            touched.endpoints.extend(self.all_endpoints(host));
            touched.hosts.insert(host);
        }
        let networks: Vec<Id> = self.subscriptions.get(&host).into_iter().flatten().copied().collect();
        networks.iter().for_each(|network| self.set_peer(*network, host, false, touched));
        match vtep {
            Some(vtep) => self.vteps.insert(host, vtep),
            None => self.vteps.remove(&host),
        };
        networks.iter().for_each(|network| self.set_peer(*network, host, true, touched));
    }

    fn set_subscription(
        &mut self,
        network: Id,
        host: HostId,
        held: Option<Vec<Held>>,
        touched: &mut Touched,
    ) {
        let is_there = held.is_some();
        let of_host = self.subscriptions.entry(host).or_default();
        set(of_host, network, is_there);
        if of_host.is_empty() {
            self.subscriptions.remove(&host);
        }
        self.set_peer(network, host, is_there, touched);
        if host != self.me {
            let of_network = self.held.entry(network).or_default();
            match held.filter(|held| !held.is_empty()) {
                Some(held) => of_network.insert(host, held),
                None => of_network.remove(&host),
            };
            if of_network.is_empty() {
                self.held.remove(&network);
            }
            touched.spaces.insert(network);
        }
    }

    fn set_peer(&mut self, network: Id, host: HostId, is_there: bool, touched: &mut Touched) {
        let Some(vtep) = self.vteps.get(&host).copied().filter(|_| host != self.me) else { return };
        let hosts = self.peers.entry((network, vtep)).or_default();
        set(hosts, host, is_there);
        if hosts.is_empty() {
            self.peers.remove(&(network, vtep));
        }
        touched.peers.insert((network, vtep));
    }

    fn set_space(
        &mut self,
        network: Id,
        range: Range,
        (owner, writer): (Option<HostId>, HostId),
        is_there: bool,
        touched: &mut Touched,
    ) {
        if owner == Some(self.me) {
            let of_network = self.owned.entry(network).or_default();
            match is_there {
                true => of_network.insert(range.first, range.last),
                false => of_network.remove(&range.first),
            };
            if of_network.is_empty() {
                self.owned.remove(&network);
            }
            touched.spaces.insert(network);
        } else if owner.is_none() && writer == self.me {
            let of_network = self.common.entry(network).or_default();
            set(of_network, range.first, is_there);
            if of_network.is_empty() {
                self.common.remove(&network);
            }
        }
    }

    /// The name of a network of the cluster.
    pub(crate) fn name(&self, network: Id) -> Option<&str> {
        self.names.get(&network).map(String::as_str)
    }

    /// Whether a host is one of the cluster, and was not given up.
    pub(crate) fn is_host(&self, host: HostId) -> bool {
        self.vteps.contains_key(&host)
    }

    /// Every network of the cluster with its name.
    pub(crate) fn networks(&self) -> impl Iterator<Item = (&str, Id)> {
        self.names.iter().map(|(id, name)| (name.as_str(), *id))
    }

    /// The endpoints of a network that have an address, by their MAC addresses.
    pub(crate) fn at(&self, network: Id, address: IpAddr) -> impl Iterator<Item = Mac> {
        let of_network = self.addresses.get(&network).into_iter();
        let range = (address, Mac([0; 6]))..=(address, Mac([0xff; 6]));
        of_network.flat_map(move |addresses| addresses.range(range.clone())).map(|(_, mac)| *mac)
    }

    /// The addresses of a network that endpoints have, as far as this host hears of them.
    pub(crate) fn addresses(&self, network: Id) -> impl Iterator<Item = IpAddr> {
        self.addresses.get(&network).into_iter().flatten().map(|(address, _)| *address)
    }

    /// Networks that a host has endpoints on.
    pub(crate) fn subscriptions(&self, host: HostId) -> impl Iterator<Item = Id> {
        self.subscriptions.get(&host).into_iter().flatten().copied()
    }

    /// The endpoints of a host on a network.
    pub(crate) fn endpoints(&self, host: HostId, network: Id) -> impl Iterator<Item = Mac> {
        self.endpoints.get(&(host, network)).into_iter().flatten().copied()
    }

    /// The endpoints of a host on all networks.
    pub(crate) fn all_endpoints(&self, host: HostId) -> impl Iterator<Item = (Id, Mac)> {
        let of_host = self.endpoints.range((host, Id::new([0; 32]))..=(host, Id::new([0xff; 32])));
        of_host.flat_map(|((_, network), macs)| macs.iter().map(|mac| (*network, *mac)))
    }

    /// The addresses at which the tunnels of other hosts with endpoints on a network end.
    pub(crate) fn peers(&self, network: Id) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (IpAddr::from([0; 4]), IpAddr::from([0xff; 16]));
        self.peers.range((network, first)..=(network, last)).map(|((_, vtep), _)| *vtep)
    }

    /// The hosts with endpoints on a network whose tunnels end at an address; this one is none of them.
    pub(crate) fn hosts_at(&self, network: Id, vtep: IpAddr) -> impl Iterator<Item = HostId> {
        self.peers.get(&(network, vtep)).into_iter().flatten().copied()
    }

    /// The ranges of a network's addresses that this host owns.
    pub(crate) fn owned(&self, network: Id) -> Vec<Range> {
        let ranges = self.owned.get(&network).into_iter().flatten();
        ranges.map(|(first, last)| Range { first: *first, last: *last }).collect()
    }

    /// Whether an address of a network is this host's to give.
    pub(crate) fn owns(&self, network: Id, address: IpAddr) -> bool {
        let below = self.owned.get(&network).and_then(|ranges| ranges.range(..=address).next_back());
        below.is_some_and(|(first, last)| Range { first: *first, last: *last }.contains(address))
    }

    /// Addresses of a network that other hosts' endpoints have, and that are not theirs to give.
    pub(crate) fn held(&self, network: Id) -> impl Iterator<Item = (HostId, &Held)> {
        let hosts = self.held.get(&network).into_iter().flatten();
        hosts.flat_map(|(host, held)| held.iter().map(move |one| (*host, one)))
    }

    /// Networks of which this host says whose the addresses are, with the first ones of those ranges.
    pub(crate) fn spaces_said(&self) -> BTreeMap<Id, Vec<IpAddr>> {
        let mut said = BTreeMap::<Id, Vec<IpAddr>>::new();
        for (network, ranges) in &self.owned {
            said.entry(*network).or_default().extend(ranges.keys());
        }
        for (network, firsts) in &self.common {
            said.entry(*network).or_default().extend(firsts);
        }
        said
    }
}

fn set<T: Ord>(all: &mut BTreeSet<T>, one: T, is_there: bool) {
    if is_there {
        all.insert(one);
    } else {
        all.remove(&one);
    }
}
