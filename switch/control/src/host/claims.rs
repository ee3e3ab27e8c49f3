//! Ports of the host that are claimed ahead of need, for flows from containers to the world.
//!
//! # Theory of operation
//! A flow that leaves with an address of the host needs a port there that neither the host's programs nor its
//! stack use: a claim ([`vswitch_sys::claim`]). They come in blocks, from above the range that the kernel
//! gives to programs, then from the top of that range, so that few ranges say which they are and few programs
//! miss them. They are held until their address goes. The datapath has duplicates of the sockets, so either
//! process may end: the next one gets them from the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::claim::Claimed;
use vswitch_contract::claim::{Protocol, Wanted};
use vswitch_sys::claim;
use vswitch_sys::filter::{Families, Program};

use crate::link::Claim;

/// The longest setting that is read, in bytes: `ip_local_reserved_ports` may name every second port.
const SETTING_BYTES_MAX: usize = 256 * 1024;

/// The part of all claims that is left to protocols and addresses with fewer than so many.
const KEPT_BACK: usize = 8;

/// The ports that a host lends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lendable {
    /// Ports that the kernel gives to programs that ask for any.
    pub ephemeral: RangeInclusive<u16>,
    /// Ports that nobody is to be given.
    pub reserved: Vec<RangeInclusive<u16>>,
}

impl Lendable {
    /// Reads what the host's settings say.
    pub fn look() -> Self {
        let read = |name: &str| read_setting(&format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        Self::parse(&read("ip_local_port_range"), &read("ip_local_reserved_ports"))
    }

    fn parse(ephemeral: &str, reserved: &str) -> Self {
        let mut bounds = ephemeral.split_whitespace().filter_map(|word| word.parse().ok());
        let ephemeral = bounds.next().unwrap_or(32_768)..=bounds.next().unwrap_or(60_999);
        let reserved = reserved.trim().split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        Self { ephemeral, reserved: reserved.collect() }
    }

    /// The ports in the order in which they are claimed: those above the kernel's, then the upper half of
    /// these, so that the host's own programs go on finding some.
    fn in_order(&self) -> impl Iterator<Item = u16> {
        let above = (u32::from(*self.ephemeral.end()) + 1)..=u32::from(u16::MAX);
        let above = above.filter_map(|port| u16::try_from(port).ok());
        let all = above.chain(self.ephemeral.clone().rev().take(self.ephemeral.len() / 2));
        all.filter(|port| !self.reserved.iter().any(|reserved| reserved.contains(port)))
    }
}

/// Reads a setting by one call: the kernel ends the file after the first, however little that asked for.
fn read_setting(path: &str) -> io::Result<String> {
    let mut text = vec![0; SETTING_BYTES_MAX];
    let length = File::open(path)?.read(&mut text)?;
    text.truncate(length);
    String::from_utf8(text).map_err(io::Error::other)
}

/// Claimed ports, each with its socket.
#[derive(Debug)]
pub struct Claims {
    pools: BTreeMap<(Protocol, IpAddr), BTreeMap<u16, Arc<OwnedFd>>>,
    /// Claims that nobody has a duplicate of yet.
    fresh: Vec<Claim>,
    /// The interfaces from which the sockets hear nothing, by index.
    uplinks: Vec<u32>,
    /// Most claims there may be, as each takes a descriptor.
    limit: usize,
}

impl Claims {
    /// No claims, and room for so many.
    pub fn new(limit: usize) -> Self {
        Self { pools: BTreeMap::new(), fresh: Vec::new(), uplinks: Vec::new(), limit }
    }

    /// Takes up the claims of a control before this one.
    pub fn take_up(&mut self, claims: Vec<Claim>) {
        for (Claimed { protocol, address, port }, socket) in claims {
            self.pools.entry((protocol, address)).or_default().insert(port, socket);
        }
    }

    /// Takes the claims made since the last time.
    pub fn take_fresh(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.fresh)
    }

    /// Protocols and addresses for which there are claims.
    pub fn held(&self) -> Vec<(Protocol, IpAddr)> {
        self.pools.keys().copied().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pools.values().map(BTreeMap::len).sum()
    }

    /// Lets go of ports that nobody uses any more.
    pub fn release(&mut self, protocol: Protocol, address: IpAddr, ports: &BTreeSet<u16>) {
        if let Some(pool) = self.pools.get_mut(&(protocol, address)) {
            pool.retain(|port, _| !ports.contains(port));
        }
        let is_one =
            |of: &Claimed| (of.protocol, of.address) == (protocol, address) && ports.contains(&of.port);
        self.fresh.retain(|(claimed, _)| !is_one(claimed));
    }

