//! Records: the knowledge that the hosts of a cluster have of each other.
//!
//! # Theory of operation
//! A record is a key, a version and a value, or a *tombstone* in place of the value once the thing is gone.
//! Of two records of one key the newer wins, whatever the order in which they arrive, so all who have seen
//! the same records agree. Versions come from a [`Clock`] that runs ahead of every version it has seen: what
//! is written by somebody who knew of a record is newer than that. Versions that are equal are told apart by
//! the host that wrote them.
//!
//! | key | value | who writes it |
//! |---|---|---|
//! | `host/HOST` | [`Value::Host`] | that host |
//! | `network/NAME` | [`Value::Network`] | who made or removes it |
//! | `vni/NUMBER` | [`Value::Vni`] | who made the network |
//! | `space/NETWORK/FIRST` | [`Value::Space`] | who owns the addresses, and gives them away |
//! | `subscription/NETWORK/HOST` | [`Value::Subscription`] | that host, while it has endpoints on the network |
//! | `endpoint/NETWORK/MAC` | [`Value::Endpoint`] | the host it lives on |
//!
//! Endpoints are known to the hosts that have a live subscription to their network; everything else is known
//! to every host of the cluster. So a record is of one [`Scope`].
//!
//! Kinds and fields of a newer vswitch are kept as they are and passed on, so hosts may be brought up to date
//! one after the other. A service (a name with several members and a virtual address) will be a kind of
//! record of its own, and keys of a network a further field of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_frame::Mac;

use crate::id::Id;

/// The identifier of a host: 32 hexadecimal digits that no other has, drawn once and kept with its state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostId([u8; 16]);

impl HostId {
    /// An identifier of these bytes, which should be random.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The part that people are shown.
    pub fn short(self) -> String {
        format!("{:012x}", u128::from_be_bytes(self.0) >> 80)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for HostId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for HostId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no identifier of a host");
        let id = u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| wrong())?;
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

/// The version of a record: the higher, the newer. Milliseconds since 1970 in the upper 48 bits when clocks
/// are right, and in any case above every version its writer had seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// The time by which a version may be ahead of the time of day. One that is further ahead is not believed, or
/// a single record could take every version there is.
pub const AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

impl Version {
    /// The first version of a time of day.
    pub fn at(since_epoch: Duration) -> Self {
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX >> 16) << 16)
    }

    /// Whether it is further ahead of this time of day than [`AHEAD_MAX`].
    pub fn is_ahead(self, since_epoch: Duration) -> bool {
        self > Self::at(since_epoch + AHEAD_MAX)
    }
}

/// The clock that versions come from: a hybrid of the time of day and of a logical clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Version,
}

impl Clock {
    /// Takes note of a version.
    pub fn see(&mut self, version: Version) {
        self.last = self.last.max(version);
    }

    /// Whether it runs further ahead of this time of day than anybody believes.
    pub fn is_ahead(&self, since_epoch: Duration) -> bool {
        self.last.is_ahead(since_epoch)
    }

    /// A version above all that were seen; `since_epoch` is the time of day.
    pub fn next(&mut self, since_epoch: Duration) -> Version {
        self.last = Version::at(since_epoch).max(Version(self.last.0.saturating_add(1)));
        self.last
    }
}

/// The key of a record: the thing that it is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Key {
    /// A host.
    Host(HostId),
    /// A network, by its name.
    Network(String),
    /// The number of a network on the wire.
    Vni(u32),
    /// A range of addresses of a network, by the first of them.
    Space(Id, IpAddr),
    /// A host's wish to hear of a network's endpoints.
    Subscription(Id, HostId),
    /// An endpoint of a network, by its MAC address. Networks are named by their identifiers here, so that
    /// nothing of one outlives it in another of its name.
    Endpoint(Id, Mac),
    /// Something a newer vswitch knows.
    Other(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host/{host}"),
            Self::Network(name) => write!(f, "network/{name}"),
            Self::Vni(vni) => write!(f, "vni/{vni}"),
            Self::Space(network, first) => write!(f, "space/{network}/{first}"),
            Self::Subscription(network, host) => write!(f, "subscription/{network}/{host}"),
            Self::Endpoint(network, mac) => write!(f, "endpoint/{network}/{mac}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        let words: Vec<&str> = text.splitn(3, '/').collect();
        let id = |text: &str| Id::try_from(text.to_owned()).ok();
        let known = match *words.as_slice() {
            ["host", host] => host.parse().ok().map(Self::Host),
            ["network", name] => Some(Self::Network(name.to_owned())),
            ["vni", number] => number.parse().ok().map(Self::Vni),
            ["space", network, first] => {
                id(network).and_then(|network| Some(Self::Space(network, first.parse().ok()?)))
            }
            ["subscription", network, host] => {
                id(network).and_then(|network| Some(Self::Subscription(network, host.parse().ok()?)))
            }
            ["endpoint", network, mac] => {
                id(network).and_then(|network| Some(Self::Endpoint(network, mac.parse().ok()?)))
            }
            _ => None,
        };
        // A key that is written in another way than ours would come back as another key.
        known.filter(|key| key.to_string() == text).unwrap_or(Self::Other(text))
    }
}

