//! Numbers: tokens, and what must be hard to guess of ports, sequence numbers and identifications.
//!
//! # Ports
//!
//! Those of one destination are used in a row, from a start that is hard to guess (RFC 6056, 3.3.4): a port
//! that was used rests until all others had their turn. A destination is an address and port of a container's
//! and the address that speaks to it. Destinations share [`ROWS`] rows, so that it takes no memory to know
//! where each of them is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vswitch_frame::Instant;

use crate::binding::Binding;
use crate::flow::Flow;
use crate::secret::Secret;
use crate::sequence;
use crate::source::{PORT_FIRST, PORTS, address, keeps_port};
use crate::token::Token;

/// Rows of ports, of which each destination has one.
const ROWS: usize = 256;

/// The source of tokens, ports and seeds.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u64,
    state: u64,
    secret: Secret,
    /// How far each row is.
    rows: Vec<u16>,
}

impl Numbers {
    /// Numbers of which all but tokens are hard to guess without the `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: 0, state: seed, secret: Secret::new(seed), rows: vec![0; ROWS] }
    }

    /// The next of a row that is hard to guess without the seed (splitmix64).
    fn mixed(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number never used before.
    pub(crate) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// An identification for the fragments of a datagram.
    pub(crate) fn identification(&mut self) -> u32 {
        u32::try_from(self.mixed() >> 32).unwrap_or(0)
    }

    /// The seed of the stack of a connection that begins now.
    pub(crate) fn stack_seed(&self, flow: &Flow, now: Instant) -> u64 {
        sequence::seed(sequence::initial(&self.secret, flow, now))
    }

    /// A source toward the container that no other flow has.
    pub(crate) fn source(
        &mut self,
        binding: &Binding,
        client: SocketAddr,
        taken: &BTreeMap<Flow, Token>,
    ) -> Option<SocketAddr> {
        let Binding { network, container, .. } = *binding;
        let is_free =
            |source: &SocketAddr| !taken.contains_key(&Flow { network, container, source: *source });
        let address = address(binding, client.ip());
        let kept = Some(client).filter(|_| keeps_port(binding, address, client)).filter(is_free);
        kept.or_else(|| {
            let [low, high, row, ..] = self.secret.hash(&(network.0, container, address)).to_le_bytes();
            let start = u32::from(u16::from_le_bytes([low, high]));
            let used = self.rows.get_mut(usize::from(row) % ROWS)?;
            let port = |nth| {
                let place = (start + u32::from(*used) + u32::from(nth)) % u32::from(PORTS);
                PORT_FIRST + u16::try_from(place).unwrap_or(0)
            };
            let (nth, source) = (0..PORTS)
                .map(|nth| (nth, SocketAddr::new(address, port(nth))))
                .find(|(_, source)| is_free(source))?;
            // Another lap begins where this one did.
            *used = (*used + nth + 1) % PORTS;
            Some(source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::tests::binding;

    #[test]
    fn a_port_rests_until_all_others_had_their_turn() {
        let client = "127.0.0.1:40000".parse().expect("address");
        let mut numbers = Numbers::new(3);
        let mut taken = BTreeMap::new();
        let mut next = |taken: &BTreeMap<Flow, Token>| {
            numbers.source(&binding(80), client, taken).map(|source| source.port())
        };
        let first: Vec<u16> = (0..PORTS).filter_map(|_| next(&taken)).collect();
        let all: std::collections::BTreeSet<u16> = first.iter().copied().collect();
        assert_eq!(all.len(), usize::from(PORTS), "each once");
        assert_eq!((all.first(), all.last()), (Some(&PORT_FIRST), Some(&(PORT_FIRST + PORTS - 1))));
        // A long row of ports in use is stepped over, and only when all are is there none.
        let flow = |port| {
            let Binding { network, container, gateway, .. } = binding(80);
            Flow { network, container, source: (gateway, port).into() }
        };
        taken.extend(first[..20_000].iter().map(|&port| (flow(port), Token(1))));
        assert_eq!([next(&taken), next(&taken)], [Some(first[20_000]), Some(first[20_001])]);
        taken.extend(first.iter().map(|&port| (flow(port), Token(1))));
        assert_eq!(next(&taken), None);
    }

    #[test]
    fn another_destination_and_another_secret_start_elsewhere() {
        let client = "127.0.0.1:40000".parse().expect("address");
        let start = |seed, port| Numbers::new(seed).source(&binding(port), client, &BTreeMap::new());
        let starts = [start(1, 80), start(1, 81), start(2, 80), start(2, 81)];
        let all: std::collections::BTreeSet<_> = starts.into_iter().flatten().collect();
        assert_eq!(all.len(), starts.len());
    }
}
