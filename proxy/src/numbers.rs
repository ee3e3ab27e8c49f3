//! Numbers: tokens, and what must be hard to guess of ports, sequence numbers and identifications.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::binding::Binding;
use crate::flow::Flow;
use crate::source::{PORT_FIRST, PORTS, address, keeps_port};
use crate::token::Token;

/// Ports that are tried in a row before a new flow is given up.
const PORT_TRIES: u16 = 1024;

/// The source of tokens, ports and seeds.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u64,
    seed: u64,
}

impl Numbers {
    /// Numbers of which all but tokens are hard to guess without the `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: 0, seed }
    }

    /// The next of a row that is hard to guess without the seed (splitmix64).
    pub(crate) fn mixed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
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
            let first = u16::try_from(self.mixed() % u64::from(PORTS)).unwrap_or(0);
            let ports = (0..PORT_TRIES).map(|n| PORT_FIRST + (first + n) % PORTS);
            ports.map(|port| SocketAddr::new(address, port)).find(is_free)
        })
    }
}
