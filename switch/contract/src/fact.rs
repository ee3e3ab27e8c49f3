//! Facts: everything the datapath was told and goes on with, each under a key of its own.
//!
//! # Theory of operation
//! Both processes hold the same [`Facts`]. Control changes its own and sends the change, the datapath carries
//! it out and changes its own; a change that is refused changes neither. A new datapath is told all facts, a
//! new control asks for them: both are the difference between a table and an empty one ([`Facts::towards`]).
//!
//! The order of keys is the order of telling: what a fact needs comes before it. Facts are taken back in the
//! opposite order. A fact may have descriptors; one that is told anew without any keeps those it had.
//!
//! One fact is one message, however long it is ([`parts`](crate::parts)), but its descriptors are at most
//! [`DESCRIPTORS_MAX`](vswitch_sys::seqpacket::DESCRIPTORS_MAX): the sockets of a published range are facts
//! by pages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vswitch_engine::{Network, Remote, Rule};
use vswitch_frame::{Mac, NetworkId, PortId};
use vswitch_nat::{Binding, Protocol};
use vswitch_vxlan::Record;

use crate::claim::Claimed;
use crate::poll::PollMode;
use crate::port::PortSpec;
use crate::relay::{Relayed, Targets};
use crate::tunnel::{TunnelSocket, TunnelSpec};
use crate::uplink::UplinkSpec;

/// A fact without its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// The conduct of the poll loop while there is no work.
    Poll(PollMode),
    /// The private namespace of veth pairs, which is kept for the next control: its descriptor.
    FarSide,
    /// Addresses of the host beside those of gateways.
    HostAddresses(Vec<IpAddr>),
    /// A network.
    Network(NetworkId, Network),
    /// Names of an endpoint on another host.
    Name(NetworkId, Mac, Remote),
    /// The user's rules, in order.
    Rules(Vec<Rule>),
    /// A port, made of its descriptor.
    Port(PortId, PortSpec),
    /// A socket that tunnels share.
    TunnelSocket(TunnelSocket),
    /// The tunnel of a network.
    Tunnel(NetworkId, TunnelSpec),
    /// An address that is a VTEP of a network.
    Peer(NetworkId, IpAddr),
    /// A record, which says where an endpoint of a network lives.
    Record(NetworkId, Record),
    /// The uplink at a place in the list of them: a packet socket.
    Uplink(u16, UplinkSpec),
    /// All ports claimed for a protocol at an address of the host.
    Grant(Protocol, IpAddr, Vec<RangeInclusive<u16>>),
    /// Published ports.
    Binding(Binding),
    /// Published ports that take no new flows, while those there are go on.
    Closed(Binding),
    /// The sockets of a published range, by pages of [`CHUNK`](crate::relay::CHUNK) in the order of ports.
    Sockets(Relayed, u16),
    /// The addresses that the clients at the sockets of a published range are led to.
    Targets(Relayed, Targets),
    /// The socket of a claimed port, which is kept for the next control.
    Claim(Claimed),
}

/// The key of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The key of [`Fact::Poll`].
    Poll,
    /// The key of [`Fact::FarSide`].
    FarSide,
    /// The key of [`Fact::HostAddresses`].
    HostAddresses,
    /// The key of [`Fact::Network`].
    Network(NetworkId),
    /// The key of [`Fact::Name`].
    Name(NetworkId, Mac),
    /// The key of [`Fact::Rules`].
    Rules,
    /// The key of [`Fact::Port`].
    Port(PortId),
    /// The key of [`Fact::TunnelSocket`].
    TunnelSocket(TunnelSocket),
    /// The key of [`Fact::Tunnel`].
    Tunnel(NetworkId),
    /// The key of [`Fact::Peer`].
    Peer(NetworkId, IpAddr),
    /// The key of [`Fact::Record`].
    Record(NetworkId, Mac),
    /// The key of [`Fact::Uplink`].
    Uplink(u16),
    /// The key of [`Fact::Grant`].
    Grant(Protocol, IpAddr),
    /// The key of [`Fact::Binding`].
    Binding(Binding),
    /// The key of [`Fact::Closed`].
    Closed(Binding),
    /// The key of [`Fact::Sockets`].
    Sockets(Relayed, u16),
    /// The key of [`Fact::Targets`].
    Targets(Relayed),
    /// The key of [`Fact::Claim`].
    Claim(Claimed),
}

