//! Addresses of a network: which are in use, and which is next.
//!
//! # Theory of operation
//! A network has [`Pools`], one or several for each family, each a subnet with a gateway. An endpoint
//! gets one address of each family: the one it asks for, from the pool that has it, or else the next
//! free one of the first pool that has one. Allocation *rotates*: it goes on behind the last address
//! given and wraps around, so an address just released is not given to the next who comes.
//!
//! The network address is never given, nor the broadcast address of IPv4, but for the prefixes where
//! they do not exist: /31 and /32 (RFC 3021), /127 and /128 (RFC 6164). A range of a pool limits which
//! address is next, not which one may be asked for. Reserved addresses are somebody else's: never given.
//! Everything here is pure.
//!
//! A pool of a network that spans hosts is shared: this host gives only the addresses that it *owns*
//! ([`vswitch_cluster::space`]).
//!
//! The time to allocate is that to step over addresses in use behind the last one given: one step in a
//! network that is not nearly full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use vswitch_cluster::family::{Family, address_of, number};
use vswitch_cluster::space::Range;
use vswitch_cluster::view::Wish;

use crate::error::{Code, Error, Result};

#[cfg(test)]
mod model;

/// The name under which a reserved address is the default gateway of containers.
const DEFAULT_GATEWAY_V4: &str = "DefaultGatewayIPv4";
const DEFAULT_GATEWAY_V6: &str = "DefaultGatewayIPv6";

/// A pool as it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// Its subnet.
    pub subnet: IpNet,
    /// The gateway; `None` for the first address nobody else has.
    pub gateway: Option<IpAddr>,
    /// The part from which endpoints get an address that ask for none; `None` for the whole subnet.
    pub range: Option<IpNet>,
    /// Addresses that no endpoint gets, by name.
    pub reserved: BTreeMap<String, IpAddr>,
}

impl PoolPlan {
    /// A pool of this subnet, and nothing more to say.
    pub fn new(subnet: IpNet) -> Self {
        Self { subnet, gateway: None, range: None, reserved: BTreeMap::new() }
    }
}

/// One subnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    plan: PoolPlan,
    subnet: IpNet,
    gateway: IpAddr,
    #[serde(skip)]
    used: BTreeSet<u128>,
    /// Ranges of it that this host owns; `None` for all of it.
    #[serde(skip)]
    owned: Option<Vec<Range>>,
    /// Addresses of it that containers on other hosts have, whoever owns them.
    #[serde(skip)]
    elsewhere: BTreeSet<u128>,
    last: u128,
}

impl Pool {
    /// A pool.
    ///
    /// # Errors
    /// When the gateway, the range or a reserved address is not of the subnet, when two of them are one
    /// address, or when the subnet is none that hosts can have addresses of.
    pub fn new(plan: PoolPlan) -> Result<Self> {
        let subnet = plan.subnet;
        check_prefix("subnet", subnet)?;
        refuse_special(subnet)?;
        if let Some(range) = plan.range {
            check_prefix("ip-range", range)?;
            if !subnet.contains(&range) {
                let message =
                    format!("ip-range {range} is not inside subnet {subnet}: choose a part of that subnet");
                return Err(Error::new(Code::AddressOutside, message));
            }
        }
        let (_, last) = bounds(plan.range.unwrap_or(subnet), subnet);
        let (used, elsewhere) = (BTreeSet::new(), BTreeSet::new());
        let mut pool = Self { subnet, gateway: subnet.network(), used, owned: None, elsewhere, last, plan };
        for (name, address) in &pool.plan.reserved.clone() {
            let other = if subnet.addr().is_ipv4() { DEFAULT_GATEWAY_V6 } else { DEFAULT_GATEWAY_V4 };
            if name == other {
                let message = format!("aux-address {name}={address} is of the other family: choose another");
                return Err(Error::new(Code::InvalidArgument, message));
            }
            pool.reserve(&format!("aux-address {name}={address}"), *address)?;
        }
        pool.gateway = match pool.plan.gateway {
            Some(gateway) => {
                pool.reserve(&format!("gateway {gateway}"), gateway)?;
                gateway
            }
            None => pool.first_free().ok_or_else(|| exhausted(&[subnet.to_string()]))?,
        };
        Ok(pool)
    }

