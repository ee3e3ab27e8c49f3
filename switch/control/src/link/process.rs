//! The datapath as a process: started, told everything, asked, watched, and started again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command as Process};
use tokio::sync::mpsc;
use vswitch_contract::claim::Wanted;
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::{Channel, Listener, MESSAGE_BYTES_MAX};

use super::relays::hand_over;
use super::{Link, LinkError, Running, State};
use vswitch_contract::command::{Command, Reply, TunnelCommand};

/// A datapath whose end is waited for.
pub(super) enum Watched {
    Child(Child),
    Found(AsyncFd<Pidfd>),
}

impl Link {
    /// Tells the datapath something that is answered by `Done`.
    pub(super) async fn tell(
        &self,
        state: &mut State,
        command: Command,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), LinkError> {
        let reply = self.ask(state, &command, fd).await?;
        if matches!(reply, Reply::Done) { Ok(()) } else { Err(unexpected(reply)) }
    }

    /// Asks the datapath. If it dies over it, the next one, which has been told everything in `state`, is
    /// asked nothing more than what still has an answer.
    pub(super) async fn ask(
        &self,
        state: &mut State,
        command: &Command,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, LinkError> {
        if let Some(running) = &state.running
            && let Ok((reply, _)) = ask(&running.channel, command, fd).await
        {
            return Ok(reply);
        }
        tracing::warn!(pid = state.latest, "the datapath does not answer; starting another");
        self.relaunch(state).await?;
        match (command, &state.running) {
            (Command::Read(_), Some(running)) => Ok(ask(&running.channel, command, None).await?.0),
            _ => Ok(Reply::Done),
        }
    }

    /// Starts a new datapath in place of a dead one.
    pub(super) async fn relaunch(&self, state: &mut State) -> io::Result<()> {
        if state.stopped {
            return Err(io::Error::other("it was stopped"));
        }
        if let Some(running) = state.running.take() {
            // One that lives but does not answer must not go on beside the next, and write down flows.
            let _ = running.process.kill();
            running.process.into_async()?.readable().await?.retain_ready();
        }
        self.launch(state).await?;
        self.shared.restarts.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Gives the datapath a channel on which its questions for names are answered.
    pub(super) async fn serve_resolver(&self, channel: &AsyncFd<Channel>) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        must(channel, &Command::SetResolver, Some(theirs.as_fd())).await?;
        self.shared.resolver.serve(ours)
    }

    /// Gives the datapath a channel on which it asks for claims.
    pub(super) async fn serve_claims(&self, channel: &AsyncFd<Channel>) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        must(channel, &Command::SetClaims, Some(theirs.as_fd())).await?;
        tokio::spawn(hear_wants(ours.into_async()?, self.shared.wants.clone()));
        Ok(())
    }

    /// Starts a datapath and tells it everything.
    pub(super) async fn launch(&self, state: &mut State) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        let listener = Listener::bind(&state.socket)?;
        let child = spawn(theirs)?;
        let pid = child.id().unwrap_or(0);
        let process = Pidfd::open(pid)?;
        let channel = ours.into_async()?;
        must(&channel, &Command::Listen, Some(listener.as_fd())).await?;
        must(&channel, &Command::Mirror, Some(self.shared.mirror.as_fd())).await?;
        must(&channel, &Command::Start(state.options), Some(self.shared.counters.as_fd())).await?;
        if let Some(kept) = &state.kept {
            must(&channel, &Command::Keep, Some(kept.as_fd())).await?;
        }
        must(&channel, &Command::SetHostAddresses(state.host_addresses.clone()), None).await?;
        self.serve_resolver(&channel).await?;
        for (id, network) in &state.networks {
            must(&channel, &Command::AddNetwork(*id, network.clone()), None).await?;
        }
        for (network, remotes) in &state.remotes {
            for (mac, remote) in remotes {
                let name = TunnelCommand::Name(*network, *mac, Some(remote.clone()));
                must(&channel, &Command::Tunnel(name), None).await?;
            }
        }
        must(&channel, &Command::SetRules(state.rules.clone()), None).await?;
        for (id, (spec, fd)) in &state.ports {
            must(&channel, &Command::AddPort(*id, spec.clone()), Some(fd.as_fd())).await?;
        }
        super::tunnels::tell_all(&channel, state).await?;
        for (place, (spec, fd)) in &state.uplinks {
            must(&channel, &Command::SetUplink(*place, Some(spec.clone())), Some(fd.as_fd())).await?;
        }
        must(&channel, &Command::Grant(state.grants.clone()), None).await?;
        self.serve_claims(&channel).await?;
        for binding in &state.bindings {
            must(&channel, &Command::AddBinding(*binding), None).await?;
        }
        for (relayed, relay) in &state.relays {
            match hand_over(&channel, *relayed, relay).await {
                // The world reaches the port all the same.
                Err(LinkError::Refused(why)) => tracing::warn!("a published port is not relayed: {why}"),
                Err(LinkError::Down(error)) => return Err(error),
                Ok(()) => {}
            }
        }
        must(&channel, &Command::Begin, None).await?;
        super::claims::hand_over_all(&channel, state).await?;
        self.shared.pid.store(pid, Relaxed);
        let watcher = tokio::spawn(watch(self.clone(), Watched::Child(child), pid));
        state.running = Some(Running { channel, process, watcher });
        state.latest = pid;
        Ok(())
    }
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
pub(super) fn watch(link: Link, mut watched: Watched, pid: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let status = watched.ended().await;
        let mut pause = Duration::from_millis(10);
        loop {
            let mut state = link.shared.state.lock().await;
            if state.stopped || state.latest != pid {
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

/// Sends one command and awaits its reply, and the descriptor that rides along.
pub(crate) async fn ask(
    channel: &AsyncFd<Channel>,
    command: &Command,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<(Reply, Option<OwnedFd>)> {
    let (reply, fds) = ask_with(channel, command, fd.as_slice()).await?;
    Ok((reply, fds.into_iter().next()))
}

/// The same, with any number of descriptors that ride along.
pub(crate) async fn ask_with(
    channel: &AsyncFd<Channel>,
    command: &Command,
    fds: &[BorrowedFd<'_>],
) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let message = serde_json::to_vec(command)?;
    channel.get_ref().send(&message, fds)?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let mut guard = channel.readable().await?;
        match channel.get_ref().receive_all(&mut buffer)? {
            Some((length, fds)) => return Ok((serde_json::from_slice(&buffer[..length])?, fds)),
            None => guard.clear_ready(),
        }
    }
}

/// Sends a command that has no reason to be refused.
pub(super) async fn must(
    channel: &AsyncFd<Channel>,
    command: &Command,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let (reply, _) = ask(channel, command, fd).await?;
    if matches!(reply, Reply::Done) { Ok(()) } else { Err(io::Error::other(unexpected(reply))) }
}

pub(super) fn unexpected(reply: Reply) -> LinkError {
    if let Reply::Refused(why) = reply {
        return LinkError::Refused(why);
    }
    LinkError::Down(io::Error::other("it gave the wrong answer"))
}

/// Runs this program again as the datapath, in a process group of its own so that a terminal's Ctrl-C
/// reaches only control.
fn spawn(channel: Channel) -> io::Result<Child> {
    Process::new("/proc/self/exe")
        .arg0("vswitch")
        .arg("datapath")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

pub(super) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
