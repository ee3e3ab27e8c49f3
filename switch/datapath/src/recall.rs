//! What the datapath tells a control that was not there when it was made: all that control has told it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};

use vswitch_engine::Station;
use vswitch_frame::{Instant, NetworkId, PortId};

use super::mirror;
use super::turn::Datapath;
use vswitch_contract::command::{Options, PortSpec, Recall, Reply, VERSION};
use vswitch_contract::reserved::{self, UPLINKS_MAX};
use vswitch_contract::tunnel::RECORDS_MAX;

/// What was told and is not remembered elsewhere.
#[derive(Debug)]
pub(crate) struct Memory {
    /// How to run.
    pub(crate) options: Options,
    /// The ports, as they were described.
    pub(crate) specs: BTreeMap<PortId, PortSpec>,
    /// What control handed over to be kept.
    pub(crate) kept: Option<OwnedFd>,
    /// Whether control said that it has told everything.
    pub(crate) begun: bool,
    /// Whether control said that it is over.
    pub(crate) stopped: bool,
}

impl Memory {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, specs: BTreeMap::new(), kept: None, begun: false, stopped: false }
    }
}

impl Datapath {
    /// Whether there is nothing left to do: control said so, or there is neither a control nor a port.
    pub(crate) fn is_over(&self) -> bool {
        self.memory.stopped || (self.line.is_dead() && self.memory.specs.is_empty())
    }

    /// Takes up the flows of the datapath before, of those containers that are still there, and begins to move frames.
    pub(crate) fn begin(&mut self, now: Instant) -> Reply {
        if self.memory.begun {
            return Reply::Done;
        }
        let mut owners = BTreeMap::new();
        for spec in self.memory.specs.values() {
            if let Station::Container(endpoint) = &spec.station {
                let addresses = endpoint.addresses.iter().map(|net| (spec.network, net.addr()));
                owners.extend(addresses.map(|key| (key, endpoint.sandbox)));
            }
        }
        let owner = |network, address| owners.get(&(network, address)).copied();
        mirror::restore(&self.mirror, &mut self.nat, now, &owner);
        self.memory.begun = true;
        Reply::Done
    }

    /// Answers a question of control's.
    pub(crate) fn recall(&self, question: Recall) {
        match question {
            Recall::Options(version) if version == VERSION => {
                self.reply(&Reply::Options(self.memory.options), Some(self.counters.as_fd()));
            }
            Recall::Options(version) => {
                let message = format!("this datapath is of version {VERSION}, not {version}");
                self.reply(&Reply::Refused(message), None);
            }
            Recall::NextNetwork(after) => {
                let first = after.map_or(0, |id| id.index() + 1);
                let mut ids =
                    (first..NetworkId::LIMIT).filter_map(|id| u16::try_from(id).ok().map(NetworkId));
                let found = ids.find_map(|id| Some((id, self.switch.network(id)?.clone())));
                self.reply(&found.map_or(Reply::Done, |(id, network)| Reply::Network(id, network)), None);
            }
            Recall::NextPort(after) => {
                let after = after.map_or(Bound::Unbounded, Bound::Excluded);
                match self.memory.specs.range((after, Bound::Unbounded)).next() {
                    Some((id, spec)) => {
                        let fd = self.ports.get(*id).map(|port| port.device.as_fd());
                        self.reply(&Reply::Port(*id, spec.clone()), fd);
                    }
                    None => self.reply(&Reply::Done, None),
                }
            }
            Recall::NextBinding(after) => {
                let mut bindings = self.nat.bindings();
                let behind = after.is_none_or(|after| bindings.any(|binding| *binding == after));
                let found = bindings.next().filter(|_| behind);
                self.reply(&found.map_or(Reply::Done, |binding| Reply::Binding(*binding)), None);
            }
            Recall::Mirror => self.reply(&Reply::Done, Some(self.mirror.as_fd())),
            Recall::NextSockets(after) => match self.relays.sockets_behind(after) {
                Some((relayed, targets, first, fds)) => {
                    self.reply_with(&Reply::Sockets(relayed, targets, first), &fds);
                }
                None => self.reply(&Reply::Done, None),
            },
            Recall::NextTunnel(after) => {
                let found = self.overlay.next(after);
                let reply =
                    found.map(|(network, spec, peers)| Reply::Tunnel(network, spec.clone(), peers.to_vec()));
                self.reply(&reply.unwrap_or(Reply::Done), None);
            }
            Recall::Records { network, after } => {
                let records = self.overlay.records(network, after, RECORDS_MAX);
                self.reply(&Reply::Records(records), None);
            }
            Recall::NextTunnelSocket(after) => match self.overlay.next_socket(after) {
                Some((which, fd)) => self.reply(&Reply::TunnelSocket(which), Some(fd)),
                None => self.reply(&Reply::Done, None),
            },
            Recall::Uplink(place) => {
                let port = reserved::uplink(place.min(UPLINKS_MAX - 1));
                match self.outside.spec(port).zip(self.ports.get(port)) {
                    Some((spec, port)) => self.reply(&Reply::Uplink(spec), Some(port.device.as_fd())),
                    None => self.reply(&Reply::Done, None),
                }
            }
            Recall::NextClaims(after) => {
                let (claimed, fds) = self.claims.behind(after);
                self.reply_with(&Reply::Claims(claimed), &fds);
            }
            Recall::Kept => self.reply(&Reply::Done, self.memory.kept.as_ref().map(AsFd::as_fd)),
        }
    }
}
