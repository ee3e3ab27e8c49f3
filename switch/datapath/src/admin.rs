//! Carries out control's commands between turns.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vswitch_engine::{Port, PublishedPorts, Station};
use vswitch_frame::{Accepts, Mac, NetworkId, PortId};
use vswitch_nat::{Binding, BindingError};
use vswitch_sys::clock;
use vswitch_sys::device::{Device, DeviceKind};
use vswitch_sys::seqpacket::MESSAGE_BYTES_MAX;

use super::turn::Datapath;
use super::{RESOLVER, flows, mirror};
use vswitch_contract::claim::ClaimCommand;
use vswitch_contract::command::{Command, PortSpec, Question, RelayCommand, Reply, TABLE_PAGE, TableEntry};
use vswitch_contract::reserved::{self, UPLINKS_MAX};
use vswitch_contract::uplink::{Grant, UplinkSpec};

impl Datapath {
    /// Carries out the next command, if there is one, and answers it; says whether there was.
    pub(crate) fn carry_out_next(&mut self) -> bool {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let Some((length, fds)) = self.line.receive(&mut buffer, &self.poller) else {
            return false;
        };
        match serde_json::from_slice(&buffer[..length]) {
            Ok(command) => self.carry_out(command, fds),
            Err(error) => self.reply(&Reply::Refused(format!("not a command: {error}")), None),
        }
        true
    }

    /// Sends a reply and the descriptor that rides along.
    pub(crate) fn reply(&self, reply: &Reply, fd: Option<BorrowedFd<'_>>) {
        self.reply_with(reply, fd.as_slice());
    }

    /// Sends a reply and the descriptors that ride along.
    pub(crate) fn reply_with(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        if let Ok(text) = serde_json::to_vec(reply) {
            self.line.send(&text, fds);
        }
    }

    fn carry_out(&mut self, command: Command, fds: Vec<OwnedFd>) {
        let one = |fds: Vec<OwnedFd>| fds.into_iter().next();
        let reply = match command {
            Command::Listen | Command::Mirror | Command::Start(_) => Reply::Refused("already started".into()),
            Command::Recall(question) => return self.recall(question),
            Command::Begin => self.begin(clock::now()),
            Command::Keep => {
                self.memory.kept = one(fds);
                Reply::Done
            }
            Command::SetPoll(poll) => {
                self.memory.options.poll = poll;
                self.rest.set_mode(poll);
                Reply::Done
            }
            Command::Stop => {
                self.memory.stopped = true;
                Reply::Done
            }
            Command::AddNetwork(id, network) => match self.switch.add_network(id, network) {
                Ok(()) => Reply::Done,
                Err(refusal) => Reply::Refused(refusal.to_string()),
            },
            Command::RemoveNetwork(network) => {
                self.overlay.remove(network);
                for port in self.switch.remove_network(network) {
                    self.close(port);
                }
                Reply::Done
            }
            Command::AddPort(port, spec) => match one(fds) {
                Some(fd) => self.add_port(port, spec, fd),
                None => Reply::Refused("a port needs a descriptor".into()),
            },
            Command::SetStation(port, station) => self.set_station(port, station),
            Command::SetResolver => match one(fds) {
                Some(fd) => self.set_resolver(fd),
                None => Reply::Refused("a resolver needs a channel".into()),
            },
            Command::SetHostAddresses(addresses) => self.set_host_addresses(addresses),
            Command::SetUplink(place, spec) => self.set_uplink(place, spec, one(fds)),
            Command::SetClaims => match one(fds) {
                Some(fd) => self.set_claims(fd),
                None => Reply::Refused("claims need a channel".into()),
            },
            Command::Grant(grants) => self.grant(grants),
            Command::Claims(command) => self.carry_out_for_claims(command, fds),
            Command::Announce(port) => {
                self.announce(port);
                Reply::Done
            }
            Command::RemovePort(port) => {
                self.remove_port(port);
                Reply::Done
            }
            Command::AddBinding(binding) => self.add_binding(binding),
            Command::RemoveBinding(binding) => self.remove_binding(&binding),
            Command::Relay(command) => self.carry_out_for_relays(command, fds),
            Command::Tunnel(command) => self.carry_out_for_tunnels(command, one(fds)),
            Command::SetRules(rules) => {
                self.switch.set_rules(rules);
                Reply::Done
            }
            Command::Read(question) => self.read(question),
        };
        // What is answered is written down.
        mirror::follow(&self.mirror, &mut self.nat);
        self.reply(&reply, None);
    }

    fn carry_out_for_claims(&mut self, command: ClaimCommand, fds: Vec<OwnedFd>) -> Reply {
        self.claims.carry_out(command, fds).map_or_else(Reply::Refused, |()| Reply::Done)
    }

    fn carry_out_for_relays(&mut self, command: RelayCommand, fds: Vec<OwnedFd>) -> Reply {
        let now = clock::now();
        match command {
            RelayCommand::AddSockets(relayed, first) => {
                let added = self.relays.add_sockets(relayed, first, fds, &self.poller, now);
                return added.map_or_else(|error| Reply::Refused(error.to_string()), |()| Reply::Done);
            }
            RelayCommand::LeadTo(relayed, targets) => {
                self.relays.lead_to(relayed, targets, &mut self.pool, now);
            }
            RelayCommand::CloseSockets(relayed) => {
                self.relays.end(relayed, &self.poller, &mut self.pool, now)
            }
        }
        Reply::Done
    }

