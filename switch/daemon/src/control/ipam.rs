//! Which addresses of a network are in use, and which is next.
//!
//! # Theory of operation
//! A network has [`Pools`], one or several for each family, each a subnet with a gateway. An endpoint
//! gets one address of each family: the one it asks for, from the pool that has it, or else the next
//! free one of the first pool that has one. Allocation *rotates*: it goes on behind the last address
//! given and wraps around, so an address just released is not given to the next who comes.
//!
//! The network address is never given, nor the broadcast address of IPv4, but for the prefixes where
//! they do not exist: /31 and /32 (RFC 3021), /127 and /128 (RFC 6164). Everything here is pure.
//!
//! The time to allocate is that to step over addresses in use behind the last one given: one step in a
//! network that is not nearly full.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::error::{Code, Error, Result};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The destination of a default route.
    pub fn everywhere(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::default().into(),
            Self::V6 => Ipv6Net::default().into(),
        }
    }
}

/// One subnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    subnet: IpNet,
    gateway: IpAddr,
    #[serde(skip)]
    used: BTreeSet<u128>,
    last: u128,
}

impl Pool {
    /// A pool of `subnet` whose gateway is `gateway`, or the first address there is.
    ///
    /// # Errors
    /// When the gateway is not an address of the subnet, or the subnet has bits set behind its prefix.
    pub fn new(subnet: IpNet, gateway: Option<IpAddr>) -> Result<Self> {
        if subnet.addr() != subnet.network() {
            let mend = subnet.trunc();
            return Err(Error::new(
                Code::InvalidArgument,
                format!("subnet {subnet} has bits set behind its prefix: write {mend}"),
            ));
        }
        let (first, last) = bounds(subnet);
        let gateway = gateway.unwrap_or_else(|| address_of(subnet, first));
        let mut pool = Self { subnet, gateway, used: BTreeSet::new(), last };
        if !subnet.contains(&gateway) {
            return Err(Error::new(
                Code::AddressOutside,
                format!("gateway {gateway} is no address of subnet {subnet}: choose one of that subnet"),
            ));
        }
        pool.take(gateway)?;
        Ok(pool)
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The gateway.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    fn take(&mut self, address: IpAddr) -> Result<()> {
        let (first, last) = bounds(self.subnet);
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
        let (first, last) = bounds(self.subnet);
        let behind = |at: u128| if at >= last { first } else { at + 1 };
        let mut at = behind(self.last);
        // Among one more address than are in use, one is free, unless the pool has no more than that.
        for _ in 0..=self.used.len() {
            if self.used.insert(at) {
                self.last = at;
                return Some(address_of(self.subnet, at));
            }
            at = behind(at);
        }
        None
    }
}

/// The subnets of a network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pools(Vec<Pool>);

impl Pools {
    /// Those of these subnets.
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

    /// Marks as used what is: addresses of endpoints, and what the pools themselves need.
    pub fn restore<'a>(&mut self, addresses: impl Iterator<Item = &'a IpNet>) {
        for pool in &mut self.0 {
            pool.used = [number(pool.gateway)].into();
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

    /// Gives addresses back.
    pub fn release(&mut self, addresses: &[IpNet]) {
        for address in addresses {
            for pool in self.0.iter_mut().filter(|pool| pool.subnet.contains(&address.addr())) {
                pool.used.remove(&number(address.addr()));
            }
        }
    }

    /// The gateway of the subnet an address is from.
    pub fn gateway_of(&self, address: IpAddr) -> Option<IpAddr> {
        self.0.iter().find(|pool| pool.subnet.contains(&address)).map(Pool::gateway)
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
        let message =
            format!("no available addresses on this pool ({}): disconnect a sandbox", subnets.join(", "));
        Err(Error::new(Code::AddressesExhausted, message))
    }
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

/// The first and last address that may be given, as numbers.
fn bounds(subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match subnet {
        _ if last - first <= 1 => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(_) => (first + 1, last),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address_of(subnet: IpNet, number: u128) -> IpAddr {
    match subnet {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
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

    fn pools(subnets: &[&str]) -> Pools {
        Pools::new(subnets.iter().map(|subnet| Pool::new(net(subnet), None).expect("pool")).collect())
            .expect("pools")
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
        let pool = Pool::new(net("10.0.0.0/24"), Some(ip("10.0.0.254"))).expect("pool");
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
    fn what_was_written_down_goes_on_where_it_was() {
        let mut before = pools(&["10.0.0.0/29", "fd00::/64"]);
        let first = before.take(&[]).expect("first");
        let second = before.take(&[]).expect("second");
        before.release(&first);
        let text = serde_json::to_string(&before).expect("text");
        let mut after: Pools = serde_json::from_str(&text).expect("pools");
        after.restore(second.iter());
        assert_eq!(after.take(&[ip("10.0.0.3")]).expect_err("used").code, Code::AddressInUse);
        assert_eq!(after.take(&[ip("10.0.0.1")]).expect_err("gateway").code, Code::AddressInUse);
        assert_eq!(after.take(&[]), Ok(vec![net("10.0.0.4/29"), net("fd00::4/64")]));
        assert_eq!(after.take(&first.iter().map(IpNet::addr).collect::<Vec<_>>()), Ok(first));
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
        let code = |subnet: &str, gateway: Option<&str>| {
            Pool::new(net(subnet), gateway.map(ip)).expect_err("bad").code
        };
        assert_eq!(code("10.0.0.5/24", None), Code::InvalidArgument);
        assert_eq!(code("10.0.0.0/24", Some("10.0.1.1")), Code::AddressOutside);
        assert_eq!(code("10.0.0.0/24", Some("10.0.0.255")), Code::AddressOutside);
        let twice = ["10.0.0.0/16", "10.0.3.0/24"].map(|subnet| Pool::new(net(subnet), None).expect("pool"));
        assert_eq!(Pools::new(twice.into()).expect_err("overlap").code, Code::PoolOverlap);
    }
}