impl Key {
    /// The identifier of the network that a key belongs to, if to one.
    pub fn network(&self) -> Option<Id> {
        match self {
            Self::Space(network, _) | Self::Subscription(network, _) | Self::Endpoint(network, _) => {
                Some(*network)
            }
            Self::Host(_) | Self::Network(_) | Self::Vni(_) | Self::Other(_) => None,
        }
    }

    /// The hosts that know it.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Endpoint(network, _) => Scope::Network(*network),
            Self::Host(_)
            | Self::Network(_)
            | Self::Vni(_)
            | Self::Space(..)
            | Self::Subscription(..)
            | Self::Other(_) => Scope::Global,
        }
    }

    /// The place of a key among those of its scope: a number that is hardly ever another key's. All hosts
    /// compute the same, and places are spread evenly.
    pub fn position(&self) -> u64 {
        let mut hash = Fnv::default();
        match self {
            Self::Host(host) => hash.feed(b"h").feed(&host.0),
            Self::Network(name) => hash.feed(b"n").feed(name.as_bytes()),
            Self::Vni(vni) => hash.feed(b"v").feed(&vni.to_be_bytes()),
            Self::Space(network, IpAddr::V4(first)) => {
                hash.feed(b"4").feed(network.bytes()).feed(&first.octets())
            }
            Self::Space(network, IpAddr::V6(first)) => {
                hash.feed(b"6").feed(network.bytes()).feed(&first.octets())
            }
            Self::Subscription(network, host) => hash.feed(b"s").feed(network.bytes()).feed(&host.0),
            Self::Endpoint(network, mac) => hash.feed(b"e").feed(network.bytes()).feed(&mac.0),
            Self::Other(text) => hash.feed(b"o").feed(text.as_bytes()),
        };
        hash.finish()
    }
}

/// The hosts that know a record, by their choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Every host.
    Global,
    /// The hosts that subscribe to a network.
    Network(Id),
}

/// FNV-1a, with the last step of MurmurHash3, so that the upper bits depend on all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, step);
        self
    }

    pub(crate) fn finish(self) -> u64 {
        let hash = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The value of a record: everything it says of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Value {
    /// A host of the cluster.
    Host(Host),
    /// A network that spans hosts.
    Network(Box<Network>),
    /// The owner of a number on the wire.
    Vni {
        /// The identifier of the network.
        network: String,
    },
    /// The owner of a range of addresses.
    Space(Space),
    /// A host's wish to hear of a network's endpoints.
    Subscription(Subscription),
    /// An endpoint.
    Endpoint(Endpoint),
    /// Something a newer vswitch knows.
    #[serde(untagged)]
    Other(serde_json::Value),
}

/// Fields that a newer vswitch knows.
pub type More = BTreeMap<String, serde_json::Value>;

/// A host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, for people.
    pub name: String,
    /// The address that its tunnels end at.
    pub vtep: IpAddr,
    /// Further fields.
    #[serde(flatten)]
    pub more: More,
}

/// A network that spans hosts, in the words in which a client asked for it, with everything chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its identifier, which is the same on every host.
    pub id: Id,
    /// The time when it was made (RFC 3339).
    pub created: String,
    /// The MAC address of its gateway, which is the switch of each host.
    pub gateway_mac: Mac,
    /// Its number on the wire.
    pub vni: u32,
    /// Its subnets, each with its gateway.
    pub pools: Vec<Pool>,
    /// Whether it has no default route.
    pub internal: bool,
    /// Docker's mark of a network that containers outside services may join.
    pub attachable: bool,
    /// Its options as they were written, and its MTU.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Further fields, as keys to encrypt with.
    #[serde(flatten)]
    pub more: More,
}

