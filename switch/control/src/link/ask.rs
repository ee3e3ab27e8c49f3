//! Questions to the datapath, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::timeout;
use vswitch_contract::claim::{Protocol, Wanted};
use vswitch_contract::counters::PortCounters;
use vswitch_contract::fact::Facts;
use vswitch_contract::flows::{FlowPage, FlowQuery, Stats};
use vswitch_contract::network::Count;
use vswitch_contract::order::{Order, Question, Reply, TABLE_PAGE, TableEntry};
use vswitch_contract::relay::Binding;
use vswitch_frame::{NetworkId, PortId};

use super::shared::{Link, LinkError, Running};
use super::talk::{PATIENCE, ask, must, wrong};

impl Link {
    /// The names of the interfaces that lead out of the host, by their places.
    pub fn uplink_names(&self) -> BTreeMap<u16, String> {
        self.shared.uplink_names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the datapath wants ports to be claimed, and says which.
    pub async fn wanted(&self) -> Vec<Wanted> {
        match self.shared.wanted.lock().await.recv().await {
            Some(wanted) => wanted,
            None => std::future::pending().await,
        }
    }

    /// Waits until other packets from the uplink are the switch's than before.
    pub async fn admission_changed(&self) {
        self.shared.admission.notified().await;
    }

    /// Has the addresses of the container behind a port said in its network.
    ///
    /// # Errors
    /// [`LinkError::Down`], also when it was stopped.
    pub async fn announce(&self, id: PortId) -> Result<(), LinkError> {
        self.ask(&Order::Announce(id)).await.map(drop)
    }

    /// Has claimed ports taken out of use that no flow has, so many at most; says which. They may be let go.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn give_back(
        &self,
        protocol: Protocol,
        address: IpAddr,
        most: usize,
    ) -> Result<BTreeSet<u16>, LinkError> {
        let reply = self.ask(&Order::GiveBack(protocol, address, most)).await?;
        if let Reply::GivenBack(ports) = reply { Ok(ports) } else { Err(wrong(&reply).into()) }
    }

    /// Asks the datapath; if it is dead, the next one.
    async fn ask(&self, order: &Order) -> Result<Reply, LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some(running) = &state.running {
            match self.unless_given_up(ask(&running.channel, order, &[])).await {
                Ok((reply, _)) => return Ok(reply),
                Err(error) => {
                    tracing::warn!(pid = state.latest, "the datapath is taken for dead: {error}");
                }
            }
        }
        self.relaunch(&mut state).await?;
        match &state.running {
            Some(running) => Ok(self.unless_given_up(ask(&running.channel, order, &[])).await?.0),
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        }
    }

    /// The forwarding table of a network, in the order of addresses.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn table(&self, network: NetworkId) -> Result<Vec<TableEntry>, LinkError> {
        let mut table: Vec<TableEntry> = Vec::new();
        loop {
            let after = table.last().map(|entry| entry.mac);
            let reply = self.ask(&Order::Read(Question::Table { network, after })).await?;
            let Reply::Table(page) = reply else { return Err(wrong(&reply).into()) };
            let last = page.len() < TABLE_PAGE;
            table.extend(page);
            if last {
                return Ok(table);
            }
        }
    }

    /// The room of the narrow paths of a network's tunnel, by the VTEPs they lead to.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn narrow_paths(&self, network: NetworkId) -> Result<BTreeMap<IpAddr, u32>, LinkError> {
        let reply = self.ask(&Order::Read(Question::Paths(network))).await?;
        if let Reply::Paths(paths) = reply {
            Ok(paths.into_iter().collect())
        } else {
            Err(wrong(&reply).into())
        }
    }

    /// A page of the flows.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowPage, LinkError> {
        let reply = self.ask(&Order::Read(Question::Flows(query))).await?;
        if let Reply::Flows(page) = reply { Ok(page) } else { Err(wrong(&reply).into()) }
    }

    /// Counts of flows: what was counted of them, with how many there are, and how many there may be.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn flow_count(&self) -> Result<(Stats, usize), LinkError> {
        let reply = self.ask(&Order::Read(Question::CountFlows)).await?;
        if let Reply::FlowCount(stats, limit) = reply {
            Ok((stats, limit))
        } else {
            Err(wrong(&reply).into())
        }
    }

    /// Whether published ports have any flow.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn is_in_use(&self, binding: Binding) -> Result<bool, LinkError> {
        let reply = self.ask(&Order::Read(Question::InUse(binding))).await?;
        if let Reply::InUse(in_use) = reply { Ok(in_use) } else { Err(wrong(&reply).into()) }
    }

    /// Counts of each rule since it was made or the datapath started, by its number.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn rule_counts(&self) -> Result<BTreeMap<u32, Count>, LinkError> {
        let reply = self.ask(&Order::Read(Question::Rules)).await?;
        if let Reply::Rules(counts) = reply {
            Ok(counts.into_iter().collect())
        } else {
            Err(wrong(&reply).into())
        }
    }

    /// The counters of a port.
    pub fn counters(&self, id: PortId) -> PortCounters {
        self.shared.counters.read(id)
    }

    /// Whether the interface of a port has vanished under it.
    pub fn has_vanished(&self, id: PortId) -> bool {
        self.shared.counters.is_gone(id)
    }

    /// The process that is the datapath now.
    pub fn datapath_pid(&self) -> u32 {
        self.shared.pid.load(Relaxed)
    }

    /// Times a dead datapath was replaced.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Relaxed)
    }

    /// Ends the datapath and closes every descriptor of a fact.
    pub async fn stop(&self) {
        self.give_up();
        let mut state = self.shared.state.lock().await;
        state.stopped = true;
        state.facts = Facts::default();
        let sockets = [state.socket.clone(), state.spare.clone()];
        let removed = tokio::task::spawn_blocking(move || {
            sockets.iter().for_each(|socket| drop(std::fs::remove_file(socket)));
        });
        // A disk that stalls is not waited for.
        let _ = timeout(PATIENCE / 3, removed).await;
        let Some(Running { channel, process, mut watcher }) = state.running.take() else { return };
        drop(state);
        let by_itself = timeout(PATIENCE / 3, async {
            must(&channel, &Order::Stop, &[]).await?;
            let _ = (&mut watcher).await;
            io::Result::Ok(())
        });
        if !matches!(by_itself.await, Ok(Ok(()))) {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = watcher.await;
        }
    }
}
