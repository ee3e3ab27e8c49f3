//! The state of control: networks, sandboxes, endpoints. No operation here, only finding and counting.
//!
//! Everything is found by name; whole identifiers and their beginnings serve where Docker takes them.
//!
//! Networks and sandboxes are plain data that is committed after every job; descriptors are kept elsewhere
//! (`Control::remains`). Whatever follows from that data, such as which addresses are in use, is not
//! committed but derived again by [`State::restore`], so that nothing can be in use by nobody.

mod change;
pub mod host_port;
mod identity;
mod journal;
pub mod mode;
pub mod overlay;
pub mod records;
pub mod rules;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_cluster::family::Family;
use vswitch_cluster::id::Id;
use vswitch_cluster::record::{HostId, Record};
use vswitch_cluster::space;
use vswitch_contract::reserved::PORTS_FREE;
use vswitch_frame::{Mac, NetworkId, PortId};
use vswitch_sys::netns::NetNs;

use crate::api::types::Map;
use crate::error::{Code, Error, Result};
use crate::network::ipam::Pools;
use crate::network::options::{NetworkOptions, PortType, Sysctl};
use crate::network::predefined::{self, PREDEFINED};
use crate::publish::published::Published;
use crate::publish::spec::Exposed;
use crate::state::host_port::HostPort;
pub use crate::state::identity::{Identity, Numbers as NamespaceNumbers};
use crate::state::mode::Mode;
use crate::state::overlay::Overlay;
use crate::state::records::Records;
use crate::state::rules::Rules;

/// Everything there is.
#[derive(Debug)]
pub struct State {
    /// Networks by name.
    pub networks: Records<Network>,
    /// Sandboxes by name.
    pub sandboxes: Records<Sandbox>,
    /// Named network namespaces that are being made, before there is a sandbox to own them. What is here
    /// when control starts was made by a control that died over it.
    pub namespaces: Records<Identity>,
    /// The user's rules.
    pub rules: Rules,
    /// The identifier of this host in its cluster, once it is in one.
    pub host: Option<HostId>,
    /// Records that this host says in its cluster, by key, and records of others that it must not forget.
    pub said: Records<Record>,
    /// Numbers of networks.
    pub network_numbers: Numbers,
    /// Numbers of ports.
    pub port_numbers: Numbers,
    /// Numbers of sandboxes.
    pub sandbox_numbers: Numbers,
}

/// A network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its identifier, which no other network has.
    pub id: Id,
    /// Its number in the datapath.
    pub number: NetworkId,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The MAC address of its gateway, which is the switch.
    pub gateway_mac: Mac,
    /// Whether names of its endpoints are answered: all networks but the default one do.
    pub resolves: bool,
    /// Whether it goes without a default route.
    pub internal: bool,
    /// Docker's mark of a network that containers outside services may join: kept and shown.
    pub attachable: bool,
    /// Its options, as they were read.
    pub options: NetworkOptions,
    /// Its options as they were written.
    pub written_options: Map,
    /// Its labels.
    pub labels: Map,
    /// Its port to the host.
    pub host_port: Option<HostPort>,
    /// Its overlay, if it spans hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// Its addresses.
    pub pools: Pools,
    /// MAC addresses of its gateway and its endpoints.
    #[serde(skip)]
    pub macs: BTreeSet<Mac>,
}

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its identifier, which no other sandbox has.
    pub id: Id,
    /// Its number in the datapath.
    pub number: u16,
    /// When it was made or attached (RFC 3339).
    pub created: String,
    /// Its host name, if it has one of its own.
    pub hostname: Option<String>,
    /// Its mode: whose network it uses.
    pub mode: Mode,
    /// The place of its own network namespace; `None` if it uses another one's, and for that of a descriptor
    /// someone else made.
    pub place: Option<Place>,
    /// Whether we made it, and its own network namespace if it has one.
    pub made: bool,
    /// Its endpoints, in the order they were made.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports, in the order they were published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
    /// Ports that are published no longer, but for the flows that they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<Published>,
    /// The ports that it is said to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<Exposed>,
    /// When its container was found to be gone (RFC 3339), if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
}

/// The place of a network namespace.
///
/// It is not kept open, which would keep the namespace alive; its identity tells whether the path still
/// leads there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// The namespace found there.
    pub identity: Identity,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its identifier, which no other endpoint has.
    pub id: Id,
    /// The name of its network.
    pub network: String,
    /// Its port of the switch.
    pub port: PortId,
    /// The type of the port.
    pub port_type: PortType,
    /// Its interface in the sandbox; `None` when another process made it.
    pub interface: Option<String>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, at most one of each family, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Other names of the sandbox on this network.
    pub aliases: Vec<String>,
    /// Its priority: the higher, the rather it provides the default route.
    pub priority: i32,
    /// Settings of the kernel's for its interface.
    pub sysctls: Vec<Sysctl>,
    /// When its interface was found to be gone (RFC 3339), if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            networks: Records::default(),
            sandboxes: Records::default(),
            namespaces: Records::default(),
            rules: Rules::default(),
            host: None,
            said: Records::default(),
            network_numbers: Numbers::new(NetworkId::LIMIT),
            port_numbers: Numbers::new(PORTS_FREE),
            sandbox_numbers: Numbers::new(usize::from(u16::MAX)),
        }
    }
}

