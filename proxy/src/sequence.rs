//! Initial sequence numbers of the stacks toward containers.
//!
//! A source speaks to a container again long before the container has forgotten it: a server that ends
//! first remembers each connection for a minute (TIME-WAIT). It takes a new one from the same source at once
//! if its sequence number is beyond that of the old one, or its timestamp newer (RFC 6191, 2), and else for a
//! late segment. So numbers grow with the clock, from an offset that is hard to guess for each pair of ends
//! (RFC 6528, 3), and timestamps ([`crate::timestamp`]) cover what numbers cannot: a connection that has sent
//! more than the clock has grown, and a datapath that has died with its secret.

use vswitch_frame::Instant;

use crate::flow::Flow;
use crate::secret::Secret;

/// Nanoseconds after which the number of the same two ends grows by one, as Linux has it: it comes round in
/// 274 s, and no container remembers for half as long.
const TICK: u64 = 64;

/// The first sequence number of a connection that begins now.
pub(crate) fn initial(secret: &Secret, flow: &Flow, now: Instant) -> u32 {
    low(secret.hash(&(flow.network.0, flow.container, flow.source))).wrapping_add(low(now.as_nanos() / TICK))
}

/// The seed with which a stack of smoltcp's chooses this number for its first connection.
///
/// Its generator multiplies its state and adds to it, and the number is the state's upper part, shifted by
/// its three highest bits: here zero. It is undone twice, since the first number is for an identification, of
/// which another is drawn if it is zero: then a state with other low bits, which no number shows, is taken.
pub(crate) fn seed(number: u32) -> u64 {
    let states = (0..LOW_STATES).map(|low| before((u64::from(number) << SHIFT) | low));
    let mut fit = states.filter(|first| drawn(*first) != 0);
    fit.next().map_or(0, before)
}

const FACTOR: u64 = 0xbb2e_fcec_3c39_611d;
const ADDEND: u64 = 0x7590_ef39;
const UNDONE: u64 = inverse(FACTOR);
const SHIFT: u64 = 29;
const LOW_STATES: u64 = 16;

/// The state before this one.
fn before(state: u64) -> u64 {
    state.wrapping_sub(ADDEND).wrapping_mul(UNDONE)
}

/// The identification of a state.
fn drawn(state: u64) -> u16 {
    let number = low(state >> (SHIFT - (state >> 61)));
    let [a, b, c, d] = number.to_le_bytes();
    u16::from_le_bytes([a, b]) ^ u16::from_le_bytes([c, d])
}

/// The odd number whose product with this one is 1: each step of Newton's doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

fn low(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vswitch_frame::NetworkId;

    fn flow(port: u16) -> Flow {
        let [container, source] = ["172.17.0.2:80".parse().expect("address"), ([172, 17, 0, 1], port).into()];
        Flow { network: NetworkId(1), container, source }
    }

    #[test]
    fn numbers_of_the_same_ends_grow_and_those_of_others_are_elsewhere() {
        let (secret, start) = (Secret::new(7), Instant::from_nanos(5_000_000_000));
        let number = |port, after| initial(&secret, &flow(port), start + after);
        for (after, grown) in [(1, 15_625), (1000, 15_625_000), (60_000, 937_500_000)] {
            let after = Duration::from_millis(after);
            assert_eq!(number(1024, after).wrapping_sub(number(1024, Duration::ZERO)), grown);
        }
        let numbers: std::collections::BTreeSet<u32> =
            (1..1000).map(|port| number(port, Duration::ZERO)).collect();
        assert_eq!(numbers.len(), 999);
        assert_ne!(number(1, Duration::ZERO), initial(&Secret::new(8), &flow(1), start));
    }
}
