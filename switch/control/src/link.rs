//! Control's end of the datapath: starts it, tells it what there is, and starts it again when it dies.
//!
//! # Theory of operation
//! Everything the datapath must have is kept here first: networks, and ports with a duplicate of their
//! descriptor. Then the datapath is told. When it dies, by whatever cause, a new one is started and told
//! everything again; meanwhile the kernel's queues hold the frames. A change made while the datapath is
//! dead is therefore never lost: it is part of what the new one is told.
//!
//! When control dies the datapath goes on, and the next control takes up with it ([`survivor`]): then what
//! it was told is what is kept here at first.
//!
//! Counters lie in memory shared by both ends and survive either. So do flows: the next datapath goes on with them.
//!
//! [`survivor`]: super::survivor

mod claims;
mod process;
mod relays;
mod tunnels;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use ipnet::IpNet;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_contract::claim::Wanted;
use vswitch_contract::network::{Count, Network, Remote, Rule, Station};
use vswitch_contract::relay::Binding;
use vswitch_frame::{Mac, NetworkId, PortId};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

pub use claims::Claim;
use process::{Watched, must, random_seed, unexpected, watch};
pub(super) use process::{ask, ask_with};
pub use relays::Relay;
pub use tunnels::KnownTunnel;

use super::resolver::Resolver;
use super::survivor::{self, PATIENCE, Survivor};
use vswitch_contract::claim::Claimed;
use vswitch_contract::command::{
    Command, Options, PollMode, PortSpec, Question, Reply, TABLE_PAGE, TableEntry, TunnelCommand,
};
use vswitch_contract::counters::{Counters, PortCounters};
use vswitch_contract::flows::{FlowPage, FlowQuery};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::relay::Relayed;
use vswitch_contract::tunnel::TunnelSocket;
use vswitch_contract::uplink::{Grant, UplinkSpec};

/// Where the datapath listens for the next control, in the state directory.
const SOCKET: &str = "datapath.sock";

/// How the datapath runs.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The state directory.
    pub directory: PathBuf,
    /// What it does when there is no work.
    pub poll: PollMode,
}

/// Why the datapath did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It refused.
    #[error("the datapath refused: {0}")]
    Refused(String),
    /// It could not be reached, nor started again.
    #[error("the datapath does not run: {0}")]
    Down(#[from] io::Error),
}

/// Control's end of the datapath. Clones are the same link.
#[derive(Clone, Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    counters: Counters,
    mirror: Mirror,
    resolver: Resolver,
    pid: AtomicU32,
    restarts: AtomicU64,
    state: Mutex<State>,
    uplink_names: std::sync::Mutex<BTreeMap<u16, String>>,
    /// Tells that other packets from the uplink are the switch's than before.
    admission: Notify,
    /// What the datapath wants to be claimed.
    wants: mpsc::UnboundedSender<Vec<Wanted>>,
    wanted: Mutex<mpsc::UnboundedReceiver<Vec<Wanted>>>,
}

/// What the datapath must have, and the datapath that has it.
#[derive(Debug)]
struct State {
    socket: PathBuf,
    options: Options,
    networks: BTreeMap<NetworkId, Network>,
    /// Names of endpoints on other hosts.
    remotes: BTreeMap<NetworkId, BTreeMap<Mac, Remote>>,
    rules: Vec<Rule>,
    ports: BTreeMap<PortId, (PortSpec, OwnedFd)>,
    /// The way out, with a packet socket.
    uplinks: BTreeMap<u16, (UplinkSpec, OwnedFd)>,
    grants: Vec<Grant>,
    /// The sockets of claimed ports, which control has, too.
    claims: BTreeMap<Claimed, Arc<OwnedFd>>,
    /// Published ports.
    bindings: Vec<Binding>,
    /// Their sockets.
    relays: BTreeMap<Relayed, Relay>,
    /// The private namespace of veth pairs.
    kept: Option<OwnedFd>,
    host_addresses: Vec<IpAddr>,
    tunnels: BTreeMap<NetworkId, KnownTunnel>,
    /// The sockets that they share.
    tunnel_sockets: BTreeMap<TunnelSocket, OwnedFd>,
    running: Option<Running>,
    /// The datapath started or found last, dead or alive: only its watcher may replace it.
    latest: u32,
    stopped: bool,
}

#[derive(Debug)]
struct Running {
    channel: AsyncFd<Channel>,
    process: Pidfd,
    watcher: JoinHandle<()>,
}