    /// Goes on with these addresses only, on other interfaces perhaps. While there is no uplink the sockets
    /// are deaf to the last: it may be back before anybody says so.
    pub fn settle(&mut self, uplinks: &[u32], addresses: &[IpAddr]) {
        self.pools.retain(|(_, address), _| addresses.contains(address));
        self.fresh.retain(|(claimed, _)| addresses.contains(&claimed.address));
        if self.uplinks != uplinks && !uplinks.is_empty() {
            self.uplinks = uplinks.to_vec();
            let filter = Program::deaf_to(uplinks, Families::BOTH);
            for socket in self.pools.values().flat_map(BTreeMap::values) {
                if let Err(error) = filter.attach(socket.as_fd()) {
                    tracing::warn!("a claimed port may answer the uplink: {error}");
                }
            }
        }
    }

    /// Whether there is any claim for a protocol at an address.
    pub fn has(&self, protocol: Protocol, address: IpAddr) -> bool {
        self.pools.contains_key(&(protocol, address))
    }

    /// Claims as many ports as are wanted, if there are. Says how many are wanting because the limit is
    /// reached, of which the last part is left to protocols and addresses that have few.
    pub fn claim(&mut self, wanted: &Wanted, lendable: &Lendable) -> usize {
        let Wanted { protocol, address, ports } = *wanted;
        let few = self.limit / KEPT_BACK;
        let has = self.pools.get(&(protocol, address)).map_or(0, BTreeMap::len);
        let limit = if has < few { self.limit } else { self.limit - few };
        let mut missing = ports.min(limit.saturating_sub(self.count()));
        let short = ports - missing;
        let pool = self.pools.entry((protocol, address)).or_default();
        for port in lendable.in_order() {
            if missing == 0 {
                break;
            }
            if pool.contains_key(&port) {
                continue;
            }
            match claim(protocol, SocketAddr::new(address, port), &self.uplinks) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    self.fresh.push((Claimed { protocol, address, port }, Arc::clone(&socket)));
                    pool.insert(port, socket);
                    missing -= 1;
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::warn!("cannot claim a port at {address}: {error}");
                    return 0;
                }
            }
        }
        short
    }

    /// The claimed ports of a protocol at an address.
    pub fn ranges(&self, protocol: Protocol, address: IpAddr) -> Vec<RangeInclusive<u16>> {
        let pool = self.pools.get(&(protocol, address));
        ranges(pool.into_iter().flat_map(BTreeMap::keys).copied())
    }

    /// The claimed ports of a protocol at all addresses.
    pub fn all_ranges(&self, protocol: Protocol) -> Vec<RangeInclusive<u16>> {
        let keys = self.pools.keys().filter(|(of, _)| *of == protocol);
        keys.flat_map(|(_, address)| self.ranges(protocol, *address)).collect()
    }
}

fn claim(protocol: Protocol, address: SocketAddr, uplinks: &[u32]) -> io::Result<OwnedFd> {
    match protocol {
        Protocol::Tcp => claim::tcp(address, uplinks),
        Protocol::Udp => claim::udp(address, uplinks),
        Protocol::Icmp | Protocol::Icmp6 | Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Ports in ascending order, as ranges.
fn ranges(ports: impl Iterator<Item = u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
            _ => ranges.push(port..=port),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_what_is_lent() {
        let lendable = Lendable::parse("32768\t60999\n", "61000-65000,65010\n");
        assert_eq!(lendable.ephemeral, 32_768..=60_999);
        assert_eq!(lendable.reserved, [61_000..=65_000, 65_010..=65_010]);
        let order: Vec<u16> = lendable.in_order().collect();
        assert_eq!((order[0], order[9], order[10]), (65_001, 65_011, 65_012));
        assert_eq!(order[533..535], [65_535, 60_999]);
        assert_eq!(Lendable::parse("", "").ephemeral, 32_768..=60_999);
    }

    #[test]
    fn claims_skip_ports_in_use_and_go_with_their_address() {
        let address: IpAddr = [127, 0, 0, 1].into();
        let taken = std::net::UdpSocket::bind((address, 0)).expect("a socket");
        let port = taken.local_addr().expect("bound").port();
        let first = port.saturating_sub(7);
        let lendable =
            Lendable { ephemeral: first..=port, reserved: vec![port.saturating_add(1)..=u16::MAX] };
        let mut claims = Claims::new(100);
        claims.claim(&Wanted { protocol: Protocol::Udp, address, ports: 2 }, &lendable);
        let claimed = claims.ranges(Protocol::Udp, address);
        assert!(!claimed.iter().any(|range| range.contains(&port)), "{claimed:?}");
        assert_eq!(claims.all_ranges(Protocol::Udp), claimed);
        let own = claimed.first().map(|range| *range.start()).expect("a claim");
        assert!(std::net::UdpSocket::bind((address, own)).is_err(), "nobody else can bind it");
        assert_eq!(claims.take_fresh().len(), 2, "each is handed over");
        assert!(claims.take_fresh().is_empty(), "once");
        claims.settle(&[1], &[]);
        assert!(!claims.has(Protocol::Udp, address));
        assert!(std::net::UdpSocket::bind((address, own)).is_ok());
    }
}