impl Fact {
    /// The key that it is kept under.
    pub fn key(&self) -> Key {
        match self {
            Self::Poll(_) => Key::Poll,
            Self::FarSide => Key::FarSide,
            Self::HostAddresses(_) => Key::HostAddresses,
            Self::Network(id, _) => Key::Network(*id),
            Self::Name(network, mac, _) => Key::Name(*network, *mac),
            Self::Rules(_) => Key::Rules,
            Self::Port(id, _) => Key::Port(*id),
            Self::TunnelSocket(which) => Key::TunnelSocket(*which),
            Self::Tunnel(network, _) => Key::Tunnel(*network),
            Self::Peer(network, vtep) => Key::Peer(*network, *vtep),
            Self::Record(network, record) => Key::Record(*network, record.mac),
            Self::Uplink(place, _) => Key::Uplink(*place),
            Self::Grant(protocol, address, _) => Key::Grant(*protocol, *address),
            Self::Binding(binding) => Key::Binding(*binding),
            Self::Closed(binding) => Key::Closed(*binding),
            Self::Sockets(relayed, page) => Key::Sockets(*relayed, *page),
            Self::Targets(relayed, _) => Key::Targets(*relayed),
            Self::Claim(claimed) => Key::Claim(*claimed),
        }
    }

    /// The port whose counters begin at zero when the fact is new.
    pub fn counted_port(&self) -> Option<PortId> {
        if let Self::Port(id, _) | Self::Tunnel(_, TunnelSpec { port: id, .. }) = self {
            Some(*id)
        } else {
            None
        }
    }
}

impl Key {
    /// Whether packets from an uplink are the switch's or not by what is under this key.
    pub fn decides_admission(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Binding(_))
    }
}

/// Keys of facts about one network's tunnel, and names of those beyond it.
pub fn beyond(network: NetworkId) -> [RangeInclusive<Key>; 3] {
    let (first, last) = (IpAddr::from([0; 4]), IpAddr::from([0xff; 16]));
    let (low, high) = (Mac([0; 6]), Mac([0xff; 6]));
    [
        Key::Name(network, low)..=Key::Name(network, high),
        Key::Peer(network, first)..=Key::Peer(network, last),
        Key::Record(network, low)..=Key::Record(network, high),
    ]
}

/// A fact and its descriptors.
#[derive(Clone, Debug)]
pub struct Held {
    /// The fact.
    pub fact: Fact,
    /// Its descriptors; whoever uses one has a share of it.
    pub fds: Vec<Arc<OwnedFd>>,
}

impl Held {
    /// A fact with these descriptors.
    pub fn new(fact: Fact, fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self { fact, fds: fds.into_iter().map(Arc::new).collect() }
    }

    /// Whether it has the very descriptors that another has.
    pub fn has_fds_of(&self, other: &Self) -> bool {
        self.fds.len() == other.fds.len() && self.fds.iter().zip(&other.fds).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl From<Fact> for Held {
    fn from(fact: Fact) -> Self {
        Self { fact, fds: Vec::new() }
    }
}

/// A change of one fact.
#[derive(Clone, Debug)]
pub enum Change {
    /// Makes it so. Without descriptors it keeps those it had.
    Set(Held),
    /// Takes it back.
    Remove(Key),
}

impl Change {
    /// The key of the fact that it changes.
    pub fn key(&self) -> Key {
        match self {
            Self::Set(held) => held.fact.key(),
            Self::Remove(key) => *key,
        }
    }
}

/// All facts, by their keys.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    by_key: BTreeMap<Key, Held>,
}

impl Facts {
    /// The fact under a key.
    pub fn get(&self, key: &Key) -> Option<&Held> {
        self.by_key.get(key)
    }

    /// Facts within a range of keys, in their order.
    pub fn range(&self, keys: impl RangeBounds<Key>) -> impl DoubleEndedIterator<Item = &Held> {
        self.by_key.range(keys).map(|(_, held)| held)
    }

