//! Control's orders, carried out.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::order::{Order, Question, Reply, TABLE_PAGE, TableEntry, VERSION};
use vswitch_engine::Station;
use vswitch_frame::{Instant, Mac, NetworkId};
use vswitch_sys::clock;

use crate::ready::RESOLVER;
use crate::turn::Datapath;
use crate::{flows, mirror};

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

    pub(crate) fn carry_out(&mut self, order: Order, fds: Vec<OwnedFd>) {
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
            Order::GiveBack(protocol, address, most) => {
                Reply::GivenBack(self.nat.give_back(protocol, address, most))
            }
            Order::Read(question) => self.read(question),
            Order::Stop => {
                self.desk.stopped = true;
                Reply::Done
            }
        };
        // Flows are written down before an answer tells of them.
        mirror::follow(&self.mirror, &mut self.nat);
        self.desk.reply(&reply);
    }

    /// Says how the datapath runs to a control that did not start it, and hands it the mirror and the
    /// counters.
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

    /// Takes up the flows of the datapath before, of those containers that are still there, and begins to
    /// move frames.
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
            Question::Paths(network) => Reply::Paths(self.tunnels.narrow_paths(network)),
            Question::Flows(query) => Reply::Flows(flows::page(&query, &mut self.nat, clock::now())),
            Question::InUse(binding) => Reply::InUse(self.nat.is_in_use(&binding)),
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
