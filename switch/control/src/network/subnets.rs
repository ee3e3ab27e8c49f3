//! Subnets for networks that name none, or only a size.
//!
//! IPv4: the first of Docker's default address pools, 172.17.0.0/16 to 172.31.0.0/16 and then
//! 192.168.0.0/16 cut in /20, that overlaps no other network, no route of the host and none of its name
//! servers. IPv6: a /64 of one unique local prefix (RFC 4193) that stays the same on a host. A size is
//! written as a subnet of the unspecified address, `0.0.0.0/24` or `::/80`; it is cut from the same pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_cluster::family::Family;

use crate::error::{Code, Error, Result};
use crate::network::ipam::overlap;

/// Length of the prefix of a subnet cut from the unique local prefix of a host.
const V6_PREFIX: u8 = 64;

/// A part of the default address pools.
#[derive(Clone, Copy, Debug)]
struct Part {
    net: IpNet,
    /// Length of the prefixes it is cut in.
    cut: u8,
}

/// The length of prefix that a subnet asks for when it names no address.
pub fn size(subnet: IpNet) -> Option<u8> {
    subnet.addr().is_unspecified().then_some(subnet.prefix_len())
}

/// The first default subnet of a family that overlaps nothing that is taken, of the usual size or with a
/// prefix of this length.
///
/// # Errors
/// When all overlap something, or are smaller than that.
pub fn choose(family: Family, size: Option<u8>, taken: &[IpNet], host_seed: u64) -> Result<IpNet> {
    let parts = parts(family, host_seed);
    let cut = |part: &Part| size.unwrap_or(part.cut);
    if parts.iter().all(|part| cut(part) < part.net.prefix_len()) {
        let widest = parts.iter().map(|part| part.net.prefix_len()).min().unwrap_or_default();
        let message = format!(
            "no default subnet is as large as /{}: ask for /{widest} or a longer prefix, or name a subnet",
            size.unwrap_or_default()
        );
        return Err(Error::new(Code::PoolsExhausted, message));
    }
    parts.iter().find_map(|part| first_free(part.net, cut(part), taken)).ok_or_else(|| {
        Error::new(
            Code::PoolsExhausted,
            "every default subnet overlaps a network or a route of this host: name one with --subnet",
        )
    })
}

/// The first subnet of `net` with this length of prefix that overlaps nothing that is taken. What is in
/// the way is stepped over in one step, so the time is at most quadratic in what is taken.
fn first_free(net: IpNet, prefix: u8, taken: &[IpNet]) -> Option<IpNet> {
    let mut candidate = IpNet::new(net.network(), prefix).ok().filter(|_| prefix >= net.prefix_len())?;
    loop {
        let obstacles = taken.iter().filter(|other| overlap(**other, candidate));
        let Some(last) = obstacles.map(IpNet::broadcast).max() else { return Some(candidate) };
        let behind = next_address(last.max(candidate.broadcast()))?;
        candidate = IpNet::new(behind, prefix).ok()?;
        if !net.contains(&candidate) {
            return None;
        }
    }
}