    /// The plan it was made of; the gateway is `None` there when nobody chose it.
    pub fn plan(&self) -> &PoolPlan {
        &self.plan
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The gateway: an address of the switch.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The default gateway of containers: the gateway unless a reserved address takes its place.
    pub fn default_gateway(&self) -> IpAddr {
        let name = if self.gateway.is_ipv4() { DEFAULT_GATEWAY_V4 } else { DEFAULT_GATEWAY_V6 };
        self.plan.reserved.get(name).copied().unwrap_or(self.gateway)
    }

    /// Takes an address for something that is no endpoint.
    fn reserve(&mut self, what: &str, address: IpAddr) -> Result<()> {
        if !self.subnet.contains(&address) {
            let subnet = self.subnet;
            let message = format!("{what} is no address of subnet {subnet}: choose one of that subnet");
            return Err(Error::new(Code::AddressOutside, message));
        }
        self.take(address).map_err(|error| Error::new(error.code, format!("{what}: {}", error.message)))
    }

    /// Takes the first address of the subnet that is free.
    fn first_free(&mut self) -> Option<IpAddr> {
        let (first, last) = bounds(self.subnet, self.subnet);
        let free = (first..=last).find(|at| !self.used.contains(at))?;
        self.used.insert(free);
        Some(address_of(Family::of(self.gateway), free))
    }

    fn take(&mut self, address: IpAddr) -> Result<()> {
        let (first, last) = bounds(self.subnet, self.subnet);
        if !(first..=last).contains(&number(address)) {
            return Err(Error::new(
                Code::AddressOutside,
                format!("address {address} stands for subnet {} itself: choose another one", self.subnet),
            ));
        }
        if !self.used.insert(number(address)) {
            return Err(Error::new(
                Code::AddressInUse,
                format!(
                    "{address}: Address already in use: choose another one, or none for the next free one"
                ),
            ));
        }
        Ok(())
    }

    fn next_free(&mut self) -> Option<IpAddr> {
        let at = self.find_free()?;
        self.used.insert(at);
        self.last = at;
        Some(address_of(Family::of(self.gateway), at))
    }

    /// The free address that is next: behind the last one given, or else from the start.
    fn find_free(&self) -> Option<u128> {
        let parts = self.parts();
        let behind = parts.iter().map(|(first, last)| ((*first).max(self.last.saturating_add(1)), *last));
        let before = parts.iter().map(|(first, last)| (*first, (*last).min(self.last)));
        let mut parts = behind.chain(before).filter(|(first, last)| first <= last);
        let is_free = |at: &u128| !self.used.contains(at) && !self.elsewhere.contains(at);
        parts.find_map(|(first, last)| (first..=last).find(is_free))
    }

    /// The parts of it from which addresses are given, as numbers, in order.
    fn parts(&self) -> Vec<(u128, u128)> {
        let (first, last) = bounds(self.plan.range.unwrap_or(self.subnet), self.subnet);
        let whole = [Range::of(self.subnet)];
        let owned = self.owned.as_deref().unwrap_or(&whole);
        let parts = owned.iter().map(|range| (number(range.first).max(first), number(range.last).min(last)));
        // A range may have nothing but an address that is never given.
        let mut parts: Vec<(u128, u128)> = parts.filter(|(first, last)| first <= last).collect();
        parts.sort_unstable();
        parts
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.owned.as_ref().is_none_or(|owned| owned.iter().any(|range| range.contains(address)))
    }
}

/// The subnets of a network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pools(Vec<Pool>);

impl Pools {
    /// Pools of one network.
    ///
    /// # Errors
    /// When two of them overlap.
    pub fn new(pools: Vec<Pool>) -> Result<Self> {
        for (index, pool) in pools.iter().enumerate() {
            if let Some(other) = pools[..index].iter().find(|other| overlap(other.subnet, pool.subnet)) {
                return Err(overlap_error(pool.subnet, other.subnet, "this network"));
            }
        }
        Ok(Self(pools))
    }

    /// Marks as used the addresses of endpoints, and those that the pools themselves need.
    pub fn restore<'a>(&mut self, addresses: impl Iterator<Item = &'a IpNet>) {
        for pool in &mut self.0 {
            pool.used = pool.plan.reserved.values().chain([&pool.gateway]).copied().map(number).collect();
        }
        for address in addresses.map(IpNet::addr) {
            for pool in self.0.iter_mut().filter(|pool| pool.subnet.contains(&address)) {
                pool.used.insert(number(address));
            }
        }
    }

