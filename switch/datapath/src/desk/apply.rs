//! Changes of facts, carried out. [`Datapath::apply`] is where each kind of fact is known.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vswitch_contract::fact::{Change, Fact, Held};
use vswitch_contract::order::{Reply, Step};
use vswitch_contract::relay::Targets;
use vswitch_contract::reserved::{self, UPLINKS_MAX};
use vswitch_contract::uplink::UplinkSpec;
use vswitch_engine::{Network, PublishedPorts};
use vswitch_frame::NetworkId;
use vswitch_nat::Binding;
use vswitch_sys::clock;
use vswitch_sys::packet::Framing;

use crate::turn::Datapath;

/// One line that says why a change was refused.
pub(crate) type Refusal = String;

impl Datapath {
    /// Takes steps, in order; answers which were refused.
    pub(super) fn tell(&mut self, steps: Vec<Step>, fds: Vec<OwnedFd>) -> Reply {
        let mut fds = fds.into_iter();
        let mut refused = Vec::new();
        for (place, step) in steps.into_iter().enumerate() {
            if let Err(why) = self.take(step, &mut fds) {
                refused.push((place, why));
            }
        }
        Reply::Told(refused)
    }

    /// Takes a step.
    pub(crate) fn take(
        &mut self,
        step: Step,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<(), Refusal> {
        let change = match step {
            Step::Set(fact, count) => {
                let held = Held::new(fact, fds.take(count));
                if held.fds.len() < count {
                    let arrived = held.fds.len();
                    return Err(format!("{arrived} of {count} descriptors arrived: allow more (ulimit -n)"));
                }
                Change::Set(self.desk.facts.completed(held))
            }
            Step::Remove(key) => Change::Remove(key),
        };
        let old = self.desk.facts.get(&change.key()).cloned();
        let new = if let Change::Set(held) = &change { Some(held) } else { None };
        self.apply(old.as_ref(), new)?;
        self.desk.facts.change(change);
        Ok(())
    }

    /// Makes the datapath as a fact says: `new` in place of `old`, of which one at least is there.
    ///
    /// # Errors
    /// One line; then the datapath is as `old` says.
    fn apply(&mut self, old: Option<&Held>, new: Option<&Held>) -> Result<(), Refusal> {
        let Some(held) = new.or(old) else { return Ok(()) };
        let is_there = new.is_some();
        let before = old.map(|old| &old.fact);
        match &held.fact {
            // Facts kept for the next control, and for nothing else.
            Fact::FarSide | Fact::Claim(_) => {}
            Fact::Poll(mode) => self.worker.rest.set_mode(*mode),
            Fact::HostAddresses(addresses) => {
                self.set_host_addresses(if is_there { addresses.clone() } else { Vec::new() });
            }
            Fact::Network(id, network) if is_there => return self.add_network(*id, network, before),
            Fact::Network(id, _) => {
                self.switch.remove_network(*id);
                self.forget_network(*id);
            }
            Fact::Name(network, mac, remote) => {
                self.switch.name_remote(*network, *mac, is_there.then(|| remote.clone()));
            }
            Fact::Rules(rules) => self.switch.set_rules(if is_there { rules.clone() } else { Vec::new() }),
            Fact::Port(id, spec) if is_there => {
                self.set_port(*id, spec, held, old)?;
                self.forget_departed(before, Some(spec));
            }
            Fact::Port(id, _) => {
                self.remove_port(*id);
                self.forget_departed(before, None);
            }
            Fact::TunnelSocket(which) if is_there => return self.set_tunnel_socket(*which, held, old),
            Fact::TunnelSocket(which) => self.close_tunnel_socket(*which),
            Fact::Tunnel(network, spec) if is_there => return self.set_tunnel(*network, spec, before),
            Fact::Tunnel(network, _) => self.remove_tunnel(*network),
            Fact::Peer(network, vtep) if is_there => return self.add_peer(*network, *vtep),
            Fact::Peer(network, vtep) => self.remove_peer(*network, *vtep),
            Fact::Record(network, record) if is_there => return self.set_record(*network, record),
            Fact::Record(network, record) => self.remove_record(*network, record.mac),
            Fact::Uplink(place, spec) => return self.set_uplink(*place, is_there.then_some(spec), held, old),
            Fact::Grant(protocol, address, ports) => {
                self.nat.set_claims(*protocol, *address, if is_there { ports } else { &[] });
                self.uplinks.granted();
            }
            Fact::Binding(binding) if is_there => return self.add_binding(binding),
            Fact::Binding(binding) => self.remove_binding(binding),
            Fact::Closed(binding) => self.nat.set_closed(binding, is_there),
            Fact::Sockets(relayed, page) => {
                let sockets = if is_there { held.fds.as_slice() } else { &[] };
                let taken = self.relays.set_sockets(*relayed, *page, sockets, &self.poller, clock::now());
                return taken.map_err(|error| error.to_string());
            }
            Fact::Targets(relayed, targets) => {
                let targets = if is_there { *targets } else { Targets::default() };
                let pool = &mut self.worker.pool;
                self.relays.lead_to(*relayed, targets, targets.established, pool, clock::now());
            }
        }
        Ok(())
    }

    fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.uplink(clock::now()).set_host(addresses.clone());
        self.switch.set_host_addresses(addresses);
    }

    fn add_network(
        &mut self,
        id: NetworkId,
        network: &Network,
        before: Option<&Fact>,
    ) -> Result<(), Refusal> {
        match before {
            Some(Fact::Network(_, same)) if same == network => Ok(()),
            Some(_) => Err("a network does not change: take it back first".to_owned()),
            None => self.switch.add_network(id, network.clone()).map_err(|refusal| refusal.to_string()),
        }
    }

    fn set_uplink(
        &mut self,
        place: u16,
        spec: Option<&UplinkSpec>,
        held: &Held,
        old: Option<&Held>,
    ) -> Result<(), Refusal> {
        if place >= UPLINKS_MAX {
            return Err(format!("uplink {place} is past the last of {UPLINKS_MAX}: leave it out"));
        }
        let port = reserved::uplink(place);
        match (spec, held.fds.first()) {
            (None, _) => self.close(port),
            (Some(_), None) => return Err("an uplink needs a packet socket".to_owned()),
            (Some(_), Some(_)) if old.is_some_and(|old| old.has_fds_of(held)) => {}
            (Some(spec), Some(fd)) => self.open_uplink(port, Arc::clone(fd), framing(spec))?,
        }
        self.uplink(clock::now()).set_uplink(port, spec.cloned());
        self.send_to_one();
        Ok(())
    }

    fn add_binding(&mut self, binding: &Binding) -> Result<(), Refusal> {
        self.nat.add_binding(*binding).map_err(|error| error.to_string())?;
        self.switch.publish(published(binding));
        Ok(())
    }

    fn remove_binding(&mut self, binding: &Binding) {
        if self.nat.remove_binding(binding) {
            self.switch.unpublish(&published(binding));
        }
    }
}

/// The form in which the packet socket of an uplink hands over frames.
fn framing(spec: &UplinkSpec) -> Framing {
    if spec.mac.is_some() { Framing::VnetHeader } else { Framing::VnetHeaderAndPacket }
}

/// The container's side of published ports.
fn published(binding: &Binding) -> PublishedPorts {
    let Binding { network, container: address, protocol, container_port: first, ports, .. } = *binding;
    let ports = first..=first.saturating_add(ports.saturating_sub(1));
    PublishedPorts { network, address, protocol: protocol as u8, ports }
}