/// A subnet of a network, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    /// The subnet.
    pub subnet: IpNet,
    /// Its gateway.
    pub gateway: IpAddr,
    /// The part of it from which addresses are given to those who ask for none.
    #[serde(rename = "IPRange", default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNet>,
    /// Addresses that no endpoint gets, by name.
    #[serde(rename = "AuxiliaryAddresses", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A range of addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The last address of the range; the key has the first.
    pub last: IpAddr,
    /// The only host that gives them to endpoints, or to another host; `None` where whoever is first may take
    /// them, by compare-and-swap.
    pub owner: Option<HostId>,
}

/// A host's wish to hear of a network's endpoints. The key says it all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Further fields.
    #[serde(flatten)]
    pub more: More,
}

/// An endpoint, as other hosts know it. It lives on the host that wrote the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The name of its sandbox.
    pub sandbox: String,
    /// Its identifier.
    pub id: Id,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The address that the tunnels of its host end at.
    pub vtep: IpAddr,
    /// All its names: that of the sandbox first, then its short identifier, aliases and host name.
    pub names: Vec<String>,
    /// Further fields, as the service it is a member of.
    #[serde(flatten)]
    pub more: More,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// The host that wrote it.
    pub host: HostId,
    /// Its value; `None` when the thing is gone.
    pub value: Option<Value>,
}

impl Record {
    /// The rank, which decides between records of one key: the greater wins.
    pub fn rank(&self) -> (Version, HostId) {
        (self.version, self.host)
    }

    /// A number that is another one for every other key and rank.
    pub fn mark(&self) -> u64 {
        mark(self.key.position(), self.version, self.host)
    }

    /// Takes no more memory than it needs.
    pub fn fit(mut self) -> Self {
        if let Some(Value::Endpoint(endpoint)) = &mut self.value {
            endpoint.addresses.shrink_to_fit();
            endpoint.names.shrink_to_fit();
        }
        self
    }
}

/// A number that is another one for every other position of a key, version and writer.
pub(crate) fn mark(position: u64, version: Version, host: HostId) -> u64 {
    Fnv::default().feed(&position.to_be_bytes()).feed(&version.0.to_be_bytes()).feed(&host.0).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId::new([0xab; 16]);

    fn record(value: Option<Value>, key: &str) -> Record {
        Record { key: key.to_owned().into(), version: Version(7), host: HOST, value }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let network = Id::new([0xab; 32]);
        let keys = [
            Key::Host(HOST),
            Key::Network("front".to_owned()),
            Key::Vni(4097),
            Key::Space(network, "10.0.9.1".parse().expect("address")),
            Key::Space(network, "fd00::1".parse().expect("address")),
            Key::Subscription(network, HOST),
            Key::Endpoint(network, Mac([2, 0x42, 10, 0, 9, 5])),
            Key::Other("service/x".to_owned()),
        ];
        for key in keys {
            assert_eq!(Key::from(key.to_string()), key);
        }
        for text in ["vni/04097", "host/AB", "endpoint/x/y", "", "host"] {
            assert_eq!(Key::from(text.to_owned()), Key::Other(text.to_owned()));
        }
    }

    #[test]
    fn what_a_newer_vswitch_says_is_passed_on() {
        let host = r#"{"kind":"host","name":"a","vtep":"192.0.2.1","rack":7}"#;
        let service = r#"{"kind":"service","address":"10.0.9.2"}"#;
        for text in [host, service] {
            let value: Value = serde_json::from_str(text).expect(text);
            let again = serde_json::to_value(&value).expect("json");
            assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).expect("json"));
        }
        let record = record(serde_json::from_str(service).expect("value"), "service/web");
        let text = serde_json::to_string(&record).expect("json");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("record"), record);
    }

    #[test]
    fn a_clock_runs_ahead_of_all_it_has_seen() {
        let mut clock = Clock::default();
        let first = clock.next(Duration::from_millis(5));
        assert_eq!(first, Version(5 << 16));
        assert!(clock.next(Duration::from_millis(5)) > first);
        clock.see(Version(9 << 16));
        assert_eq!(clock.next(Duration::from_millis(6)), Version((9 << 16) + 1));
        assert_eq!(clock.next(Duration::from_millis(10)), Version(10 << 16));
    }

    #[test]
    fn a_version_of_tomorrow_is_ahead() {
        let now = Duration::from_secs(1_000_000);
        assert!(!Version::at(now).is_ahead(now) && !Version::at(now + AHEAD_MAX).is_ahead(now));
        assert!(Version::at(now + AHEAD_MAX + Duration::from_millis(1)).is_ahead(now));
        assert!(Version(u64::MAX).is_ahead(now));
    }
}