impl State {
    /// The state of what was committed.
    pub fn restore(
        mut networks: BTreeMap<String, Network>,
        sandboxes: BTreeMap<String, Sandbox>,
        namespaces: BTreeMap<String, Identity>,
        rules: Rules,
        said: BTreeMap<String, Record>,
        host: Option<HostId>,
    ) -> Self {
        let endpoints = || sandboxes.values().flat_map(|sandbox| &sandbox.endpoints);
        for (name, network) in &mut networks {
            let own = || endpoints().filter(|endpoint| endpoint.network == *name);
            network.pools.restore(own().flat_map(|endpoint| &endpoint.addresses));
            if network.is_shared() {
                network.pools.set_owned(&space::owned(said.values(), network.id, host), &[]);
            }
            network.macs = own().map(|endpoint| endpoint.mac).chain([network.gateway_mac]).collect();
        }
        let endpoint_ports = endpoints().map(|endpoint| endpoint.port.0);
        let host_ports =
            networks.values().filter_map(|network| network.host_port.as_ref()).map(|host| host.port.0);
        let tunnels =
            networks.values().filter_map(|network| network.overlay.as_ref()).map(|overlay| overlay.port.0);
        Self {
            network_numbers: Numbers::without(
                NetworkId::LIMIT,
                networks.values().map(|network| network.number.0),
            ),
            port_numbers: Numbers::without(PORTS_FREE, endpoint_ports.chain(host_ports).chain(tunnels)),
            sandbox_numbers: Numbers::without(
                usize::from(u16::MAX),
                sandboxes.values().map(|sandbox| sandbox.number),
            ),
            networks: Records::committed(networks),
            sandboxes: Records::committed(sandboxes),
            namespaces: Records::committed(namespaces),
            rules,
            host,
            said: Records::committed(said),
        }
    }

    /// This state, with nothing but what is committed of it, and what follows from that.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::restore(
            (*self.networks).clone(),
            (*self.sandboxes).clone(),
            (*self.namespaces).clone(),
            self.rules.clone(),
            (*self.said).clone(),
            self.host,
        )
    }

    /// The name of the network that `key` names: its name, its identifier or the beginning of that.
    ///
    /// # Errors
    /// When there is none, or more than one begins so, or it is one that takes no endpoints.
    pub fn network_name(&self, key: &str) -> Result<String> {
        let name = self.any_network_name(key)?;
        if predefined::find(&name).is_some() { Err(predefined::no_segment(&name)) } else { Ok(name) }
    }

    /// As [`network_name`](Self::network_name), but it may be [predefined](crate::network::predefined).
    ///
    /// # Errors
    /// When there is none, or more than one begins so.
    pub fn any_network_name(&self, key: &str) -> Result<String> {
        self.network_name_among(key, std::iter::empty())
    }

    /// As [`any_network_name`](Self::any_network_name), and among others that are not here.
    ///
    /// # Errors
    /// When there is none, or more than one begins so.
    pub fn network_name_among<'a>(
        &'a self,
        key: &str,
        others: impl Iterator<Item = (&'a str, Id)>,
    ) -> Result<String> {
        let ids = self.networks.iter().map(|(name, network)| (name.as_str(), network.id));
        let ids = ids.chain(PREDEFINED.iter().map(|predefined| (predefined.name, predefined.id)));
        let ids = ids.chain(others);
        let mend = "see \"vswitch network ls\"";
        let is_name = self.networks.contains_key(key) || predefined::find(key).is_some();
        resolve("network", key, is_name, ids, Code::NetworkNotFound, mend)
    }

    /// The name of the sandbox that `key` names.
    ///
    /// # Errors
    /// When there is none, or more than one begins so.
    pub fn sandbox_name(&self, key: &str) -> Result<String> {
        let ids = self.sandboxes.iter().map(|(name, sandbox)| (name.as_str(), sandbox.id));
        let mend = "see \"vswitch sandbox ls\"";
        resolve("sandbox", key, self.sandboxes.contains_key(key), ids, Code::SandboxNotFound, mend)
    }

    /// The network of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn network(&mut self, name: &str) -> Result<&mut Network> {
        let missing = || not_found("network", name, Code::NetworkNotFound, "see \"vswitch network ls\"");
        self.networks.get_mut(name).ok_or_else(missing)
    }

    /// The sandbox of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn sandbox(&mut self, name: &str) -> Result<&mut Sandbox> {
        let missing = || not_found("sandbox", name, Code::SandboxNotFound, "see \"vswitch sandbox ls\"");
        self.sandboxes.get_mut(name).ok_or_else(missing)
    }

    /// Every endpoint, with the name of its sandbox.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        let sandboxes = self.sandboxes.iter();
        sandboxes.flat_map(|(name, sandbox)| {
            sandbox.endpoints.iter().map(move |endpoint| (name.as_str(), endpoint))
        })
    }

    /// Takes back all that an endpoint was given, which is gone by now.
    pub fn forget_endpoint(&mut self, network: &str, port: PortId, mac: Mac, addresses: &[IpNet]) {
        if let Some(network) = self.networks.get_mut(network) {
            network.pools.release(addresses);
            network.macs.remove(&mac);
        }
        self.port_numbers.give_back(port.0);
    }
}

