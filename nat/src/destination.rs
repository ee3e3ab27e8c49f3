//! Where a packet would go, asked before it is translated: by who decides whether it may.

use std::net::IpAddr;

use vswitch_frame::{Frame, NetworkId};

use crate::flow::Origin;
use crate::fragments::Datagram;
use crate::nat::Nat;
use crate::packet::{self, Named, Packet};
use crate::tuple::{End, Realm};
use crate::verdict::Fate;

/// The inside end that a packet for one of the host's addresses leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// On which network.
    pub network: NetworkId,
    /// The container's address.
    pub address: IpAddr,
    /// Its port; the identifier of a query.
    pub port: u16,
    /// Whether the packet is of a flow there is; otherwise it would begin one, if it were let in.
    pub established: bool,
}

impl Nat {
    /// Whether a parsed frame from a network is of a flow there is, or an ICMP error or a fragment that goes
    /// its way. Nothing is changed by asking.
    pub fn has_flow_of(&self, frame: &Frame, network: NetworkId) -> bool {
        let realm = Realm::network(network);
        let tuple = match packet::read(frame, realm) {
            Ok(Packet::Flow(Named { tuple, .. })) => tuple,
            Ok(Packet::Error(error)) => error.answer,
            Ok(Packet::Fragment(ip, piece)) => {
                let way = self.fragments.way(&Datagram::new(&ip, &piece, realm));
                return way.is_some_and(|way| matches!(way.fate, Fate::Outside | Fate::Inside(_)));
            }
            Err(_) => return false,
        };
        self.flows.find(&tuple).is_some_and(|(id, _)| self.flows.get(id).origin != Origin::Filtered)
    }

    /// Where a parsed frame from a realm leads inside. Nothing is changed by asking. `None` for what leads
    /// outside or to the host, for ICMP errors and for fragments behind the first, which go the way of what
    /// they belong to.
    pub fn destination(&self, frame: &Frame, realm: Realm) -> Option<Destination> {
        let Ok(Packet::Flow(Named { tuple, .. })) = packet::read(frame, realm) else {
            return None;
        };
        let flow = self.flows.find(&tuple).map(|(id, side)| (self.flows.get(id), side));
        if let Some((flow, side)) = flow.filter(|(flow, _)| flow.origin != Origin::Filtered) {
            return inside(flow.tuple(side.other()).source_end(), true);
        }
        if !self.host.contains(&tuple.target) {
            return None;
        }
        let end = End { realm: Realm::OUTSIDE, ..tuple.target_end() };
        let bound = self.bindings.find(&end).map(|binding| binding.container_end(end.port));
        let mapped = || self.mappings.by_outside(&end).map(|id| self.mappings.get(id).inside_end());
        inside(bound.or_else(mapped)?, false)
    }
}

fn inside(end: End, established: bool) -> Option<Destination> {
    let network = end.realm.inside()?;
    Some(Destination { network, address: end.address.ip(), port: end.port, established })
}