    /// Facts behind a key, or all of them.
    pub fn behind(&self, key: Option<Key>) -> impl Iterator<Item = &Held> {
        self.range((key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// A fact as it would be once it is told: one without descriptors has those it had.
    pub fn completed(&self, mut told: Held) -> Held {
        if told.fds.is_empty()
            && let Some(held) = self.get(&told.fact.key())
        {
            told.fds.clone_from(&held.fds);
        }
        told
    }

    /// Shortens a change for whoever has these facts: descriptors that a fact has already are left out.
    pub fn shortened(&self, mut change: Change) -> Change {
        if let Change::Set(told) = &mut change
            && self.get(&told.fact.key()).is_some_and(|held| told.has_fds_of(held))
        {
            told.fds.clear();
        }
        change
    }

    /// Carries out a change; gives back the one that undoes it, with all descriptors.
    pub fn change(&mut self, change: Change) -> Change {
        let key = change.key();
        let before = match change {
            Change::Set(told) => {
                let completed = self.completed(told);
                self.by_key.insert(key, completed)
            }
            Change::Remove(key) => self.by_key.remove(&key),
        };
        before.map_or(Change::Remove(key), Change::Set)
    }

    /// Whether a change changes nothing.
    pub fn has(&self, change: &Change) -> bool {
        match change {
            Change::Set(told) => {
                let held = self.get(&told.fact.key());
                held.is_some_and(|held| {
                    held.fact == told.fact && (told.fds.is_empty() || told.has_fds_of(held))
                })
            }
            Change::Remove(key) => self.get(key).is_none(),
        }
    }

    /// The changes after which there are the wanted facts within these ranges of keys and no others: first
    /// those that take something back, the last key first, then those that say something, the first key
    /// first.
    pub fn towards(
        &self,
        ranges: &[RangeInclusive<Key>],
        wanted: impl IntoIterator<Item = Held>,
    ) -> Vec<Change> {
        let wanted: BTreeMap<Key, Held> = wanted.into_iter().map(|held| (held.fact.key(), held)).collect();
        let held = ranges.iter().flat_map(|range| self.by_key.range(range.clone())).map(|(key, _)| *key);
        let mut gone: Vec<Key> = held.filter(|key| !wanted.contains_key(key)).collect();
        gone.sort_unstable();
        let removals = gone.into_iter().rev().map(Change::Remove);
        let said = wanted.into_values().map(Change::Set).filter(|change| !self.has(change));
        removals.chain(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId(3);

    fn peer(last: u8) -> Held {
        Fact::Peer(NETWORK, IpAddr::from([192, 0, 2, last])).into()
    }

    fn record(last: u8, version: u64) -> Held {
        let (mac, vtep) = (Mac([2, 0, 0, 0, 0, last]), IpAddr::from([192, 0, 2, last]));
        Fact::Record(NETWORK, Record { mac, addresses: vec![], vtep, version }).into()
    }

    fn facts(all: impl IntoIterator<Item = Held>) -> Facts {
        let mut facts = Facts::default();
        all.into_iter().for_each(|held| drop(facts.change(Change::Set(held))));
        facts
    }

    fn shown(changes: &[Change]) -> Vec<(bool, Key)> {
        changes.iter().map(|change| (matches!(change, Change::Set(_)), change.key())).collect()
    }

    #[test]
    fn peers_come_before_their_records_and_go_after_them() {
        let empty = Facts::default();
        let wanted = || [record(2, 1), peer(2)];
        let keys = [peer(2).fact.key(), record(2, 1).fact.key()];
        assert_eq!(shown(&empty.towards(&beyond(NETWORK), wanted())), keys.map(|key| (true, key)));
        let back = facts(wanted()).towards(&beyond(NETWORK), []);
        assert_eq!(shown(&back), [(false, keys[1]), (false, keys[0])]);
    }

    #[test]
    fn only_changes_are_said_and_other_keys_are_left_alone() {
        let elsewhere = Held::from(Fact::Peer(NetworkId(4), IpAddr::from([192, 0, 2, 9])));
        let before = facts([peer(2), record(2, 1), elsewhere]);
        assert!(before.towards(&beyond(NETWORK), [peer(2), record(2, 1)]).is_empty());
        let newer = before.towards(&beyond(NETWORK), [peer(2), record(2, 2)]);
        assert_eq!(shown(&newer), [(true, record(2, 2).fact.key())]);
    }

    #[test]
    fn a_fact_told_without_descriptors_keeps_those_it_had() {
        let fd = || std::fs::File::open("/dev/null").expect("a file").into();
        let mut facts = facts([Held::new(Fact::FarSide, [fd()])]);
        let again = Held::from(Fact::FarSide);
        assert!(facts.has(&Change::Set(again.clone())), "nothing would change");
        assert_eq!(facts.completed(again).fds.len(), 1);
        let other = Held::new(Fact::FarSide, [fd()]);
        assert!(!facts.has(&Change::Set(other.clone())), "another descriptor");
        let undo = facts.change(Change::Set(other));
        assert!(matches!(&undo, Change::Set(before) if before.fds.len() == 1), "the one before comes back");
        facts.change(undo);
        assert!(
            matches!(facts.change(Change::Remove(Key::FarSide)), Change::Set(held) if held.fds.len() == 1)
        );
        assert!(matches!(facts.change(Change::Remove(Key::FarSide)), Change::Remove(Key::FarSide)));
    }

    #[test]
    fn a_change_is_undone_with_its_descriptors_which_are_said_to_those_only_who_lack_them() {
        let fds = |change: &Change| if let Change::Set(held) = change { held.fds.len() } else { 0 };
        let fd = std::fs::File::open("/dev/null").expect("a file").into();
        let socket = Fact::TunnelSocket(TunnelSocket::Receiver { port: 4789 });
        let mut facts = facts([Held::new(socket.clone(), [fd])]);
        let undo = facts.change(Change::Set(socket.clone().into()));
        assert_eq!((fds(&undo), fds(&facts.shortened(undo.clone()))), (1, 0));
        facts.change(Change::Remove(socket.key()));
        assert_eq!(fds(&facts.shortened(undo)), 1);
    }

    #[test]
    fn beyond_a_network_is_every_key_of_its_tunnel() {
        let high = IpAddr::from([0xff; 16]);
        for fact in [Fact::Peer(NETWORK, high), Fact::Peer(NETWORK, [0, 0, 0, 0].into())] {
            assert!(beyond(NETWORK).iter().any(|range| range.contains(&fact.key())), "{fact:?}");
        }
        assert!(!beyond(NETWORK).iter().any(|range| range.contains(&Key::Tunnel(NETWORK))));
    }
}