impl Network {
    /// Whether it is the cluster's, and its addresses are shared with other hosts.
    pub fn is_shared(&self) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.shared)
    }
}

impl Endpoint {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> Option<IpNet> {
        self.addresses.iter().copied().find(|net| Family::of(net.addr()) == family)
    }
}

impl Sandbox {
    /// Opens its namespace.
    ///
    /// # Errors
    /// When it is gone, or there is another one now at its place.
    pub fn open(&self, name: &str) -> Result<NetNs> {
        let Some(place) = &self.place else {
            let message =
                format!("sandbox {name:?} is a descriptor, not a namespace: attach another descriptor");
            return Err(Error::new(Code::WrongKind, message));
        };
        let netns = NetNs::open(&place.path).ok().filter(|netns| place.identity.is_of(netns));
        netns.ok_or_else(|| {
            let path = place.path.display();
            let message =
                format!("the network namespace of sandbox {name:?}, {path}, is gone: remove the sandbox");
            Error::new(Code::NamespaceNotFound, message)
        })
    }
}

fn resolve<'a>(
    what: &str,
    key: &str,
    is_name: bool,
    ids: impl Iterator<Item = (&'a str, Id)>,
    code: Code,
    mend: &str,
) -> Result<String> {
    if is_name {
        return Ok(key.to_owned());
    }
    let mut found = ids.filter(|(_, id)| id.starts_with(key)).map(|(name, _)| name);
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (Some(one), Some(other)) => {
            let message = format!("{what} {key:?}: {one:?} and {other:?} begin so: write more digits");
            Err(Error::new(Code::InvalidArgument, message))
        }
        (None, _) => Err(not_found(what, key, code, mend)),
    }
}

fn not_found(what: &str, key: &str, code: Code, mend: &str) -> Error {
    Error::new(code, format!("{what} {key:?} not found: {mend}"))
}

/// Small numbers that are used again, the lowest first.
#[derive(Debug)]
pub struct Numbers {
    limit: usize,
    next: u16,
    returned: BTreeSet<u16>,
}

impl Numbers {
    /// The numbers below `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, next: 0, returned: BTreeSet::new() }
    }

    /// The numbers below `limit` that are not in use.
    pub fn without(limit: usize, used: impl Iterator<Item = u16>) -> Self {
        let used: BTreeSet<u16> = used.collect();
        let next = used.last().map_or(0, |last| last.saturating_add(1));
        Self { limit, next, returned: (0..next).filter(|number| !used.contains(number)).collect() }
    }

    /// The lowest number not in use, or `None` at the limit.
    pub fn take(&mut self) -> Option<u16> {
        if let Some(number) = self.returned.pop_first() {
            return Some(number);
        }
        let number = self.next;
        (usize::from(number) < self.limit).then(|| {
            self.next += 1;
            number
        })
    }

    /// Makes a number free again.
    pub fn give_back(&mut self, number: u16) {
        self.returned.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut numbers = Numbers::new(3);
        let taken: Vec<_> = (0..4).map(|_| numbers.take()).collect();
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
        numbers.give_back(1);
        assert_eq!(numbers.take(), Some(1));
        assert_eq!(numbers.take(), None);
    }

    #[test]
    fn numbers_in_use_are_not_given() {
        let mut numbers = Numbers::without(5, [3, 1].into_iter());
        let taken: Vec<_> = (0..4).map(|_| numbers.take()).collect();
        assert_eq!(taken, [Some(0), Some(2), Some(4), None]);
    }

    #[test]
    fn names_come_before_beginnings_of_identifiers() {
        let names = ["aa".to_owned(), "b".to_owned()];
        let ids = || names.iter().map(String::as_str).zip([Id::new([0xbb; 32]), Id::new([0xba; 32])]);
        let find =
            |key: &str, is_name| resolve("network", key, is_name, ids(), Code::NetworkNotFound, "mend");
        assert_eq!(find("b", true), Ok("b".to_owned()));
        assert_eq!(find("bb", false), Ok("aa".to_owned()));
        assert_eq!(find("b", false).expect_err("two").code, Code::InvalidArgument);
        let expected = Error::new(Code::NetworkNotFound, "network \"x\" not found: mend");
        assert_eq!(find("x", false), Err(expected));
    }
}
