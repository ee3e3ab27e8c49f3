//! Subnets for networks that were given none.
//!
//! IPv4: the first of Docker's default address pools, 172.17.0.0/16 to 172.31.0.0/16 and then
//! 192.168.0.0/16 cut in /20, that overlaps no other network, no route of the host and none of its name
//! servers. IPv6: a /64 of one unique local prefix (RFC 4193) that stays the same on a host.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::{Code, Error, Result};
use super::ipam::{Family, overlap};

/// Networks there can be in the /48 of a host.
const V6_SUBNETS: u16 = u16::MAX;

/// The first default subnet of a family that overlaps nothing that is taken.
///
/// # Errors
/// When all overlap something.
pub fn choose(family: Family, taken: &[IpNet], host_seed: u64) -> Result<IpNet> {
    let free = |subnet: &IpNet| !taken.iter().any(|other| overlap(*other, *subnet));
    let found = match family {
        Family::V4 => v4().map(IpNet::from).find(free),
        Family::V6 => v6(host_seed).map(IpNet::from).find(free),
    };
    found.ok_or_else(|| {
        Error::new(
            Code::PoolsExhausted,
            "every default subnet overlaps a network or a route of this host: name one with --subnet",
        )
    })
}

/// The addresses of the name servers in a resolv.conf(5), each a subnet of its own.
pub fn name_servers(resolv_conf: &str) -> Vec<IpNet> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let server = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        server.parse::<IpAddr>().ok()
    });
    servers.map(IpNet::from).collect()
}

fn v4() -> impl Iterator<Item = Ipv4Net> {
    let wide = (17..=31).map(|second| ([172, second, 0, 0], 16));
    let narrow = (0..16).map(|twentieth| ([192, 168, twentieth * 16, 0], 20));
    wide.chain(narrow).filter_map(|(address, prefix)| Ipv4Net::new(address.into(), prefix).ok())
}

fn v6(host_seed: u64) -> impl Iterator<Item = Ipv6Net> {
    let [a, b, c, d, e, ..] = host_seed.to_be_bytes();
    (0..V6_SUBNETS).filter_map(move |index| {
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let prefix = Ipv6Addr::new(pair(0xfd, a), pair(b, c), pair(d, e), index, 0, 0, 0, 0);
        Ipv6Net::new(prefix, 64).ok()
    })
}

/// What the unique local prefix of a host is made of: FNV-1a over its machine-id(5), which itself is
/// not to be shown on a wire.
pub fn host_seed(machine_id: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    machine_id.trim().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("net")).collect()
    }

    #[test]
    fn the_first_free_one_is_chosen() {
        let chosen = |taken: &[&str]| choose(Family::V4, &nets(taken), 0).map(|net| net.to_string());
        assert_eq!(chosen(&[]), Ok("172.17.0.0/16".to_owned()));
        assert_eq!(chosen(&["172.17.5.0/24"]), Ok("172.18.0.0/16".to_owned()));
        assert_eq!(chosen(&["172.16.0.0/12"]), Ok("192.168.0.0/20".to_owned()));
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.1.1/32"]), Ok("192.168.16.0/20".to_owned()));
        let none = choose(Family::V4, &nets(&["172.16.0.0/12", "192.168.0.0/16"]), 0);
        assert_eq!(none.expect_err("none").code, Code::PoolsExhausted);
        assert_eq!(v4().count(), 31);
    }

    #[test]
    fn unique_local_prefixes_stay_the_same_on_a_host() {
        let seed = host_seed("0123456789abcdef0123456789abcdef\n");
        assert_eq!(seed, host_seed("0123456789abcdef0123456789abcdef"));
        assert_ne!(seed, host_seed("1123456789abcdef0123456789abcdef"));
        let first = choose(Family::V6, &[], seed).expect("first");
        assert!(first.to_string().starts_with("fd"), "{first}");
        let second = choose(Family::V6, &[first], seed).expect("second");
        assert_ne!(first, second);
        assert_eq!(second.prefix_len(), 64);
    }

    #[test]
    fn name_servers_are_found() {
        let text = "# comment\nsearch example.org\nnameserver 172.17.0.9\n nameserver\t2001:db8::1 # x\nnameserver\n";
        assert_eq!(name_servers(text), nets(&["172.17.0.9/32", "2001:db8::1/128"]));
    }
}
