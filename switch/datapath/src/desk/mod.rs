//! The desk: control's word comes in here, between turns.
//!
//! | file | |
//! |---|---|
//! | [`line`] | the connection to control, and where the next control comes in |
//! | [`apply`] | carries out a change of a fact |
//! | [`port`] [`tunnel`] | parts of that, for ports and for tunnels |

mod apply;
mod line;
mod port;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::fact::{Fact, Facts};
use vswitch_contract::order::{Options, Order, Question, Reply, TABLE_PAGE, TableEntry, VERSION};
use vswitch_contract::parts::PART_BYTES_MAX;
use vswitch_engine::Station;
use vswitch_frame::{Instant, Mac, NetworkId, PortId};
use vswitch_sys::clock;
use vswitch_sys::seqpacket::DESCRIPTORS_MAX;

use crate::ready::RESOLVER;
use crate::turn::Datapath;
use crate::{flows, mirror};
pub(crate) use line::Line;

/// What control said, and the line on which it says more.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) line: Line,
    /// Everything that was told.
    facts: Facts,
    options: Options,
    /// Whether control said that it has told everything.
    begun: bool,
    /// Whether control said that it is over.
    stopped: bool,
}

impl Desk {
    pub(crate) fn new(line: Line, options: Options) -> Self {
        Self { line, facts: Facts::default(), options, begun: false, stopped: false }
    }

    /// Whether frames are to be moved.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether there is nothing left to do: control said so, or there is neither a control nor a port.
    pub(crate) fn is_over(&self) -> bool {
        self.stopped || (self.line.is_dead() && self.ports().next().is_none())
    }

    fn ports(&self) -> impl Iterator<Item = (PortId, &vswitch_contract::port::PortSpec)> {
        use vswitch_contract::fact::Key;
        let all = self.facts.range(Key::Port(PortId(0))..=Key::Port(PortId(u16::MAX)));
        all.filter_map(|held| if let Fact::Port(id, spec) = &held.fact { Some((*id, spec)) } else { None })
    }

    /// Sends an answer.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        self.reply_with(reply, Vec::new());
    }

    fn reply_with(&mut self, reply: &Reply, fds: Vec<Arc<OwnedFd>>) {
        if let Ok(text) = serde_json::to_vec(reply) {
            self.line.send(&text, fds);
        }
    }

    /// A page of the facts behind one: as many as fit a packet with their descriptors, and one at least.
    fn page(&self, behind: Option<vswitch_contract::fact::Key>) -> (Reply, Vec<Arc<OwnedFd>>) {
        let (mut page, mut fds, mut bytes) = (Vec::new(), Vec::new(), 0);
        for held in self.facts.behind(behind) {
            bytes += serde_json::to_vec(&held.fact).map_or(0, |text| text.len() + 8);
            let is_full = bytes > PART_BYTES_MAX || fds.len() + held.fds.len() > DESCRIPTORS_MAX;
            if is_full && !page.is_empty() {
                break;
            }
            page.push((held.fact.clone(), held.fds.len()));
            fds.extend(held.fds.iter().cloned());
        }
        (Reply::Facts(page), fds)
    }
}

impl Datapath {
    /// Carries out the next order, if there is one, and answers it; says whether there was.
    pub(crate) fn carry_out_next(&mut self) -> bool {
        let Some(received) = self.desk.line.receive(&self.poller) else { return false };
        let order = received.and_then(|(text, fds)| match serde_json::from_slice(&text) {
            Ok(order) => Ok((order, fds)),
            Err(error) => Err(format!("not an order: {error}")),
        });
        match order {
            Ok((order, fds)) => self.carry_out(order, fds),
            Err(why) => self.desk.reply(&Reply::Refused(why)),
        }
        true
    }

    fn carry_out(&mut self, order: Order, fds: Vec<OwnedFd>) {
        let reply = match order {
            Order::Start(_) => Reply::Refused("already started".to_owned()),
            Order::Greet(version) => return self.greet(&version),
            Order::Connect => self.connect(fds),
            Order::Tell(steps) => self.tell(steps, fds),
            Order::Recall(behind) => {
                let (reply, fds) = self.desk.page(behind);
                return self.desk.reply_with(&reply, fds);
            }
            Order::Begin => self.begin(clock::now()),
            Order::Alive => Reply::Done,
            Order::Announce(port) => {
                self.announce(port);
                Reply::Done
            }
            Order::Read(question) => self.read(question),
            Order::Stop => {
                self.desk.stopped = true;
                Reply::Done
            }
        };
        // What is answered is written down.
        mirror::follow(&self.mirror, &mut self.nat);
        self.desk.reply(&reply);
    }

    /// Says how it runs to a control that did not start it, and hands it what both write to.
    fn greet(&mut self, version: &str) {
        let memory = [self.mirror.as_fd().try_clone_to_owned(), self.counters.as_fd().try_clone_to_owned()];
        let reply = match memory {
            _ if version != VERSION => {
                Reply::Refused(format!("this datapath is of version {VERSION}, not {version}"))
            }
            [Ok(mirror), Ok(counters)] => {
                let fds = [mirror, counters].map(Arc::new).to_vec();
                return self.desk.reply_with(&Reply::Options(self.desk.options), fds);
            }
            [Err(error), _] | [_, Err(error)] => {
                Reply::Refused(format!("cannot duplicate a descriptor: {error}"))
            }
        };
        self.desk.reply(&reply);
    }

    /// Asks control over new channels: for names that are not ours, and for claims. The old ones are closed.
    fn connect(&mut self, fds: Vec<OwnedFd>) -> Reply {
        let Ok([resolver, claims]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Reply::Refused("two channels are needed, for names and for claims".to_owned());
        };
        if let Err(error) = self.poller.add(resolver.as_fd(), RESOLVER) {
            return Reply::Refused(format!("cannot wait for the resolver's channel: {error}"));
        }
        if let Some(old) = self.resolver.upstream() {
            let _ = self.poller.remove(old.as_fd());
        }
        self.resolver.set_upstream(resolver);
        self.uplinks.set_claims(claims);
        Reply::Done
    }

    /// Takes up the flows of the datapath before, of those containers that are still there, and begins to move frames.
    fn begin(&mut self, now: Instant) -> Reply {
        if self.desk.begun {
            return Reply::Done;
        }
        let mut owners = BTreeMap::new();
        for (_, spec) in self.desk.ports() {
            if let Station::Container(endpoint) = &spec.station {
                let addresses = endpoint.addresses.iter().map(|net| (spec.network, net.addr()));
                owners.extend(addresses.map(|key| (key, endpoint.sandbox)));
            }
        }
        let owner = |network, address| owners.get(&(network, address)).copied();
        mirror::restore(&self.mirror, &mut self.nat, now, &owner);
        self.desk.begun = true;
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

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
