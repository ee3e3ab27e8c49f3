//! Control's end of the datapath: starts it, tells it what there is, and starts it again when it dies.
//!
//! # Theory of operation
//! Everything the datapath must have is a fact in a table ([`vswitch_contract::fact`]), of which both processes have one.
//! [`Link::change`] is the only way to change it: the datapath is told, and what it refuses, both tables are without. When it
//! dies, by whatever cause, a new one is started and told all facts; meanwhile the kernel's queues hold the frames. A change
//! made while the datapath is dead is therefore never lost: it is part of what the new one is told.
//!
//! A datapath that does not answer within [`talk::PATIENCE`] is taken for dead, whether somebody asked it something or
//! nobody did for a while ([`process`]). When control is told to stop, nobody waits for long any more, and no other is
//! started ([`Link::give_up`]).
//!
//! When control dies the datapath goes on, and the next control takes up with it ([`survivor`]): then its table is the one
//! here at first.
//!
//! Counters lie in memory shared by both ends and survive either. So do flows: the next datapath goes on with them.

mod process;
mod survivor;
mod talk;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_contract::claim::Wanted;
use vswitch_contract::counters::{Counters, PortCounters};
use vswitch_contract::fact::{Change, Fact, Facts, Held, Key};
use vswitch_contract::flows::{FlowPage, FlowQuery, Stats};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::network::Count;
use vswitch_contract::order::{Options, Order, Question, Reply, TABLE_PAGE, TableEntry};
use vswitch_contract::parts::TEXT_BYTES_MAX;
use vswitch_contract::poll::PollMode;
use vswitch_frame::{NetworkId, PortId};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use super::resolver::Resolver;
pub use process::Dropped;
use process::{Watched, random_seed};
use survivor::Survivor;
use talk::{PATIENCE, ask, must, tell, wrong};
pub use told::Claim;

/// How long a living datapath may take for what it is still asked when control was told to stop.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

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
    /// Whether nobody is to wait for the datapath any more.
    given_up: watch::Sender<bool>,
    /// Ports the datapath wants to be claimed.
    wants: mpsc::UnboundedSender<Vec<Wanted>>,
    wanted: Mutex<mpsc::UnboundedReceiver<Vec<Wanted>>>,
}

