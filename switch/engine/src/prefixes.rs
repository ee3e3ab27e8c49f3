//! Prefixes of addresses, and what is known of each: a trie whose paths are as short as the prefixes allow.
//!
//! # Theory of operation
//! A node stands for a prefix and leads on by the first bit behind it. Bits that no two prefixes differ in
//! have no node, so a look-up visits one node for each prefix that contains the address, and one for each
//! place where prefixes part on the way there: at most as many as an address has bits, however many prefixes
//! there are. A table is made in one go; there is nothing to remove from it.

use std::net::IpAddr;

use ipnet::IpNet;

/// The first bits of an address: the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    fn of(bits: u128, len: u8) -> Self {
        Self { bits: bits & !u128::MAX.checked_shr(len.into()).unwrap_or(0), len }
    }

    fn contains(self, bits: u128) -> bool {
        Self::of(bits, self.len).bits == self.bits
    }

    /// The longest prefix that contains both.
    fn common(self, other: Self) -> Self {
        let alike = (self.bits ^ other.bits).leading_zeros().min(128);
        let len = self.len.min(other.len).min(u8::try_from(alike).unwrap_or(u8::MAX));
        Self::of(self.bits, len)
    }

    /// The bit of an address behind the prefix, which is not a whole address.
    fn next_bit(self, bits: u128) -> usize {
        usize::from(bits << self.len >> 127 == 1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node<T> {
    prefix: Prefix,
    /// The values of the prefix, in the order they came; none where prefixes only part.
    values: Vec<T>,
    next: [Option<usize>; 2],
}

/// Values by the prefixes that they are for, of both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes<T> {
    nodes: Vec<Node<T>>,
    /// The first nodes of IPv4 and IPv6.
    roots: [Option<usize>; 2],
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), roots: [None; 2] }
    }
}

/// The family of an address, as a place in `roots`, and its bits from the first on.
fn key(address: IpAddr) -> (usize, u128) {
    match address {
        IpAddr::V4(address) => (0, u128::from(address.to_bits()) << 96),
        IpAddr::V6(address) => (1, address.to_bits()),
    }
}

impl<T> FromIterator<(IpNet, T)> for Prefixes<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(entries: I) -> Self {
        let mut prefixes = Self::default();
        for (net, value) in entries {
            prefixes.insert(net, value);
        }
        prefixes
    }
}

impl<T> Prefixes<T> {
    /// Adds a value for a prefix, behind those that it has.
    fn insert(&mut self, net: IpNet, value: T) {
        let (family, bits) = key(net.addr());
        let prefix = Prefix::of(bits, net.prefix_len());
        let (mut parent, mut found) = (None, self.roots[family]);
        while let Some(number) = found {
            let here = self.nodes[number].prefix;
            if here == prefix {
                self.nodes[number].values.push(value);
                return;
            }
            if here.len > prefix.len || !here.contains(prefix.bits) {
                break;
            }
            let side = here.next_bit(prefix.bits);
            (parent, found) = (Some((number, side)), self.nodes[number].next[side]);
        }
        let new = self.put_above(found, prefix, value);
        match parent {
            Some((number, side)) => self.nodes[number].next[side] = Some(new),
            None => self.roots[family] = Some(new),
        }
    }

    /// Makes the node of a new prefix, above one that does not contain it, or beside it; answers the upper
    /// one.
    fn put_above(&mut self, below: Option<usize>, prefix: Prefix, value: T) -> usize {
        let new = self.push(prefix, vec![value]);
        let Some(below) = below else { return new };
        let beside = self.nodes[below].prefix;
        let common = prefix.common(beside);
        if common == prefix {
            self.nodes[new].next[prefix.next_bit(beside.bits)] = Some(below);
            return new;
        }
        let fork = self.push(common, Vec::new());
        self.nodes[fork].next[common.next_bit(prefix.bits)] = Some(new);
        self.nodes[fork].next[common.next_bit(beside.bits)] = Some(below);
        fork
    }

    fn push(&mut self, prefix: Prefix, values: Vec<T>) -> usize {
        self.nodes.push(Node { prefix, values, next: [None; 2] });
        self.nodes.len() - 1
    }

    /// Whether a prefix contains an address.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.longest(address, |_| true).is_some()
    }

    /// Of the values that satisfy a condition, the first one of the longest prefix that contains an address.
    pub(crate) fn longest(&self, address: IpAddr, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let (family, bits) = key(address);
        let (mut best, mut found) = (None, self.roots[family]);
        while let Some(node) =
            found.map(|number| &self.nodes[number]).filter(|node| node.prefix.contains(bits))
        {
            best = node.values.iter().find(|value| wanted(value)).or(best);
            let is_whole = node.prefix.len == if family == 0 { 32 } else { 128 };
            found = if is_whole { None } else { node.next[node.prefix.next_bit(bits)] };
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Prefixes that lie in each other often, and addresses near them.
    fn nets() -> impl Strategy<Value = IpNet> {
        let v4 = (0..4u32, 0..=32u8).prop_map(|(bits, len)| {
            let address = std::net::Ipv4Addr::from_bits(bits << 30 | bits << 15 | bits);
            IpNet::new(address.into(), len).expect("a length")
        });
        let v6 = (0..4u128, 0..=128u8).prop_map(|(bits, len)| {
            let address = std::net::Ipv6Addr::from_bits(bits << 126 | bits << 64 | bits);
            IpNet::new(address.into(), len).expect("a length")
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_is_found_as_by_looking_at_all(
            nets in vec(nets(), 0..24),
            address in nets(),
            parity in 0..3usize,
        ) {
            let address = address.addr();
            let prefixes: Prefixes<usize> = nets.iter().copied().zip(0..).collect();
            let wanted = |number: &usize| parity == 2 || number % 2 == parity;
            let containing = nets.iter().zip(0..).filter(|(net, number)| net.contains(&address) && wanted(number));
            let expected = containing.max_by_key(|(net, number)| (net.prefix_len(), usize::MAX - number));
            prop_assert_eq!(prefixes.longest(address, wanted).copied(), expected.map(|(_, number)| number));
            prop_assert_eq!(prefixes.contain(address), nets.iter().any(|net| net.contains(&address)));
        }
    }

    #[test]
    fn a_look_up_takes_no_longer_among_many() {
        // 65,536 prefixes of 24 bits: no path is longer than the 16 bits that they differ in.
        let net =
            |number: u32| IpNet::new(std::net::Ipv4Addr::from_bits(number << 8).into(), 24).expect("a net");
        let prefixes: Prefixes<()> = (0..65_536).map(|number| (net(number), ())).collect();
        let mut depth = 0;
        let (_, bits) = key(net(0x1234).addr());
        let mut found = prefixes.roots[0];
        while let Some(number) = found {
            depth += 1;
            let node = &prefixes.nodes[number];
            found = (node.prefix.len < 32).then(|| node.next[node.prefix.next_bit(bits)]).flatten();
        }
        assert_eq!(depth, 17);
        assert!(prefixes.contain([0, 0x12, 0x34, 9].into()) && !prefixes.contain([1, 0, 0, 1].into()));
    }
}