fn next_address(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
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

fn parts(family: Family, host_seed: u64) -> Vec<Part> {
    let v4 = |address: [u8; 4], prefix, cut| {
        Ipv4Net::new(address.into(), prefix).ok().map(|net| Part { net: net.into(), cut })
    };
    match family {
        Family::V4 => {
            let wide = (17..=31).filter_map(|second| v4([172, second, 0, 0], 16, 16));
            wide.chain(v4([192, 168, 0, 0], 16, 20)).collect()
        }
        Family::V6 => {
            unique_local(host_seed).map(|net| Part { net: net.into(), cut: V6_PREFIX }).into_iter().collect()
        }
    }
}

/// The unique local prefix of a host, a /48.
fn unique_local(host_seed: u64) -> Option<Ipv6Net> {
    let [a, b, c, d, e, ..] = host_seed.to_be_bytes();
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Net::new(Ipv6Addr::new(pair(0xfd, a), pair(b, c), pair(d, e), 0, 0, 0, 0, 0), 48).ok()
}

/// The seed of the unique local prefix of a host: FNV-1a over its machine-id(5), which itself is not to be
/// shown on a wire.
pub fn host_seed(machine_id: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    machine_id.trim().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("net")).collect()
    }

    #[test]
    fn the_first_free_one_is_chosen() {
        let chosen = |taken: &[&str]| choose(Family::V4, None, &nets(taken), 0).map(|net| net.to_string());
        assert_eq!(chosen(&[]), Ok("172.17.0.0/16".to_owned()));
        assert_eq!(chosen(&["172.17.5.0/24"]), Ok("172.18.0.0/16".to_owned()));
        assert_eq!(chosen(&["172.16.0.0/12"]), Ok("192.168.0.0/20".to_owned()));
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.1.1/32"]), Ok("192.168.16.0/20".to_owned()));
        let none = choose(Family::V4, None, &nets(&["172.16.0.0/12", "192.168.0.0/16"]), 0);
        assert_eq!(none.expect_err("none").code, Code::PoolsExhausted);
    }

    #[test]
    fn docker_has_31_networks_by_default() {
        let mut taken = Vec::new();
        while let Ok(subnet) = choose(Family::V4, None, &taken, 0) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 31);
    }

    #[test]
    fn a_size_is_cut_from_the_same_pools() {
        let chosen = |family, size, taken: &[&str]| {
            choose(family, Some(size), &nets(taken), 0).map(|net| net.to_string())
        };
        assert_eq!(chosen(Family::V4, 24, &[]), Ok("172.17.0.0/24".to_owned()));
        assert_eq!(
            chosen(Family::V4, 24, &["172.17.0.0/24", "172.17.1.9/32"]),
            Ok("172.17.2.0/24".to_owned())
        );
        assert_eq!(chosen(Family::V4, 30, &["172.17.0.0/16"]), Ok("172.18.0.0/30".to_owned()));
        assert_eq!(
            chosen(Family::V4, 17, &["172.16.0.0/12", "192.168.0.0/20"]),
            Ok("192.168.128.0/17".to_owned())
        );
        assert_eq!(chosen(Family::V6, 80, &["fd00::/80"]), Ok("fd00::1:0:0:0/80".to_owned()));
        assert_eq!(chosen(Family::V6, 48, &[]), Ok("fd00::/48".to_owned()));
        for (family, size) in [(Family::V4, 15), (Family::V4, 0), (Family::V6, 47)] {
            assert_eq!(choose(family, Some(size), &[], 0).expect_err("too large").code, Code::PoolsExhausted);
        }
        assert!(chosen(Family::V4, 17, &["172.16.0.0/12", "192.168.0.0/16"]).is_err());
        assert_eq!(size("0.0.0.0/24".parse().expect("net")), Some(24));
        assert_eq!(size("10.0.0.0/24".parse().expect("net")), None);
    }

    /// A subnet near the default pools.
    fn obstacle() -> impl Strategy<Value = IpNet> {
        let private = (prop_oneof![Just(172u8), Just(192)], any::<[u8; 3]>(), 9u8..=32);
        private.prop_map(|(first, [second, third, fourth], prefix)| {
            let second = if first == 172 { 16 | second & 15 } else { 168 };
            let net = Ipv4Net::new([first, second, third, fourth].into(), prefix);
            net.expect("a prefix").trunc().into()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_choice_is_the_first_of_all_that_overlap_nothing(
            size in prop::option::of(16u8..=26),
            taken in prop::collection::vec(obstacle(), 0..60),
        ) {
            let cut = |part: &Part| part.net.subnets(size.unwrap_or(part.cut).max(part.net.prefix_len()));
            let all = parts(Family::V4, 0);
            let mut all = all.iter().filter_map(|part| cut(part).ok()).flatten();
            let expected = all.find(|subnet| !taken.iter().any(|other| overlap(*other, *subnet)));
            prop_assert_eq!(choose(Family::V4, size, &taken, 0).ok(), expected);
        }
    }

    #[test]
    fn unique_local_prefixes_stay_the_same_on_a_host() {
        let seed = host_seed("0123456789abcdef0123456789abcdef\n");
        assert_eq!(seed, host_seed("0123456789abcdef0123456789abcdef"));
        assert_ne!(seed, host_seed("1123456789abcdef0123456789abcdef"));
        let first = choose(Family::V6, None, &[], seed).expect("first");
        assert!(first.to_string().starts_with("fd"), "{first}");
        let second = choose(Family::V6, None, &[first], seed).expect("second");
        assert_ne!(first, second);
        assert_eq!(second.prefix_len(), 64);
    }

    #[test]
    fn name_servers_are_found() {
        let text = "# comment\nsearch example.org\nnameserver 172.17.0.9\n nameserver\t2001:db8::1 # x\nnameserver\n";
        assert_eq!(name_servers(text), nets(&["172.17.0.9/32", "2001:db8::1/128"]));
    }
}