/// Everything the datapath must have, and the datapath that has it.
#[derive(Debug)]
struct State {
    socket: PathBuf,
    /// Starts the process that is to be the datapath, at the other end of this channel.
    spawn: fn(Channel) -> io::Result<Child>,
    options: Options,
    facts: Facts,
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
        let link = match survivor::find(&socket).await? {
            Some(found) => Self::resume(found, socket, resolver).await?,
            None => Self::start_new(socket, resolver).await?,
        };
        link.set(Fact::Poll(wanted.poll)).await.map_err(io::Error::other)?;
        tokio::spawn(link.clone().look_after());
        Ok(link)
    }

    async fn start_new(socket: PathBuf, resolver: Resolver) -> io::Result<Self> {
        let options = Options { seed: random_seed()? };
        let (spawn, facts) = (process::spawn, Facts::default());
        let state = State { socket, spawn, options, facts, running: None, latest: 0, stopped: false };
        let link = Self::of(Counters::new()?, Mirror::new()?, resolver, state);
        let mut state = link.shared.state.lock().await;
        link.launch(&mut state).await?;
        drop(state);
        Ok(link)
    }

    async fn resume(found: Survivor, socket: PathBuf, resolver: Resolver) -> io::Result<Self> {
        let Survivor { channel, process, pid, memory } = found;
        let (spawn, options, facts) = (process::spawn, memory.options, memory.facts);
        let state = State { socket, spawn, options, facts, running: None, latest: pid, stopped: false };
        let link = Self::of(memory.counters, memory.mirror, resolver, state);
        let mut state = link.shared.state.lock().await;
        let taken_up = link.take_up(&channel).await;
        let watched = Watched::Found(process.try_clone()?.into_async()?);
        let watcher = tokio::spawn(process::watch(link.clone(), watched, pid));
        link.shared.pid.store(pid, Relaxed);
        state.running = Some(Running { channel, process, watcher });
        if let Err(error) = taken_up {
            tracing::warn!(pid, "the datapath is taken for dead: {error}");
            link.relaunch(&mut state).await?;
        }
        link.note(&state.facts, &state.facts.range(..).map(|held| held.fact.key()).collect::<Vec<_>>());
        drop(state);
        Ok(link)
    }

    /// Goes on with a datapath of another control's.
    async fn take_up(&self, channel: &AsyncFd<Channel>) -> io::Result<()> {
        self.connect(channel).await?;
        // The control before may have died over telling it.
        must(channel, &Order::Begin, &[]).await
    }

    fn of(counters: Counters, mirror: Mirror, resolver: Resolver, state: State) -> Self {
        let (wants, wanted) = mpsc::unbounded_channel();
        let shared = Shared {
            uplink_names: std::sync::Mutex::default(),
            admission: Notify::new(),
            given_up: watch::Sender::new(false),
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

    /// Makes it so; a fact that is there keeps its descriptors, if it has none of its own.
    ///
    /// # Errors
    /// [`LinkError`]; then all is as it was.
    pub async fn set(&self, fact: impl Into<Held>) -> Result<(), LinkError> {
        self.change(vec![Change::Set(fact.into())]).await
    }

    /// Takes a fact back.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove(&self, key: Key) -> Result<(), LinkError> {
        self.change(vec![Change::Remove(key)]).await
    }

    /// Takes back every fact whose key is asked for, the last one first.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have them.
    pub async fn remove_where(&self, asked_for: impl Fn(&Key) -> bool) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let keys = state.facts.range(..).rev().map(|held| held.fact.key()).filter(asked_for);
        let changes = keys.map(Change::Remove).collect();
        self.change_in(&mut state, changes).await
    }

    /// Changes facts, all of them or none.
    ///
    /// # Errors
    /// [`LinkError`]; then all is as it was, but that facts taken back stay so where the datapath does not run.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        self.change_in(&mut state, changes).await
    }

    async fn change_in(&self, state: &mut State, changes: Vec<Change>) -> Result<(), LinkError> {
        let done = self.carry_out(state, changes).await?;
        let Some((_, why)) = done.refused.first() else { return Ok(()) };
        self.take_back(state, &done, |_| true).await;
        Err(LinkError::Refused(why.clone()))
    }

    /// Has the wanted facts within ranges of keys, and no others, as far as the datapath takes them. Returns those that it
    /// refused, and why.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have others.
    pub async fn agree(
        &self,
        ranges: &[RangeInclusive<Key>],
        wanted: impl IntoIterator<Item = Held>,
    ) -> Result<Vec<Dropped>, LinkError> {
        let mut state = self.shared.state.lock().await;
        let changes = state.facts.towards(ranges, wanted);
        self.offer_in(&mut state, changes).await
    }

    /// Changes facts as far as the datapath takes them. Returns those that it refused, and why.
    ///
    /// # Errors
    /// [`LinkError::Down`].
    pub async fn offer(&self, changes: Vec<Change>) -> Result<Vec<Dropped>, LinkError> {
        let mut state = self.shared.state.lock().await;
        self.offer_in(&mut state, changes).await
    }

    async fn offer_in(&self, state: &mut State, changes: Vec<Change>) -> Result<Vec<Dropped>, LinkError> {
        let done = self.carry_out(state, changes).await?;
        if !done.refused.is_empty() {
            self.take_back(state, &done, |place| done.has_refused(place)).await;
        }
        Ok(done.refused.into_iter().map(|(place, why)| (done.keys[place], why)).collect())
    }

    /// Changes the table and tells the datapath. Refused changes are still in the table, unless that is of another datapath
    /// than before.
    async fn carry_out(&self, state: &mut State, changes: Vec<Change>) -> Result<Done, LinkError> {
        refuse_longest(&changes)?;
        // The table first: a datapath that dies over it is replaced by one that is told.
        let (mut said, mut undo) = (Vec::new(), Vec::new());
        for change in changes {
            if state.facts.has(&change) {
                continue;
            }
            if let Some(port) = counted_port(&change).filter(|_| state.facts.get(&change.key()).is_none()) {
                self.shared.counters.reset(port);
            }
            undo.push(state.facts.change(change.clone()));
            said.push(change);
        }
        let keys: Vec<Key> = said.iter().map(Change::key).collect();
        self.note(&state.facts, &keys);
        let latest = state.latest;
        match self.tell_or_relaunch(state, &said).await {
            Ok(refused) => Ok(Done { keys, undo, refused, by_another: state.latest != latest }),
            Err(error) => {
                // The next datapath is not told again of facts that were taken back.
                let undo = undo.into_iter().zip(&said).rev();
                let undo = undo.filter(|(_, change)| matches!(change, Change::Set(_)));
                undo.for_each(|(change, _)| drop(state.facts.change(change)));
                self.note(&state.facts, &keys);
                Err(error.into())
            }
        }
    }

    /// Undoes those of the changes whose places are asked for, the last one first. A datapath that does not go back with us is
    /// replaced by one that is told all.
    async fn take_back(&self, state: &mut State, done: &Done, asked_for: impl Fn(usize) -> bool) {
        let mut said = Vec::new();
        for place in (0..done.undo.len()).rev().filter(|place| asked_for(*place)) {
            let undo = &done.undo[place];
            if state.facts.has(undo) {
                continue;
            }
            // Who refused it has what was before; another has neither.
            if done.by_another || !done.has_refused(place) {
                said.push(state.facts.shortened(undo.clone()));
            }
            state.facts.change(undo.clone());
        }
        self.note(&state.facts, &done.keys);
        let Some(running) = state.running.as_ref().filter(|_| !said.is_empty()) else { return };
        let why = match self
            .unless_given_up(tell(&running.channel, &said))
            .await
            .map(|refused| refused.into_iter().next())
        {
            Ok(None) => return,
            Ok(Some((_, why))) => why,
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            pid = state.latest,
            "the datapath does not go back to what was, and is replaced: {why}"
        );
        if let Err(error) = self.relaunch(state).await {
            tracing::error!(%error, "the datapath cannot be started");
        }
    }

    /// Tells of changes that the table has already; says which were refused, by their places, and why.
    async fn tell_or_relaunch(
        &self,
        state: &mut State,
        changes: &[Change],
    ) -> io::Result<Vec<(usize, String)>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(running) = &state.running {
            match self.unless_given_up(tell(&running.channel, changes)).await {
                Ok(refused) => return Ok(refused),
                Err(error) => {
                    tracing::warn!(pid = state.latest, "the datapath is taken for dead: {error}");
                }
            }
        }
        let dropped = self.relaunch(state).await?;
        let place = |key: &Key| changes.iter().rposition(|change| change.key() == *key);
        Ok(dropped.into_iter().filter_map(|(key, why)| Some((place(&key)?, why))).collect())
    }

    /// The outcome of something that is asked of the datapath; an error if control was told to stop and it takes long.
    async fn unless_given_up<T>(&self, asked: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut given_up = self.shared.given_up.subscribe();
        let too_late = async {
            let _ = given_up.wait_for(|given_up| *given_up).await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = too_late => Err(stopping()),
        }
    }

    /// Nobody is to wait for long for the datapath any more, which is about to be stopped.
    pub fn give_up(&self) {
        self.shared.given_up.send_replace(true);
    }

    fn has_given_up(&self) -> bool {
        *self.shared.given_up.borrow()
    }

    /// Follows what the table says now under these keys.
    fn note(&self, facts: &Facts, keys: &[Key]) {
        if keys.iter().any(Key::decides_admission) {
            self.shared.admission.notify_one();
        }
        if keys.iter().any(|key| matches!(key, Key::Uplink(_))) {
            let names = told::uplinks(facts).map(|(place, spec, _)| (place, spec.interface.clone()));
            *self.shared.uplink_names.lock().unwrap_or_else(PoisonError::into_inner) = names.collect();
        }
    }

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

    /// A page of the flows.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowPage, LinkError> {
        let reply = self.ask(&Order::Read(Question::Flows(query))).await?;
        if let Reply::Flows(page) = reply { Ok(page) } else { Err(wrong(&reply).into()) }
    }

    /// How many flows there are, what was counted of them, and how many there may be.
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

    /// The process that is the datapath now.
    pub fn datapath_pid(&self) -> u32 {
        self.shared.pid.load(Relaxed)
    }

    /// How many times a dead datapath was replaced.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Relaxed)
    }

    /// Ends the datapath and closes every descriptor of a fact.
    pub async fn stop(&self) {
        self.give_up();
        let mut state = self.shared.state.lock().await;
        state.stopped = true;
        state.facts = Facts::default();
        let _ = std::fs::remove_file(&state.socket);
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

/// Changes that were told.
struct Done {
    keys: Vec<Key>,
    /// By the same places: changes that undo them.
    undo: Vec<Change>,
    /// Places of those that the datapath refused, and why.
    refused: Vec<(usize, String)>,
    /// Whether the datapath before died over it, and this one was told all at once.
    by_another: bool,
}

impl Done {
    fn has_refused(&self, place: usize) -> bool {
        self.refused.iter().any(|(refused, _)| *refused == place)
    }
}

fn stopping() -> io::Error {
    io::Error::other("the daemon is stopping")
}

fn counted_port(change: &Change) -> Option<PortId> {
    if let Change::Set(held) = change { held.fact.counted_port() } else { None }
}

/// Refuses what is longer than a message may be.
fn refuse_longest(changes: &[Change]) -> Result<(), LinkError> {
    for change in changes {
        let Change::Set(held) = change else { continue };
        let bytes = serde_json::to_vec(&held.fact).map_err(io::Error::from)?.len();
        if bytes > TEXT_BYTES_MAX / 2 {
            let key = held.fact.key();
            return Err(LinkError::Refused(format!("{key:?} takes {bytes} bytes: say less at once")));
        }
    }
    Ok(())
}
