//! Going on with the flows of a translator that is no more.
//!
//! # Theory of operation
//!
//! A translator says which of its flows have changed ([`Nat::take_changes`]), and somebody keeps their
//! [`Record`]s where they outlive it. Another one that was told the same uplink, claims and bindings is
//! handed them. A flow keeps the number of its record. It goes on if it could begin today: its ends are
//! there, its port is claimed and not somebody else's, its publication is as it was. Mappings and permits
//! follow from the flows.
//!
//! The time of last use is written down at most twice a minute, so a flow is given as much more time.

use std::net::IpAddr;

use vswitch_frame::{Instant, NetworkId};

use crate::flow::{Flow, Origin, Side};
use crate::mapping::{Mapping, MappingId};
use crate::nat::Nat;
use crate::owners::Payer;
use crate::record::{Read, Record};
use crate::tick::Tick;
use crate::tuple::{Address, End, Protocol, Realm};

/// The owner of an address on a network: the sandbox, or `None` if nobody has it.
type Owner<'a> = &'a dyn Fn(NetworkId, IpAddr) -> Option<u32>;

impl Nat {
    /// Notes from now on which flows change, for [`take_changes`](Self::take_changes).
    pub fn note_changes(&mut self) {
        self.flows.note_changes();
    }

    /// Whether there is any change to take.
    #[inline]
    pub fn has_changes(&self) -> bool {
        self.flows.has_changes()
    }

    /// Hands over each record that has changed, by its number; `None` if it has no flow any more.
    pub fn take_changes(&mut self, mut take: impl FnMut(u32, Option<Record>)) {
        let mut changed = self.flows.take_changed();
        for number in changed.drain(..) {
            let flow = self.flows.iter_in(number..number.saturating_add(1)).next();
            take(number, flow.map(|(_, flow)| Record::of(flow, self.flows.owners.payer(flow).sandbox)));
        }
        self.flows.give_back_changed(changed);
    }

