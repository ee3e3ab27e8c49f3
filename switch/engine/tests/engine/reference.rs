//! A switch so plain that it can be believed: lists searched from end to end, one frame at a time.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_engine::{Entry, Limits, Port, Refusal};
use vswitch_frame::{DropReason, Instant, Mac, NetworkId, PortId};

use crate::support::{Fates, Sketch};

/// See the [module](self).
pub(crate) struct Reference {
    limits: Limits,
    networks: BTreeSet<NetworkId>,
    ports: BTreeMap<PortId, Port>,
    entries: BTreeMap<(NetworkId, Mac), Entry>,
    pub(crate) unlearned: u64,
}

impl Reference {
    pub(crate) fn new(limits: Limits) -> Self {
        let (networks, ports, entries) = Default::default();
        Self { limits, networks, ports, entries, unlearned: 0 }
    }

    pub(crate) fn add_network(&mut self, id: NetworkId) -> Result<(), Refusal> {
        if id.index() >= NetworkId::LIMIT {
            return Err(Refusal::NetworkLimit(id));
        }
        if self.networks.insert(id) { Ok(()) } else { Err(Refusal::NetworkExists(id)) }
    }

    pub(crate) fn remove_network(&mut self, id: NetworkId) -> Vec<PortId> {
        self.networks.remove(&id);
        let ports: Vec<PortId> =
            self.ports.iter().filter(|(_, port)| port.network == id).map(|(id, _)| *id).collect();
        for port in &ports {
            self.remove_port(*port);
        }
        ports
    }

    pub(crate) fn add_port(&mut self, id: PortId, port: Port) -> Result<(), Refusal> {
        if id.index() >= PortId::LIMIT {
            return Err(Refusal::PortLimit(id));
        }
        if self.ports.contains_key(&id) {
            return Err(Refusal::PortExists(id));
        }
        if !self.networks.contains(&port.network) {
            return Err(Refusal::NetworkUnknown(port.network));
        }
        if port.addresses.len() > self.limits.addresses_per_port {
            return Err(Refusal::TooManyAddresses(self.limits.addresses_per_port));
        }
        for mac in &port.addresses {
            if !mac.is_station() {
                return Err(Refusal::NoStation(*mac));
            }
            if let Some(owner) = self.entries.get(&(port.network, *mac)).filter(|entry| entry.fixed) {
                return Err(Refusal::AddressTaken(*mac, owner.port));
            }
        }
        for &mac in &port.addresses {
            let entry = Entry { mac, port: id, fixed: true, seen: Instant::ZERO };
            self.entries.insert((port.network, mac), entry);
        }
        self.ports.insert(id, port);
        Ok(())
    }

    pub(crate) fn remove_port(&mut self, id: PortId) -> bool {
        self.entries.retain(|_, entry| entry.port != id);
        self.ports.remove(&id).is_some()
    }

    pub(crate) fn flood_targets(&self, ingress: PortId) -> Vec<(PortId, usize)> {
        let Some(from) = self.ports.get(&ingress) else { return Vec::new() };
        let hears = |port: &Port| port.network == from.network && port.group != from.group;
        let others = self.ports.iter().filter(|(id, port)| **id != ingress && hears(port));
        others.map(|(id, port)| (*id, port.mtu)).collect()
    }

    pub(crate) fn table(&self, network: NetworkId) -> Vec<Entry> {
        self.entries.iter().filter(|((of, _), _)| *of == network).map(|(_, entry)| *entry).collect()
    }

    /// When the learned address that is seen least recently was seen.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.fixed).map(|entry| entry.seen).min()
    }

    pub(crate) fn age(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.fixed || now.since(entry.seen) < self.limits.age);
    }

    /// Decides the fate of one frame.
    pub(crate) fn frame(&mut self, ingress: PortId, sketch: &Sketch, now: Instant, fates: &mut Fates) {
        match self.decide(ingress, sketch, now) {
            Ok(Some(egress)) => fates.forward.push((egress, sketch.bytes())),
            Ok(None) => fates.flood.push(sketch.bytes()),
            Err((reason, port)) => fates.drop.push((reason, port, sketch.bytes())),
        }
    }

    fn decide(
        &mut self,
        ingress: PortId,
        sketch: &Sketch,
        now: Instant,
    ) -> Result<Option<PortId>, (DropReason, PortId)> {
        let here = |reason| (reason, ingress);
        let size = sketch.load.mtu_bytes().map_err(here)?;
        let from = self.ports.get(&ingress).cloned().ok_or(here(DropReason::NoReceiver))?;
        if !sketch.source.is_station() {
            return Err(here(DropReason::BadSource));
        }
        if sketch.destination.is_link_local() {
            return Err(here(DropReason::LinkLocal));
        }
        self.learn(ingress, from.network, sketch.source, now).map_err(here)?;
        let Some(entry) = self.entries.get(&(from.network, sketch.destination)) else {
            let alone = self.ports.values().filter(|port| port.network == from.network).count() == 1;
            return match self.flood_targets(ingress).is_empty() {
                false => Ok(None),
                true if alone => Err(here(DropReason::NoReceiver)),
                true => Err(here(DropReason::Isolated)),
            };
        };
        let to = &self.ports[&entry.port];
        match entry.port {
            egress if egress == ingress => Err(here(DropReason::Reflected)),
            _ if to.group == from.group => Err(here(DropReason::Isolated)),
            egress if size > to.mtu => Err((DropReason::TxTooBig, egress)),
            egress => Ok(Some(egress)),
        }
    }

    fn learn(&mut self, port: PortId, network: NetworkId, mac: Mac, now: Instant) -> Result<(), DropReason> {
        let old = self.entries.get(&(network, mac)).copied();
        if let Some(old) = old.filter(|old| old.fixed) {
            return if old.port == port { Ok(()) } else { Err(DropReason::SourceTaken) };
        }
        let learned = |at: &Entry| !at.fixed;
        let total = self.entries.values().filter(|at| learned(at)).count();
        let here = self.entries.values().filter(|at| learned(at) && at.port == port).count();
        let known_here = old.is_some_and(|old| old.port == port);
        let full = here >= self.limits.addresses_per_port && !known_here;
        if full || old.is_none() && total >= self.limits.addresses_total {
            self.unlearned += 1;
        } else {
            self.entries.insert((network, mac), Entry { mac, port, fixed: false, seen: now });
        }
        Ok(())
    }
}