impl Link {
    /// Takes up with the datapath that an earlier control left behind, or starts one. `resolver` finds out
    /// names for it.
    ///
    /// # Errors
    /// When it cannot be started or cannot confine itself.
    pub async fn start(wanted: LinkOptions, resolver: Resolver) -> io::Result<Self> {
        let socket = wanted.directory.join(SOCKET);
        match survivor::find(&socket).await? {
            Some(found) => Self::resume(found, socket, wanted.poll, resolver).await,
            None => Self::start_new(socket, wanted.poll, resolver).await,
        }
    }

    async fn start_new(socket: PathBuf, poll: PollMode, resolver: Resolver) -> io::Result<Self> {
        let state = State {
            socket,
            options: Options { poll, seed: random_seed()? },
            networks: BTreeMap::new(),
            remotes: BTreeMap::new(),
            rules: Vec::new(),
            ports: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            grants: Vec::new(),
            claims: BTreeMap::new(),
            bindings: Vec::new(),
            relays: BTreeMap::new(),
            kept: None,
            host_addresses: Vec::new(),
            tunnels: BTreeMap::new(),
            tunnel_sockets: BTreeMap::new(),
            running: None,
            latest: 0,
            stopped: false,
        };
        let link = Self::of(Counters::new()?, Mirror::new()?, resolver, state);
        let mut state = link.shared.state.lock().await;
        link.launch(&mut state).await?;
        drop(state);
        Ok(link)
    }

    async fn resume(
        found: Survivor,
        socket: PathBuf,
        poll: PollMode,
        resolver: Resolver,
    ) -> io::Result<Self> {
        let Survivor { channel, process, pid, memory } = found;
        let state = State {
            socket,
            options: Options { poll, ..memory.options },
            networks: memory.networks,
            remotes: BTreeMap::new(),
            rules: Vec::new(),
            ports: memory.ports,
            uplinks: memory.uplinks,
            grants: Vec::new(),
            claims: memory.claims,
            bindings: memory.bindings,
            relays: memory.relays,
            kept: memory.kept,
            host_addresses: Vec::new(),
            tunnels: memory.tunnels,
            tunnel_sockets: memory.tunnel_sockets,
            running: None,
            latest: pid,
            stopped: false,
        };
        let link = Self::of(memory.counters, memory.mirror, resolver, state);
        let mut state = link.shared.state.lock().await;
        let watched = Watched::Found(process.try_clone()?.into_async()?);
        let watcher = tokio::spawn(watch(link.clone(), watched, pid));
        link.serve_resolver(&channel).await?;
        // The cluster says anew who is there.
        must(&channel, &Command::Tunnel(TunnelCommand::ForgetNames), None).await?;
        link.serve_claims(&channel).await?;
        // The control before may have died over telling it.
        must(&channel, &Command::Begin, None).await?;
        state.running = Some(Running { channel, process, watcher });
        link.shared.pid.store(pid, Relaxed);
        link.tell(&mut state, Command::SetPoll(poll), None).await.map_err(io::Error::other)?;
        drop(state);
        Ok(link)
    }

    fn of(counters: Counters, mirror: Mirror, resolver: Resolver, state: State) -> Self {
        let (wants, wanted) = mpsc::unbounded_channel();
        let shared = Shared {
            uplink_names: std::sync::Mutex::default(),
            admission: Notify::new(),
            wants,
            wanted: Mutex::new(wanted),
            counters,
            mirror,
            resolver,
            pid: AtomicU32::new(0),
            restarts: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The networks the datapath has.
    pub async fn networks(&self) -> BTreeMap<NetworkId, Network> {
        self.shared.state.lock().await.networks.clone()
    }

    /// The ports the datapath has, each with a duplicate of its descriptor.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn ports(&self) -> io::Result<Vec<(PortId, PortSpec, OwnedFd)>> {
        let state = self.shared.state.lock().await;
        let ports = state.ports.iter();
        ports.map(|(id, (spec, fd))| Ok((*id, spec.clone(), fd.try_clone()?))).collect()
    }

    /// What was handed over with [`keep`](Self::keep), by this control or one before it.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn kept(&self) -> io::Result<Option<OwnedFd>> {
        self.shared.state.lock().await.kept.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Hands the private namespace of veth pairs to the datapath, for the control that comes after this one.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will have it.
    pub async fn keep(&self, fd: OwnedFd) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let rides_along = fd.try_clone()?;
        state.kept = Some(fd);
        self.tell(&mut state, Command::Keep, Some(rides_along.as_fd())).await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// [`LinkError`]; then there is no such network.
    pub async fn add_network(&self, id: NetworkId, network: Network) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.networks.insert(id, network.clone());
        let done = self.tell(&mut state, Command::AddNetwork(id, network), None).await;
        self.shared.admission.notify_one();
        done.inspect_err(|_| {
            state.networks.remove(&id);
        })
    }

