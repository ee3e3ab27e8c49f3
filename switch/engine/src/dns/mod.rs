//! Names: what the switch answers for its containers.
//!
//! # Theory of operation
//!
//! A container asks the gateway of its network, and the answer follows from the port the question came
//! in by, never from what the question claims. Names are searched on the networks of that port's sandbox,
//! the one with the highest priority first. On each the name as it was written counts, then what is left
//! of `NAME.NETWORK`. Every endpoint of that name is in the answer, in random order.
//!
//! | question | answer |
//! |---|---|
//! | a name that is known, with addresses of the family | those, for [`TTL_SECONDS`] |
//! | a name that is known, any other type | no error and no records; never forwarded |
//! | the address of an endpoint on one of the networks | `NAME.NETWORK` |
//! | anything else | to be forwarded: [`Resolution::Forward`] |
//! | anything else, from a sandbox on nothing but internal networks | server failure, as Docker has it |
//!
//! A network that does not resolve, as the default one, has no names: its questions are forwarded.
//! Time does not come into it, and chance is an argument.
//!
//! | module | |
//! |---|---|
//! | [`message`] | the wire format |
//! | [`datagram`] | the frame around it |
//! | `index` | what is looked up |

pub mod datagram;
pub(crate) mod index;
pub mod message;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::{Mac, NetworkId, PortId};

use crate::bindings::Owner;
use crate::network::{Endpoint, Remote, Station};
use crate::switch::Switch;
use index::{Membership, Named};
use message::{Answer, Query, Rcode, Unanswerable, kind};

/// The time an answer of ours holds, in seconds: containers come and go, and asking again is cheap.
pub const TTL_SECONDS: u32 = 5;

/// The road that an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// A datagram with room for so many bytes, or fewer if the client takes fewer.
    Datagram(usize),
    /// A stream, which takes whatever there is.
    Stream,
}

impl Road {
    /// The longest answer to a query, in bytes.
    pub fn limit(self, query: &Query<'_>) -> usize {
        match self {
            Self::Datagram(room) => query.udp_limit().min(room),
            Self::Stream => message::MESSAGE_BYTES_MAX,
        }
    }
}

/// The outcome of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The answer was written.
    Answered,
    /// The name is not ours: somebody else must be asked.
    Forward,
    /// No question at all: there is nothing to answer.
    Ignored,
}

