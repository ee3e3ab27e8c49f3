//! The datapath as a process: started, told everything, watched, and started again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use vswitch_contract::claim::Wanted;
use vswitch_contract::fact::{Change, Facts};
use vswitch_contract::order::Order;
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::{Channel, Listener, MESSAGE_BYTES_MAX};

use super::change::stopping;
use super::shared::{Dropped, Link, Running, State};
use super::talk::{must, tell};

/// Time after which a datapath that nobody asks anything is asked whether it lives.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A datapath whose end is waited for.
pub(crate) enum Watched {
    Child(Child),
    Found(AsyncFd<Pidfd>),
}

impl Link {
    /// Starts a new datapath in place of one that is dead, or taken for dead. Facts that the new one refuses
    /// are dropped.
    pub(super) async fn relaunch(&self, state: &mut State) -> io::Result<Vec<Dropped>> {
        if state.stopped {
            return Err(io::Error::other("it was stopped"));
        }
        if let Some(running) = state.running.take() {
            // One that lives but does not answer must not go on beside the next, and write down flows.
            end(running.process).await?;
        }
        if self.has_given_up() {
            return Err(stopping());
        }
        let dropped = self.unless_given_up(self.launch(state)).await?;
        self.shared.restarts.fetch_add(1, Relaxed);
        Ok(dropped)
    }

    /// Gives the datapath channels on which it asks: for names, and for claims.
    pub(crate) async fn connect(&self, channel: &AsyncFd<Channel>) -> io::Result<()> {
        let (names, their_names) = Channel::pair()?;
        let (wants, their_wants) = Channel::pair()?;
        must(channel, &Order::Connect, &[their_names.as_fd(), their_wants.as_fd()]).await?;
        tokio::spawn(hear_wants(wants.into_async()?, self.shared.wants.clone()));
        self.shared.resolver.serve(names)
    }

    /// Starts a datapath and tells it everything.
    pub(super) async fn launch(&self, state: &mut State) -> io::Result<Vec<Dropped>> {
        let (ours, theirs) = Channel::pair()?;
        let listener = Listener::bind(&state.socket).or_else(|_| Listener::bind(&state.spare))?;
        let child = (state.spawn)(theirs)?;
        let pid = child.id().unwrap_or(0);
        let process = Pidfd::open(pid)?;
        let channel = ours.into_async()?;
        let memory = [listener.as_fd(), self.shared.mirror.as_fd(), self.shared.counters.as_fd()];
        must(&channel, &Order::Start(state.options), &memory).await?;
        self.connect(&channel).await?;
        let all = Facts::default().towards(&[], state.facts.range(..).cloned());
        let dropped: Vec<Dropped> =
            tell(&channel, &all).await?.into_iter().map(|(at, why)| (all[at].key(), why)).collect();
        must(&channel, &Order::Begin, &[]).await?;
        for (key, why) in &dropped {
            tracing::warn!("the new datapath goes on without {key:?}: {why}");
            state.facts.change(Change::Remove(*key));
        }
        self.shared.pid.store(pid, Relaxed);
        let watcher = tokio::spawn(watch(self.clone(), Watched::Child(child), pid));
        state.running = Some(Running { channel, process, watcher });
        state.latest = pid;
        Ok(dropped)
    }

    /// Replaces a datapath that lives and does not answer, or not what it is asked, until the link is
    /// stopped.
    pub(super) async fn look_after(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut state = self.shared.state.lock().await;
            if state.stopped {
                return;
            }
            let Some(running) = &state.running else { continue };
            let asked = self.unless_given_up(must(&running.channel, &Order::Alive, &[])).await;
            let Err(error) = asked else { continue };
            // One that died is its watcher's.
            if is_gone(&error) || self.has_given_up() {
                continue;
            }
            tracing::warn!(pid = state.latest, "the datapath is taken for dead: {error}");
            if let Err(error) = self.relaunch(&mut state).await {
                tracing::error!(%error, "the datapath cannot be started");
            }
        }
    }
}

/// Whether an error says that nobody is at the other end any more.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Ends a process, which may have ended by itself, and waits until the kernel has closed what it had.
pub(super) async fn end(process: Pidfd) -> io::Result<()> {
    let _ = process.kill();
    process.into_async()?.readable().await?.retain_ready();
    Ok(())
}

impl Watched {
    /// Waits for the end and says how it was, as far as that can be known.
    async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Found(process) => {
                let _ = process.readable().await;
                "not ours to know".to_owned()
            }
        }
    }
}

/// Waits for a datapath to die, then puts another in its place, however often that takes.
///
/// Boxed, because launching a datapath spawns this very future for it.
pub(crate) fn watch(link: Link, mut watched: Watched, pid: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let status = watched.ended().await;
        let mut pause = Duration::from_millis(10);
        loop {
            let mut state = link.shared.state.lock().await;
            if state.stopped || state.latest != pid || link.has_given_up() {
                return;
            }
            tracing::warn!(pid, status, "the datapath died; starting another");
            let Err(error) = link.relaunch(&mut state).await else { return };
            tracing::error!(%error, "the datapath cannot be started; trying again");
            drop(state);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    })
}

/// Hears what a datapath wants to be claimed, until it is gone.
async fn hear_wants(channel: AsyncFd<Channel>, wants: mpsc::UnboundedSender<Vec<Wanted>>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    while let Ok(mut guard) = channel.readable().await {
        match channel.get_ref().receive(&mut buffer) {
            Ok(Some((length, _))) => {
                if let Ok(wanted) = serde_json::from_slice(&buffer[..length]) {
                    let _ = wants.send(wanted);
                }
            }
            Ok(None) => guard.clear_ready(),
            Err(_) => return,
        }
    }
}

/// Runs this program again as the datapath, in a process group of its own so that a terminal's Ctrl-C
/// reaches only control. A session of its own would make the kernel share processors by session
/// (`CONFIG_SCHED_AUTOGROUP`), at the cost of throughput.
pub(super) fn spawn(channel: Channel) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("vswitch")
        .arg("datapath")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

pub(crate) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
