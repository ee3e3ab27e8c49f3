//! The beginning of a link: with a datapath that outlived its control, or with a new one.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use vswitch_contract::counters::Counters;
use vswitch_contract::fact::{Fact, Facts};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::{Options, Order};

use super::process::{self, Watched, random_seed};
use super::shared::{Link, LinkOptions, Running, SOCKET, State};
use super::survivor::{self, Survivor};
use super::talk::must;
use crate::resolver::Resolver;
use tokio::io::unix::AsyncFd;
use vswitch_sys::seqpacket::Channel;

impl Link {
    /// Takes up with the datapath that an earlier control left behind, or starts one. `resolver` finds out
    /// names for it.
    ///
    /// # Errors
    /// When it cannot be started or cannot confine itself.
    pub async fn start(wanted: LinkOptions, resolver: Resolver) -> io::Result<Self> {
        let (socket, spare) = (wanted.directory.join(SOCKET), wanted.spare);
        let found = match survivor::find(&socket).await? {
            None => survivor::find(&spare).await?,
            found => found,
        };
        let link = match found {
            Some(found) => Self::resume(found, [socket, spare], resolver).await?,
            None => Self::start_new([socket, spare], resolver).await?,
        };
        link.set(Fact::Poll(wanted.poll)).await.map_err(io::Error::other)?;
        tokio::spawn(link.clone().look_after());
        Ok(link)
    }

    async fn start_new([socket, spare]: [PathBuf; 2], resolver: Resolver) -> io::Result<Self> {
        let options = Options { seed: random_seed()? };
        let (spawn, facts) = (process::spawn, Facts::default());
        let state = State { socket, spare, spawn, options, facts, running: None, latest: 0, stopped: false };
        let link = Self::of(Counters::new()?, Mirror::new()?, resolver, state);
        let mut state = link.shared.state.lock().await;
        link.launch(&mut state).await?;
        drop(state);
        Ok(link)
    }

    async fn resume(found: Survivor, [socket, spare]: [PathBuf; 2], resolver: Resolver) -> io::Result<Self> {
        let Survivor { channel, process, pid, memory } = found;
        let (spawn, options, facts) = (process::spawn, memory.options, memory.facts);
        let state =
            State { socket, spare, spawn, options, facts, running: None, latest: pid, stopped: false };
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
}