impl Switch {
    /// Answers the question that a container asked its gateway.
    ///
    /// `message` came in at port `ingress`. The answer goes to `out`, which is emptied first; `chance`
    /// shuffles it.
    pub fn resolve(
        &self,
        ingress: PortId,
        message: &[u8],
        road: Road,
        chance: u64,
        out: &mut Vec<u8>,
    ) -> Resolution {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Unanswerable::NoQuery) => return Resolution::Ignored,
            Err(Unanswerable::Refused { id, rcode }) => {
                message::refuse(id, rcode, out);
                return Resolution::Answered;
            }
        };
        let Some(Station::Container(endpoint)) = self.ports.get(ingress).map(|port| &port.station) else {
            message::empty(&query, Rcode::Refused, out);
            return Resolution::Answered;
        };
        let limit = road.limit(&query);
        let networks = self.names.networks_of(endpoint.sandbox);
        if query.class == message::CLASS_IN && self.answer_name(&query, networks, limit, chance, out) {
            return Resolution::Answered;
        }
        if networks.iter().all(|at| self.ports.network(at.network).is_some_and(|network| network.internal)) {
            message::empty(&query, Rcode::ServerFailure, out);
            return Resolution::Answered;
        }
        Resolution::Forward
    }

    /// Answers what there is an answer to here; says whether there was.
    fn answer_name(
        &self,
        query: &Query<'_>,
        networks: &[Membership],
        limit: usize,
        chance: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let name = query.name();
        if let (kind::PTR, Some(address)) = (query.kind, reverse(name.bytes())) {
            return self.answer_address(query, networks, address, limit, out);
        }
        let mut known = false;
        let mut addresses = Vec::new();
        for at in networks {
            let named = self.named(*at, name.bytes());
            known |= !named.is_empty();
            for who in named {
                self.addresses_of(at.network, *who, &mut addresses);
            }
            addresses.retain(|address| is_asked_for(query.kind, *address));
            if !addresses.is_empty() {
                break;
            }
        }
        if !known {
            return false;
        }
        shuffle(&mut addresses, chance);
        let mut answer = Answer::new(query, Rcode::NoError, limit, out);
        for address in addresses {
            let fits = match address {
                IpAddr::V4(address) => answer.record(kind::A, TTL_SECONDS, &address.octets()),
                IpAddr::V6(address) => answer.record(kind::AAAA, TTL_SECONDS, &address.octets()),
            };
            if !fits {
                break;
            }
        }
        answer.finish();
        true
    }

    /// Answers whose address it is.
    fn answer_address(
        &self,
        query: &Query<'_>,
        networks: &[Membership],
        address: IpAddr,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let found = networks.iter().find_map(|at| {
            let network = self.ports.network(at.network).filter(|network| network.resolves)?;
            let owner = self.bindings.find(at.network, address);
            let names = match owner.filter(|(network, _)| *network == at.network) {
                Some((_, Owner::Port(port))) => &self.endpoint(port)?.names,
                Some((_, Owner::Gateway)) => return None,
                None => &self.names.remote_at(at.network, address)?.names,
            };
            let mut name = Vec::new();
            let labels = [names.first()?.as_str(), network.name.as_str()];
            message::write_name(&labels, &mut name).then_some(name)
        });
        let Some(name) = found else { return false };
        let mut answer = Answer::new(query, Rcode::NoError, limit, out);
        answer.record(kind::PTR, TTL_SECONDS, &name);
        answer.finish();
        true
    }

    /// The endpoints that a name stands for on a network: the name as it is, or what is left of it without
    /// the name of the network.
    fn named(&self, at: Membership, name: &[u8]) -> &[Named] {
        let Some(network) = self.ports.network(at.network).filter(|network| network.resolves) else {
            return &[];
        };
        let named = self.names.named(at.network, name);
        if !named.is_empty() {
            return named;
        }
        without_suffix(name, network.name.as_bytes())
            .map(|name| self.names.named(at.network, name))
            .unwrap_or_default()
    }

    fn addresses_of(&self, network: NetworkId, who: Named, addresses: &mut Vec<IpAddr>) {
        match who {
            Named::Port(port) => {
                let endpoint = self.endpoint(port);
                addresses
                    .extend(endpoint.iter().flat_map(|endpoint| &endpoint.addresses).map(ipnet::IpNet::addr));
            }
            Named::Remote(mac) => {
                let remote = self.names.remote(network, mac);
                addresses.extend(remote.iter().flat_map(|remote| &remote.addresses));
            }
        }
    }

    /// Says the names and addresses of an endpoint on another host, or that there is none. They are answered
    /// by the rules of this host's own.
    pub fn name_remote(&mut self, network: NetworkId, mac: Mac, remote: Option<Remote>) {
        if self.ports.network(network).is_some() {
            self.names.set_remote(network, mac, remote);
        }
    }

    /// Forgets the names of all endpoints on other hosts.
    pub fn forget_remote_names(&mut self) {
        self.names.forget_remotes();
    }

    fn endpoint(&self, port: PortId) -> Option<&Endpoint> {
        match &self.ports.get(port)?.station {
            Station::Container(endpoint) => Some(endpoint),
            Station::Unknown | Station::Host | Station::Tunnel => None,
        }
    }
}

/// The rest of `NAME.SUFFIX`, whatever the case of the suffix.
fn without_suffix<'a>(name: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let dot = name.len().checked_sub(suffix.len() + 1)?;
    let matches = name[dot] == b'.' && name[dot + 1..].eq_ignore_ascii_case(suffix);
    matches.then(|| &name[..dot])
}

fn is_asked_for(kind: u16, address: IpAddr) -> bool {
    match kind {
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        kind::ANY => true,
        _ => false,
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut address = [0; 4];
        let mut labels = octets.split('.');
        for octet in address.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(address).into());
    }
    let mut labels = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut address = 0u128;
    for at in 0..32 {
        let label = labels.next().filter(|label| label.len() == 1)?;
        address |= u128::from(u8::from_str_radix(label, 16).ok()?) << (4 * at);
    }
    labels.next().is_none().then(|| Ipv6Addr::from(address).into())
}

/// Shuffles, after Fisher and Yates, with the numbers of `SplitMix64`.
fn shuffle<T>(items: &mut [T], chance: u64) {
    let mut state = chance;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
        let other = usize::try_from((number ^ (number >> 31)) % bound).unwrap_or(0);
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests;
