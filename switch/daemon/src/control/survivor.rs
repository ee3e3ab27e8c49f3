//! A datapath that outlived its control: finding it, and learning what it was told.
//!
//! It listens on a socket in the state directory, which only one control has at a time. Who answers there
//! is the process that listens, as the kernel knows it, so it can be waited for and ended like a child.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use vswitch_engine::Network;
use vswitch_frame::{NetworkId, PortId};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use super::link::ask;
use crate::datapath::command::{Command, Options, PortSpec, Recall, Reply, VERSION};
use crate::datapath::counters::Counters;

/// How long a living datapath may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A datapath, and all that it was told.
#[derive(Debug)]
pub struct Survivor {
    /// The connection to it.
    pub channel: AsyncFd<Channel>,
    /// The process.
    pub process: Pidfd,
    /// Its number.
    pub pid: u32,
    /// What it was told.
    pub memory: Memory,
}

/// What a datapath was told.
#[derive(Debug)]
pub struct Memory {
    /// How it runs.
    pub options: Options,
    /// What it counts in.
    pub counters: Counters,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Its ports and their descriptors.
    pub ports: BTreeMap<PortId, (PortSpec, OwnedFd)>,
    /// What it was handed to keep.
    pub kept: Option<OwnedFd>,
}

/// Finds the datapath that listens on `socket`. One that does not answer, or that is of another version, is
/// ended: then there is none.
pub async fn find(socket: &Path) -> Option<Survivor> {
    // No socket, or one that nobody listens on any more.
    let channel = Channel::connect(socket).ok()?;
    let pid = channel.peer().ok()?.pid;
    let process = Pidfd::open(pid).ok()?;
    let channel = channel.into_async().ok()?;
    let why = match timeout(PATIENCE, remember(&channel)).await {
        Ok(Ok(memory)) => return Some(Survivor { channel, process, pid, memory }),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::warn!(pid, "ending the datapath that was found: {why}");
    // It may have ended by itself, as one without a port does.
    let _ = process.kill();
    None
}

async fn remember(channel: &AsyncFd<Channel>) -> io::Result<Memory> {
    let question = |recall| async move { ask(channel, &Command::Recall(recall), None).await };
    let (reply, fd) = question(Recall::Options(VERSION.to_owned())).await?;
    let (Reply::Options(options), Some(counters)) = (&reply, fd) else { return Err(wrong(&reply)) };
    let mut networks = BTreeMap::new();
    loop {
        let last = networks.last_key_value().map(|(id, _)| *id);
        let (reply, _) = question(Recall::NextNetwork(last)).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let Reply::Network(id, network) = reply else { return Err(wrong(&reply)) };
        networks.insert(id, network);
    }
    let mut ports = BTreeMap::new();
    loop {
        let last = ports.last_key_value().map(|(id, _)| *id);
        let (reply, fd) = question(Recall::NextPort(last)).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let (Reply::Port(id, spec), Some(fd)) = (&reply, fd) else { return Err(wrong(&reply)) };
        ports.insert(*id, (spec.clone(), fd));
    }
    let (_, kept) = question(Recall::Kept).await?;
    Ok(Memory { options: *options, counters: Counters::map(counters)?, networks, ports, kept })
}

fn wrong(reply: &Reply) -> io::Error {
    if let Reply::Refused(why) = reply {
        return io::Error::other(why.clone());
    }
    io::Error::other(format!("it answered {reply:?}"))
}
