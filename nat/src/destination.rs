//! Where a packet would go, asked before it is translated: by who decides whether it may.

use std::net::IpAddr;

use vswitch_frame::headers::be16;
use vswitch_frame::{Frame, NetworkId};

use crate::flow::Origin;
use crate::fragments::Datagram;
use crate::ip::Ip;
use crate::nat::Nat;
use crate::packet::{self, Named, Packet};
use crate::tuple::{End, Protocol, Realm, Tuple};
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

/// The way by which a translated packet came to its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameBy {
    /// Through this published port of the host.
    Published(u16),
    /// Through a mapping.
    Mapping,
}

impl Nat {
    /// The way by which a parsed frame of TCP or UDP, translated by now, comes to the container on a network
    /// that it is for; `None` if its ports are not to be seen, or its flow is gone.
    pub fn came_by(&self, frame: &Frame, network: NetworkId) -> Option<CameBy> {
        let headers = &frame.headers;
        if headers.is_fragment() || !headers.is_ip() {
            return None;
        }
        let bytes = frame.bytes().get(..headers.end_offset())?;
        let ip = Ip::read(bytes, headers.network_offset())?;
        let protocol = Protocol::from_number(headers.protocol())
            .filter(|protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp))?;
        let ports = bytes.get(headers.transport_offset()..).filter(|ports| ports.len() >= 4)?;
        let tuple = Tuple {
            source: ip.source,
            source_port: be16(ports, 0),
            target: ip.target,
            target_port: be16(ports, 2),
            realm: Realm::network(network),
            protocol,
            kind: 0,
        };
        let (id, side) = self.flows.find(&tuple.reversed())?;
        let flow = self.flows.get(id);
        let asked = flow.tuple(side.other());
        Some(if flow.origin == Origin::Published {
            CameBy::Published(asked.target_port)
        } else {
            CameBy::Mapping
        })
    }

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