    /// Removes a network and every port on it.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove_network(&self, network: NetworkId) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.networks.remove(&network);
        state.remotes.remove(&network);
        state.ports.retain(|_, (spec, _)| spec.network != network);
        state.tunnels.remove(&network);
        self.shared.admission.notify_one();
        self.tell(&mut state, Command::RemoveNetwork(network), None).await
    }

    /// Makes a port of a descriptor, and starts its counters at zero.
    ///
    /// # Errors
    /// [`LinkError`]; then there is no such port, and the descriptor is closed.
    pub async fn add_port(&self, id: PortId, spec: PortSpec, fd: OwnedFd) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        self.shared.counters.reset(id);
        let rides_along = fd.try_clone()?;
        state.ports.insert(id, (spec.clone(), fd));
        let done = self.tell(&mut state, Command::AddPort(id, spec), Some(rides_along.as_fd())).await;
        done.inspect_err(|_| {
            state.ports.remove(&id);
        })
    }

    /// Says anew who is behind a port.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_station(&self, id: PortId, station: Station) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some((spec, _)) = state.ports.get_mut(&id) {
            spec.station = station.clone();
        }
        self.tell(&mut state, Command::SetStation(id, station), None).await
    }

    /// Has the addresses of the container behind a port said in its network.
    ///
    /// # Errors
    /// [`LinkError::Down`], also when it was stopped.
    pub async fn announce(&self, id: PortId) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if state.stopped {
            return Err(io::Error::other("it was stopped").into());
        }
        self.tell(&mut state, Command::Announce(id), None).await
    }

    /// Says the names of a network's endpoints on other hosts, in place of those it was told before.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_remotes(
        &self,
        network: NetworkId,
        remotes: BTreeMap<Mac, Remote>,
    ) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let before = state.remotes.insert(network, remotes.clone()).unwrap_or_default();
        let gone = before.keys().filter(|mac| !remotes.contains_key(*mac)).map(|mac| (*mac, None));
        let changed = remotes.iter().filter(|(mac, remote)| before.get(*mac) != Some(*remote));
        let changed = changed.map(|(mac, remote)| (*mac, Some(remote.clone())));
        for (mac, remote) in gone.chain(changed) {
            self.tell(&mut state, Command::Tunnel(TunnelCommand::Name(network, mac, remote)), None).await?;
        }
        Ok(())
    }

    /// Says which addresses the host has.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_host_addresses(&self, addresses: Vec<IpAddr>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.host_addresses.clone_from(&addresses);
        self.tell(&mut state, Command::SetHostAddresses(addresses), None).await
    }

    /// Says what the uplink is at a place in the list of them, or that there is none. `fd` is a packet socket on it, if
    /// it is another interface than before.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_uplink(
        &self,
        place: u16,
        spec: Option<UplinkSpec>,
        fd: Option<OwnedFd>,
    ) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let rides_along = fd.as_ref().map(OwnedFd::try_clone).transpose()?;
        let before = state.uplinks.remove(&place).map(|(_, fd)| fd);
        state.uplinks.extend(spec.clone().zip(fd.or(before)).map(|told| (place, told)));
        if state.uplinks.is_empty() {
            state.grants.clear();
        }
        let names = state.uplinks.iter().map(|(place, (spec, _))| (*place, spec.interface.clone())).collect();
        *self.shared.uplink_names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let rides_along = rides_along.as_ref().map(AsFd::as_fd);
        self.tell(&mut state, Command::SetUplink(place, spec), rides_along).await
    }

    /// The names of the interfaces that lead out of the host, by their places.
    pub fn uplink_names(&self) -> BTreeMap<u16, String> {
        self.shared.uplink_names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says all ports that are claimed for some protocols at some addresses.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn grant(&self, grants: Vec<Grant>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let is_same = |old: &Grant, new: &Grant| (old.protocol, old.address) == (new.protocol, new.address);
        state.grants.retain(|old| !grants.iter().any(|new| is_same(old, new)));
        state.grants.extend(grants.iter().cloned());
        self.tell(&mut state, Command::Grant(grants), None).await
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

    /// The addresses of the host that networks leave with instead of the uplink's.
    pub async fn source_addresses(&self) -> Vec<IpAddr> {
        let state = self.shared.state.lock().await;
        let of =
            |network: &Network| [network.source_v4.map(IpAddr::from), network.source_v6.map(IpAddr::from)];
        state.networks.values().flat_map(of).flatten().collect()
    }

    /// The subnets whose addresses mean containers beyond an interface of the host, too.
    pub async fn reachable_subnets(&self, interface: Option<&str>) -> Vec<IpNet> {
        let state = self.shared.state.lock().await;
        let networks = state.networks.values();
        networks.flat_map(|network| network.subnets_in_sight(interface).collect::<Vec<_>>()).collect()
    }

    /// The published ports the datapath has.
    pub async fn bindings(&self) -> Vec<Binding> {
        self.shared.state.lock().await.bindings.clone()
    }

    /// Publishes ports.
    ///
    /// # Errors
    /// [`LinkError`]; then they are not published.
    pub async fn add_binding(&self, binding: Binding) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.bindings.push(binding);
        let done = self.tell(&mut state, Command::AddBinding(binding), None).await;
        self.shared.admission.notify_one();
        done.inspect_err(|_| state.bindings.retain(|known| *known != binding))
    }

    /// Ends a publication.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove_binding(&self, binding: Binding) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.bindings.retain(|known| *known != binding);
        self.shared.admission.notify_one();
        self.tell(&mut state, Command::RemoveBinding(binding), None).await
    }

    /// Removes a port and closes its descriptor.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove_port(&self, id: PortId) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let removed = state.ports.remove(&id);
        let done = self.tell(&mut state, Command::RemovePort(id), None).await;
        drop(removed);
        done
    }

    /// The forwarding table of a network, in the order of addresses.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn table(&self, network: NetworkId) -> Result<Vec<TableEntry>, LinkError> {
        let mut state = self.shared.state.lock().await;
        let mut table: Vec<TableEntry> = Vec::new();
        loop {
            let after = table.last().map(|entry| entry.mac);
            let reply =
                self.ask(&mut state, &Command::Read(Question::Table { network, after }), None).await?;
            let Reply::Table(page) = reply else { return Err(unexpected(reply)) };
            let last = page.len() < TABLE_PAGE;
            table.extend(page);
            if last {
                return Ok(table);
            }
        }
    }

    /// A page of the flows.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowPage, LinkError> {
        let mut state = self.shared.state.lock().await;
        let reply = self.ask(&mut state, &Command::Read(Question::Flows(query)), None).await?;
        if let Reply::Flows(page) = reply { Ok(page) } else { Err(unexpected(reply)) }
    }

    /// How many flows there are, what was counted of them, and how many there may be.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn flow_count(&self) -> Result<(vswitch_contract::flows::Stats, usize), LinkError> {
        let mut state = self.shared.state.lock().await;
        let reply = self.ask(&mut state, &Command::Read(Question::CountFlows), None).await?;
        if let Reply::FlowCount(stats, limit) = reply { Ok((stats, limit)) } else { Err(unexpected(reply)) }
    }

    /// Puts these rules in place of all there are.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_rules(&self, rules: Vec<Rule>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.rules.clone_from(&rules);
        self.tell(&mut state, Command::SetRules(rules), None).await
    }

    /// What each rule has decided about since it was made or the datapath started, by its number.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn rule_counts(&self) -> Result<BTreeMap<u32, Count>, LinkError> {
        let mut state = self.shared.state.lock().await;
        let reply = self.ask(&mut state, &Command::Read(Question::Rules), None).await?;
        let Reply::Rules(counts) = reply else { return Err(unexpected(reply)) };
        Ok(counts.into_iter().collect())
    }

    /// The counters of a port.
    pub fn counters(&self, id: PortId) -> PortCounters {
        self.shared.counters.read(id)
    }

    /// The process that is the datapath now.
    pub fn datapath_pid(&self) -> u32 {
        self.shared.pid.load(Relaxed)
    }

    /// How many times a dead datapath was replaced.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Relaxed)
    }

    /// Ends the datapath and closes every descriptor of a port.
    pub async fn stop(&self) {
        let mut state = self.shared.state.lock().await;
        state.stopped = true;
        state.ports.clear();
        state.relays.clear();
        state.claims.clear();
        state.tunnel_sockets.clear();
        (state.uplinks, state.kept) = (BTreeMap::new(), None);
        let _ = std::fs::remove_file(&state.socket);
        if let Some(Running { channel, process, watcher }) = state.running.take() {
            if !matches!(timeout(PATIENCE, ask(&channel, &Command::Stop, None)).await, Ok(Ok(_))) {
                // It may have ended by itself.
                let _ = process.kill();
            }
            drop(state);
            let _ = watcher.await;
        }
    }
}