    fn read(&mut self, question: Question) -> Reply {
        match question {
            Question::Rules => Reply::Rules(self.switch.rule_counts().collect()),
            Question::Table { network, after } => Reply::Table(self.table_page(network, after)),
            Question::Flows(query) => Reply::Flows(flows::page(&query, &mut self.nat, clock::now())),
            Question::CountFlows => Reply::FlowCount(self.nat.stats(), self.nat.flow_limit()),
        }
    }

    fn add_port(&mut self, id: PortId, spec: PortSpec, fd: OwnedFd) -> Reply {
        let PortSpec { network, kind, group, mtu, accepts, addresses, station } = spec.clone();
        let port = Port { network, group, mtu: usize::from(mtu), addresses, station };
        if let Err(refusal) = self.switch.add_port(id, port) {
            return Reply::Refused(refusal.to_string());
        }
        let device = Device::new(fd, kind);
        if let Err(error) = self.poller.add(device.as_fd(), id.index()) {
            self.switch.remove_port(id);
            return Reply::Refused(format!("cannot wait for the descriptor: {error}"));
        }
        self.ports.insert(id, device, accepts);
        self.memory.specs.insert(id, spec);
        Reply::Done
    }

    fn set_station(&mut self, port: PortId, station: Station) -> Reply {
        if let Some(spec) = self.memory.specs.get_mut(&port) {
            spec.station = station.clone();
        }
        self.switch.set_station(port, station);
        Reply::Done
    }

    fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) -> Reply {
        self.wiring(clock::now()).set_host(addresses.clone());
        self.switch.set_host_addresses(addresses);
        Reply::Done
    }

    fn set_claims(&mut self, channel: OwnedFd) -> Reply {
        self.outside.set_claims(channel);
        Reply::Done
    }

    fn grant(&mut self, grants: Vec<Grant>) -> Reply {
        for Grant { protocol, address, ports } in grants {
            self.nat.grant(protocol, address, ports.into_iter().flatten());
        }
        self.outside.granted();
        Reply::Done
    }

    fn add_binding(&mut self, binding: Binding) -> Reply {
        match self.nat.add_binding(binding) {
            Ok(()) => {
                self.switch.publish(published(&binding));
                Reply::Done
            }
            Err(BindingError::Taken(same)) if same == binding => Reply::Done,
            Err(error) => Reply::Refused(error.to_string()),
        }
    }

    fn remove_binding(&mut self, binding: &Binding) -> Reply {
        if self.nat.remove_binding(binding) {
            self.switch.unpublish(&published(binding));
        }
        Reply::Done
    }

    fn set_uplink(&mut self, place: u16, spec: Option<UplinkSpec>, fd: Option<OwnedFd>) -> Reply {
        let port = reserved::uplink(place.min(UPLINKS_MAX - 1));
        if fd.is_some() || spec.is_none() {
            self.close(port);
        }
        if let Some(fd) = fd {
            let device = Device::new(fd, DeviceKind::Packet { vnet_header: true });
            if let Err(error) = self.poller.add(device.as_fd(), port.index()) {
                return Reply::Refused(format!("cannot wait for the uplink's descriptor: {error}"));
            }
            self.ports.insert(port, device, Accepts::ALL);
            self.ports.set_ready(port);
        }
        self.wiring(clock::now()).set_uplink(port, spec);
        self.send_to_one();
        Reply::Done
    }

    /// Asks control over a new channel for names that are not ours. The old one, if there was one, is closed.
    fn set_resolver(&mut self, channel: OwnedFd) -> Reply {
        if let Err(error) = self.poller.add(channel.as_fd(), RESOLVER) {
            return Reply::Refused(format!("cannot wait for the resolver's channel: {error}"));
        }
        if let Some(old) = self.resolver.upstream() {
            let _ = self.poller.remove(old.as_fd());
        }
        self.resolver.set_upstream(channel);
        Reply::Done
    }

    /// Closes a port's descriptor. Control has a duplicate, so it must leave the poller first.
    pub(super) fn close(&mut self, id: PortId) {
        self.memory.specs.remove(&id);
        self.resolver.forget_port(id);
        if let Some(port) = self.ports.remove(id) {
            let _ = self.poller.remove(port.device.as_fd());
        }
    }

    fn table_page(&self, network: NetworkId, after: Option<Mac>) -> Vec<TableEntry> {
        let now = clock::now();
        let mut entries: Vec<TableEntry> = self
            .switch
            .table(network)
            .filter(|entry| after.is_none_or(|after| entry.mac > after))
            .map(|entry| TableEntry {
                mac: entry.mac,
                port: entry.port,
                fixed: entry.fixed,
                age_ms: if entry.fixed { 0 } else { millis(now.since(entry.seen)) },
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.mac);
        entries.truncate(TABLE_PAGE);
        entries
    }
}

/// The container's side of published ports.
fn published(binding: &Binding) -> PublishedPorts {
    let Binding { network, container: address, protocol, container_port: first, ports, .. } = *binding;
    let ports = first..=first.saturating_add(ports.saturating_sub(1));
    PublishedPorts { network, address, protocol: protocol as u8, ports }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