    /// Each subnet.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }

    /// Whether there is one of this family.
    pub fn has(&self, family: Family) -> bool {
        self.0.iter().any(|pool| Family::of(pool.gateway) == family)
    }

    /// Takes one address of each family the network has: `wanted`, or the next free one. Takes none
    /// when it cannot take all. Each comes with the length of its subnet's prefix.
    ///
    /// # Errors
    /// When an address is outside every subnet or in use, or when none is left.
    pub fn take(&mut self, wanted: &[IpAddr]) -> Result<Vec<IpNet>> {
        let mut taken = Vec::new();
        for &address in wanted {
            if taken.iter().any(|net: &IpNet| Family::of(net.addr()) == Family::of(address)) {
                self.release(&taken);
                let message = format!("{address} is a second address of its family: ask for one of each");
                return Err(Error::new(Code::InvalidArgument, message));
            }
            match self.take_one(address) {
                Ok(net) => taken.push(net),
                Err(error) => {
                    self.release(&taken);
                    return Err(error);
                }
            }
        }
        for family in Family::ALL {
            if !self.has(family) || taken.iter().any(|net| Family::of(net.addr()) == family) {
                continue;
            }
            match self.next_free(family) {
                Ok(net) => taken.push(net),
                Err(error) => {
                    self.release(&taken);
                    return Err(error);
                }
            }
        }
        taken.sort_by_key(|net| net.addr().is_ipv6());
        Ok(taken)
    }

    /// The wish for what another host must give before [`take`](Self::take) can: an address that is wanted,
    /// or some of a family of which none is left here.
    pub fn missing(&self, wanted: &[IpAddr]) -> Option<Wish> {
        let pool_of = |address: &IpAddr| self.0.iter().find(|pool| pool.subnet.contains(address));
        let exact = wanted.iter().find(|address| pool_of(address).is_some_and(|pool| !pool.owns(**address)));
        if let Some(address) = exact {
            return Some(Wish::Exact(*address));
        }
        Family::ALL.into_iter().find_map(|family| {
            let mut pools = self.0.iter().filter(|pool| Family::of(pool.gateway) == family);
            let is_wanted = wanted.iter().any(|address| Family::of(*address) == family);
            let shared = pools.clone().find(|pool| pool.owned.is_some())?;
            let left = is_wanted || pools.any(|pool| pool.find_free().is_some());
            (!left).then(|| Wish::Some(shared.plan.range.unwrap_or(shared.subnet)))
        })
    }

    /// Says what this host owns of pools that are shared with other hosts, and which of their addresses
    /// containers on those have all the same.
    pub fn set_owned(&mut self, owned: &[Range], elsewhere: &[IpAddr]) {
        for pool in &mut self.0 {
            let has = elsewhere.iter().filter(|address| pool.subnet.contains(*address));
            pool.elsewhere = has.copied().map(number).collect();
            let of_pool = owned.iter().filter(|range| pool.subnet.contains(&range.first));
            pool.owned = Some(of_pool.copied().collect());
        }
    }

    /// Addresses that are given to somebody, or never are.
    pub fn unavailable(&self) -> BTreeSet<IpAddr> {
        let of_pool = |pool: &Pool| {
            let (first, last) = bounds(pool.subnet, pool.subnet);
            let ends = [pool.subnet.network(), pool.subnet.broadcast()];
            let never = ends.into_iter().filter(move |end| !(first..=last).contains(&number(*end)));
            let family = Family::of(pool.gateway);
            never.chain(pool.used.iter().map(move |at| address_of(family, *at))).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_pool).collect()
    }

    /// Gives addresses back.
    pub fn release(&mut self, addresses: &[IpNet]) {
        for address in addresses {
            for pool in self.0.iter_mut().filter(|pool| pool.subnet.contains(&address.addr())) {
                pool.used.remove(&number(address.addr()));
            }
        }
    }

    /// The default gateway of a container with this address.
    pub fn gateway_of(&self, address: IpAddr) -> Option<IpAddr> {
        self.0.iter().find(|pool| pool.subnet.contains(&address)).map(Pool::default_gateway)
    }