    /// Goes on with flows that another translator had, of which there are none here yet. `owner` says who has
    /// an address. Says how many go on; those that do not are changes.
    pub fn restore<I>(&mut self, records: I, now: Instant, owner: Owner<'_>) -> usize
    where
        I: Iterator<Item = (u32, Record)> + Clone,
    {
        // Records that do not say which address they are mapped to come last: others of the same mapping do.
        for vague in [false, true] {
            for (number, record) in records.clone() {
                let read = record.read();
                if read.as_ref().is_some_and(is_vague) != vague {
                    continue;
                }
                let restored = read.and_then(|read| self.restore_flow(number, read, now, owner));
                if restored.is_none() {
                    self.flows.note(number);
                }
            }
        }
        self.flows.link_all();
        self.flows.len()
    }

    fn restore_flow(&mut self, number: u32, read: Read, now: Instant, owner: Owner<'_>) -> Option<()> {
        let Read { mut flow, sandbox, mapped } = read;
        let known = flow.tuples.iter().any(|tuple| self.flows.find(tuple).is_some());
        if known || !self.flows.has_room_at(number) || !self.may_go_on(&flow, sandbox, owner) {
            return None;
        }
        let mut found = [MappingId::NONE; 2];
        for side in [Side::Initiator, Side::Target].into_iter().filter(|side| mapped[side.index()]) {
            let own = flow.tuple(side);
            let inside = own.realm.inside().and_then(|network| owner(network, own.source.ip()));
            let Some(mapping) = self.restore_mapping(&flow, inside.unwrap_or(sandbox), side) else {
                found.into_iter().filter(|mapping| mapping.is_some()).for_each(|id| self.release(id));
                return None;
            };
            // Held until the flow holds it.
            self.mappings.use_by(mapping);
            found[side.index()] = mapping;
        }
        flow.mappings = found;
        flow.used = flow.used.later_by_unnoted().min(Tick::at(now));
        for side in [Side::Initiator, Side::Target] {
            let mapping = found[side.index()];
            if mapping.is_some() && flow.seen & side.bit() != 0 {
                self.mappings.permit(mapping, flow.tuple(side).target);
            }
        }
        let payer = self.payer_of(&flow, sandbox);
        let id = self.flows.place(number, flow, payer);
        self.note_held(id);
        Some(())
    }

    /// The payer of a flow that a sandbox is charged with.
    fn payer_of(&self, flow: &Flow, sandbox: u32) -> Payer {
        let initiator = flow.tuple(Side::Initiator);
        let binding = self.bindings.find(&initiator.target_end());
        match (flow.origin, binding) {
            _ if initiator.realm != Realm::OUTSIDE => Payer::own(sandbox),
            (Origin::Published, Some(binding)) => Payer::publication(binding),
            _ => Payer::strangers(sandbox),
        }
    }

    /// Whether a flow may still be, apart from its mappings.
    fn may_go_on(&self, flow: &Flow, sandbox: u32, owner: Owner<'_>) -> bool {
        let ends = flow.tuples.map(|tuple| (tuple.realm.inside(), tuple.source.ip(), tuple.target));
        let inside = ends.iter().filter_map(|(network, source, _)| Some((*network)?).zip(Some(*source)));
        let owners: Vec<Option<u32>> = inside.map(|(network, source)| owner(network, source)).collect();
        let is_owned = owners.contains(&Some(sandbox)) && !owners.contains(&None);
        let mut outside = ends.iter().filter(|(network, ..)| network.is_none());
        let is_ours = outside.all(|(.., target)| self.host.contains(target));
        is_owned && is_ours && self.leads_there(flow)
    }

    /// Whether the port that a flow without a mapping of that side uses leads there.
    fn leads_there(&self, flow: &Flow) -> bool {
        let [initiator, target] = &flow.tuples;
        match flow.origin {
            Origin::Published => {
                let asked = outside(initiator.target, initiator.target_port, initiator.protocol);
                let binding = self.bindings.find(&asked);
                binding.is_some_and(|found| found.container_end(asked.port) == target.source_end())
            }
            Origin::Overloaded if initiator.protocol.is_claimed() => {
                self.ports.is_claimed(target.protocol, target.target, target.target_port)
            }
            Origin::Outbound | Origin::Overloaded | Origin::Inbound | Origin::Hairpin | Origin::Filtered => {
                true
            }
        }
    }

    /// The mapping that one side of a flow is behind, which is made if it is not there yet.
    fn restore_mapping(&mut self, flow: &Flow, sandbox: u32, side: Side) -> Option<MappingId> {
        let (own, other) = (flow.tuple(side), flow.tuple(side.other()));
        let known = self.mappings.by_inside(&own.source_end());
        let address = if flow.origin == Origin::Published {
            let uplink = if own.source.is_v4() {
                self.uplink.v4.map(Address::from)
            } else {
                self.uplink.v6.map(Address::from)
            };
            known.map(|known| self.mappings.get(known).outside).or(uplink)?
        } else {
            other.target
        };
        let end = outside(address, other.target_port, own.protocol);
        if let Some(known) = known {
            return (self.mappings.get(known).outside_end() == end).then_some(known);
        }
        if self.mappings.by_outside(&end).is_some() || !self.host.contains(&end.address) {
            return None;
        }
        if end.protocol.is_claimed() && !self.ports.get_mut(end.protocol, end.address)?.take_this(end.port) {
            return None;
        }
        let (inside, inside_port, realm, protocol) = (own.source, own.source_port, own.realm, own.protocol);
        let (outside, outside_port) = (end.address, end.port);
        let mapping = Mapping {
            inside,
            outside,
            inside_port,
            outside_port,
            realm,
            protocol,
            flows: 0,
            holders: 0,
            sandbox,
        };
        Some(self.insert_mapping(mapping))
    }
}

/// Whether a flow does not say to which address it is mapped: one to a published port from inside.
fn is_vague(read: &Read) -> bool {
    read.flow.origin == Origin::Published && read.mapped.contains(&true)
}

fn outside(address: Address, port: u16, protocol: Protocol) -> End {
    End { address, port, realm: Realm::OUTSIDE, protocol }
}
