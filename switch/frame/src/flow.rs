//! A hash by which the frames of one flow find each other.

use crate::headers::{Headers, Transport};

/// A hash of what tells flows apart: addresses and ports of TCP and UDP, addresses of other IP packets
/// and of fragments, MACs and EtherType of what is not IP. `headers` must be those of a frame with these
/// `bytes`. With a secret `seed` nobody can tell which flows collide.
pub fn flow_hash(bytes: &[u8], headers: &Headers, seed: u64) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    const MACS: usize = 12;
    let network = headers.network_offset();
    let ends = match (headers.is_ipv4(), headers.is_ipv6()) {
        (true, _) => network + 12..network + 20,
        (_, true) => network + 8..network + 40,
        _ => 0..MACS,
    };
    let mix = |hash: u64, word: u64| ((hash ^ word).wrapping_mul(MIX)).rotate_left(29);
    let mut hash = seed;
    let (words, rest) = bytes[ends].as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_ne_bytes(*word));
    }
    if let Some(rest) = rest.first_chunk::<4>() {
        hash = mix(hash, u64::from(u32::from_ne_bytes(*rest)));
    }
    let ports = || {
        let at = headers.transport_offset();
        u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    };
    let last = match headers.transport() {
        Transport::Udp => ports() << 2 | 1,
        Transport::Tcp => ports() << 2,
        Transport::Other => u64::from(headers.ether_type()) << 2 | 2,
    };
    let [high @ .., _, _, _, _] = mix(hash, last).wrapping_mul(MIX).to_be_bytes();
    u32::from_be_bytes(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::ETHERNET_BYTES;

    fn hash(bytes: &[u8]) -> u32 {
        flow_hash(bytes, &Headers::parse(bytes).expect("a frame"), 7)
    }

    #[test]
    fn ports_of_datagrams_count_and_those_of_fragments_do_not() {
        let mut bytes = vec![2; ETHERNET_BYTES];
        bytes[12..].copy_from_slice(&[8, 0]);
        bytes.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 7, 0, 9, 0, 8, 0, 0]);
        let mut other = bytes.clone();
        other[37] = 10;
        assert_ne!(hash(&bytes), hash(&other));
        bytes[20] = 0x20;
        other[20] = 0x20;
        assert_eq!(hash(&bytes), hash(&other));
        other[29] = 3;
        assert_ne!(hash(&bytes), hash(&other));
    }

    #[test]
    fn what_is_not_ip_is_told_apart_by_its_macs() {
        let mut bytes = vec![2; ETHERNET_BYTES];
        let one = hash(&bytes);
        bytes[5] = 3;
        assert_ne!(one, hash(&bytes));
    }
}