    fn take_one(&mut self, address: IpAddr) -> Result<IpNet> {
        let subnets: Vec<String> = self.0.iter().map(|pool| pool.subnet.to_string()).collect();
        let pool = self.0.iter_mut().find(|pool| pool.subnet.contains(&address));
        let Some(pool) = pool else {
            return Err(Error::new(
                Code::AddressOutside,
                format!(
                    "invalid address {address}: It does not belong to any of this network's subnets ({})",
                    subnets.join(", ")
                ),
            ));
        };
        if !pool.owns(address) {
            let message = format!("address {address} belongs to another host: ask for another one, or none");
            return Err(Error::new(Code::AddressElsewhere, message));
        }
        pool.take(address)?;
        Ok(with_prefix(address, pool.subnet))
    }

    fn next_free(&mut self, family: Family) -> Result<IpNet> {
        let mut subnets = Vec::new();
        for pool in self.0.iter_mut().filter(|pool| Family::of(pool.gateway) == family) {
            if let Some(address) = pool.next_free() {
                return Ok(with_prefix(address, pool.subnet));
            }
            subnets.push(pool.subnet.to_string());
        }
        Err(exhausted(&subnets))
    }
}

fn exhausted(subnets: &[String]) -> Error {
    let message =
        format!("no available addresses on this pool ({}): disconnect a sandbox", subnets.join(", "));
    Error::new(Code::AddressesExhausted, message)
}

fn check_prefix(what: &str, net: IpNet) -> Result<()> {
    if net.addr() == net.network() {
        return Ok(());
    }
    let message = format!("{what} {net} has bits set behind its prefix: write {}", net.trunc());
    Err(Error::new(Code::InvalidArgument, message))
}

/// Refuses subnets whose addresses mean something else: "this" host, loopback and multicast (RFC 6890), and
/// link-local ones of IPv6, which every interface has anyway (RFC 4291).
fn refuse_special(subnet: IpNet) -> Result<()> {
    let special: [(IpNet, &str); 7] = [
        (v4_net([0, 0, 0, 0], 8), "\"this\" network"),
        (v4_net([127, 0, 0, 0], 8), "loopback"),
        (v4_net([224, 0, 0, 0], 3), "multicast or reserved"),
        (v6_net(0, 128), "unspecified"),
        (v6_net(1, 128), "loopback"),
        (v6_net(0xfe80 << 112, 10), "link-local"),
        (v6_net(0xff00 << 112, 8), "multicast"),
    ];
    let Some((_, what)) = special.iter().find(|(net, _)| overlap(*net, subnet)) else { return Ok(()) };
    let message = format!("subnet {subnet} has {what} addresses: choose one of unicast addresses");
    Err(Error::new(Code::InvalidArgument, message))
}

fn v4_net(address: [u8; 4], prefix: u8) -> IpNet {
    Ipv4Net::new(address.into(), prefix).map_or_else(|_| Ipv4Net::default().into(), IpNet::from)
}

fn v6_net(address: u128, prefix: u8) -> IpNet {
    Ipv6Net::new(address.into(), prefix).map_or_else(|_| Ipv6Net::default().into(), IpNet::from)
}

/// Whether two subnets share an address.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The refusal of a subnet that overlaps another.
pub fn overlap_error(subnet: IpNet, other: IpNet, owner: &str) -> Error {
    let message = format!(
        "subnet {subnet}: Pool overlaps with other one on this address space: {other} of {owner}: choose another subnet"
    );
    Error::new(Code::PoolOverlap, message)
}

fn with_prefix(address: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(address, subnet.prefix_len()).unwrap_or(subnet)
}

/// The first and last address of a part of a subnet that may be given, as numbers.
fn bounds(part: IpNet, subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    let (first, last) = match subnet {
        _ if last - first <= 1 => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(_) => (first + 1, last),
    };
    (first.max(number(part.network())), last.min(number(part.broadcast())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("net")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn plan(subnet: &str) -> PoolPlan {
        PoolPlan::new(net(subnet))
    }

    fn pool(plan: PoolPlan) -> Pool {
        Pool::new(plan).expect("pool")
    }

    fn pools(subnets: &[&str]) -> Pools {
        Pools::new(subnets.iter().map(|subnet| pool(plan(subnet))).collect()).expect("pools")
    }

    #[test]
    fn the_gateway_is_first_and_addresses_follow_in_order() {
        let mut pools = pools(&["10.0.0.0/24", "fd00::/64"]);
        assert_eq!(pools.gateway_of(ip("10.0.0.9")), Some(ip("10.0.0.1")));
        assert_eq!(pools.gateway_of(ip("fd00::9")), Some(ip("fd00::1")));
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.2/24"), net("fd00::2/64")]));
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.3/24"), net("fd00::3/64")]));
    }

    #[test]
    fn a_gateway_elsewhere_leaves_the_first_address_to_endpoints() {
        let pool = pool(PoolPlan { gateway: Some(ip("10.0.0.254")), ..plan("10.0.0.0/24") });
        let mut pools = Pools::new(vec![pool]).expect("pools");
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.1/24")]));
    }

    #[test]
    fn a_released_address_is_not_given_again_at_once() {
        let mut pools = pools(&["10.0.0.0/29"]);
        let first = pools.take(&[]).expect("first");
        pools.release(&first);
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.3/29")]));
        for expected in ["10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29", "10.0.0.2/29"] {
            assert_eq!(pools.take(&[]), Ok(vec![net(expected)]));
        }
        assert_eq!(pools.take(&[]).expect_err("full").code, Code::AddressesExhausted);
        pools.release(&[net("10.0.0.4/29")]);
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.4/29")]));
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let mut pools = pools(&["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"]);
        let both = [ip("10.0.1.77"), ip("fd00::77")];
        assert_eq!(pools.take(&both), Ok(vec![net("10.0.1.77/24"), net("fd00::77/64")]));
        let code = |pools: &mut Pools, wanted: &str| pools.take(&[ip(wanted)]).expect_err("refused").code;
        assert_eq!(code(&mut pools, "10.0.1.77"), Code::AddressInUse);
        assert_eq!(code(&mut pools, "10.0.0.1"), Code::AddressInUse);
        assert_eq!(code(&mut pools, "10.0.2.1"), Code::AddressOutside);
        assert_eq!(code(&mut pools, "10.0.0.0"), Code::AddressOutside);
        assert_eq!(code(&mut pools, "10.0.0.255"), Code::AddressOutside);
        let error = pools.take(&[ip("10.0.0.5"), ip("10.0.0.6")]).expect_err("two of a family");
        assert_eq!(error.code, Code::InvalidArgument);
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let mut pools = pools(&["10.0.0.0/24", "fd00::/64"]);
        assert!(pools.take(&[ip("10.0.0.5"), ip("fd00::1")]).is_err());
        assert_eq!(pools.take(&[ip("10.0.0.5")]), Ok(vec![net("10.0.0.5/24"), net("fd00::2/64")]));
    }

    #[test]
    fn the_second_pool_serves_when_the_first_is_full() {
        let mut pools = pools(&["10.0.0.0/30", "10.0.1.0/30"]);
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.2/30")]));
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.1.2/30")]));
        let error = pools.take(&[]).expect_err("full");
        assert!(
            error.message.starts_with("no available addresses on this pool (10.0.0.0/30, 10.0.1.0/30)"),
            "{error}"
        );
    }

    #[test]
    fn the_smallest_subnets_have_no_reserved_addresses() {
        let mut point = pools(&["10.0.0.0/31"]);
        assert_eq!(point.take(&[]), Ok(vec![net("10.0.0.1/31")]));
        assert!(point.take(&[]).is_err());
        assert!(pools(&["10.0.0.7/32"]).take(&[]).is_err());
        assert_eq!(pools(&["fd00::/127"]).take(&[]), Ok(vec![net("fd00::1/127")]));
    }

    #[test]
    fn nonsense_is_no_pool() {
        let code = |plan| Pool::new(plan).expect_err("bad").code;
        let gateway = |address| PoolPlan { gateway: Some(ip(address)), ..plan("10.0.0.0/24") };
        let range = |range| PoolPlan { range: Some(net(range)), ..plan("10.0.0.0/24") };
        let cases = [
            (plan("10.0.0.5/24"), Code::InvalidArgument),
            (gateway("10.0.1.1"), Code::AddressOutside),
            (gateway("10.0.0.255"), Code::AddressOutside),
            (range("10.0.1.0/25"), Code::AddressOutside),
            (range("10.0.0.0/16"), Code::AddressOutside),
            (range("10.0.0.9/25"), Code::InvalidArgument),
            (with_reserved("10.0.0.0/24", &[("a", "10.0.1.1")]), Code::AddressOutside),
            (with_reserved("10.0.0.0/24", &[("a", "fd00::1")]), Code::AddressOutside),
            (with_reserved("10.0.0.0/24", &[("DefaultGatewayIPv6", "10.0.0.9")]), Code::InvalidArgument),
            (with_reserved("fd00::/64", &[("DefaultGatewayIPv4", "fd00::9")]), Code::InvalidArgument),
            (with_reserved("10.0.0.0/24", &[("a", "10.0.0.9"), ("b", "10.0.0.9")]), Code::AddressInUse),
        ];
        for (plan, expected) in cases {
            assert_eq!(code(plan.clone()), expected, "{plan:?}");
        }
        for special in
            ["0.0.0.0/24", "127.1.0.0/16", "224.0.0.0/24", "128.0.0.0/1", "fe80::/64", "ff02::/64", "::/64"]
        {
            assert_eq!(code(plan(special)), Code::InvalidArgument, "{special}");
        }
        let twice = ["10.0.0.0/16", "10.0.3.0/24"].map(|subnet| pool(plan(subnet)));
        assert_eq!(Pools::new(twice.into()).expect_err("overlap").code, Code::PoolOverlap);
    }

    fn with_reserved(subnet: &str, reserved: &[(&str, &str)]) -> PoolPlan {
        let reserved = reserved.iter().map(|(name, address)| ((*name).to_owned(), ip(address)));
        PoolPlan { reserved: reserved.collect(), ..plan(subnet) }
    }

    #[test]
    fn what_was_written_down_goes_on_where_it_was() {
        let reserved = pool(with_reserved("10.0.0.0/29", &[("a", "10.0.0.6")]));
        let mut before = Pools::new(vec![reserved, pool(plan("fd00::/64"))]).expect("pools");
        let first = before.take(&[]).expect("first");
        let second = before.take(&[]).expect("second");
        before.release(&first);
        let text = serde_json::to_string(&before).expect("text");
        let mut after: Pools = serde_json::from_str(&text).expect("pools");
        after.restore(second.iter());
        for used in ["10.0.0.3", "10.0.0.1", "10.0.0.6"] {
            assert_eq!(after.take(&[ip(used)]).expect_err("used").code, Code::AddressInUse);
        }
        assert_eq!(after.take(&[]), Ok(vec![net("10.0.0.4/29"), net("fd00::4/64")]));
        assert_eq!(after.take(&first.iter().map(IpNet::addr).collect::<Vec<_>>()), Ok(first));
    }

    #[test]
    fn a_range_limits_what_is_next_and_nothing_else() {
        let plan = PoolPlan { range: Some(net("10.0.0.8/30")), ..plan("10.0.0.0/24") };
        let mut pools = Pools::new(vec![pool(plan)]).expect("pools");
        assert_eq!(pools.gateway_of(ip("10.0.0.9")), Some(ip("10.0.0.1")));
        assert_eq!(pools.take(&[ip("10.0.0.200")]), Ok(vec![net("10.0.0.200/24")]));
        for expected in ["10.0.0.8/24", "10.0.0.9/24", "10.0.0.10/24", "10.0.0.11/24"] {
            assert_eq!(pools.take(&[]), Ok(vec![net(expected)]));
        }
        assert_eq!(pools.take(&[]).expect_err("full").code, Code::AddressesExhausted);
        pools.release(&[net("10.0.0.200/24"), net("10.0.0.9/24")]);
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.9/24")]));
    }

    #[test]
    fn reserved_addresses_are_not_given_and_may_be_the_default_gateway() {
        let reserved = [("router", "10.0.0.1"), ("DefaultGatewayIPv4", "10.0.0.3"), ("x", "10.0.0.4")];
        let pool = pool(with_reserved("10.0.0.0/24", &reserved));
        assert_eq!((pool.gateway(), pool.default_gateway()), (ip("10.0.0.2"), ip("10.0.0.3")));
        let mut pools = Pools::new(vec![pool]).expect("pools");
        assert_eq!(pools.gateway_of(ip("10.0.0.9")), Some(ip("10.0.0.3")));
        assert_eq!(pools.take(&[]), Ok(vec![net("10.0.0.5/24")]));
        assert_eq!(pools.take(&[ip("10.0.0.1")]).expect_err("reserved").code, Code::AddressInUse);
    }
}
