//! A datapath that outlived its control: finding it, and learning what it was told.
//!
//! It listens on a socket in the state directory, which only one control has at a time. Who answers there
//! is the process that listens, as the kernel knows it, so it can be waited for and ended like a child.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use vswitch_contract::network::Network;
use vswitch_contract::relay::Binding;
use vswitch_frame::{NetworkId, PortId};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use super::link::{KnownTunnel, Relay, ask, ask_with};
use vswitch_contract::claim::Claimed;
use vswitch_contract::command::{Command, Options, PortSpec, Recall, Reply, VERSION};
use vswitch_contract::counters::Counters;
use vswitch_contract::mirror::Mirror;
use vswitch_contract::relay::{Relayed, Targets};
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::tunnel::TunnelSocket;
use vswitch_contract::uplink::UplinkSpec;

const ESRCH: i32 = 3;

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
    /// Where it writes down flows.
    pub mirror: Mirror,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Its ports and their descriptors.
    pub ports: BTreeMap<PortId, (PortSpec, OwnedFd)>,
    /// Its uplinks by their places, each with a packet socket.
    pub uplinks: BTreeMap<u16, (UplinkSpec, OwnedFd)>,
    /// The sockets of ports that are claimed for it.
    pub claims: BTreeMap<Claimed, Arc<OwnedFd>>,
    /// Its published ports.
    pub bindings: Vec<Binding>,
    /// The sockets of those.
    pub relays: BTreeMap<Relayed, Relay>,
    /// Its tunnels.
    pub tunnels: BTreeMap<NetworkId, KnownTunnel>,
    /// The sockets that they share.
    pub tunnel_sockets: BTreeMap<TunnelSocket, OwnedFd>,
    /// What it was handed to keep.
    pub kept: Option<OwnedFd>,
}

/// Finds the datapath that listens on `socket`. One that does not answer, or that is of another version, is
/// ended: then there is none.
///
/// # Errors
/// When there may be one that cannot be talked to.
pub async fn find(socket: &Path) -> io::Result<Option<Survivor>> {
    let Some(channel) = connect(socket).await? else { return Ok(None) };
    let pid = channel.peer()?.pid;
    let process = match Pidfd::open(pid) {
        Ok(process) => process,
        // It has ended since, as one without a port does.
        Err(error) if error.raw_os_error() == Some(ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let channel = channel.into_async()?;
    let why = match timeout(PATIENCE, remember(&channel)).await {
        Ok(Ok(memory)) => return Ok(Some(Survivor { channel, process, pid, memory })),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::warn!(pid, "ending the datapath that was found: {why}");
    // It, too, may have ended since.
    let _ = process.kill();
    Ok(None)
}

/// Connects to the datapath that listens on `socket`; `None` when there is none.
async fn connect(socket: &Path) -> io::Result<Option<Channel>> {
    const PAUSE: Duration = Duration::from_millis(10);
    let patient = timeout(PATIENCE, async {
        loop {
            match Channel::connect(socket) {
                // Others wait already; it lets go of those that have gone as soon as it looks.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    });
    match patient.await {
        Ok(Ok(channel)) => Ok(Some(channel)),
        Ok(Err(error))
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let message = format!("the datapath on {} lets nobody in: end it", socket.display());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

async fn remember(channel: &AsyncFd<Channel>) -> io::Result<Memory> {
    let question = |recall| async move { ask(channel, &Command::Recall(recall), None).await };
    let (reply, fd) = question(Recall::Options(VERSION.to_owned())).await?;
    let (&Reply::Options(options), Some(counters)) = (&reply, fd) else { return Err(wrong(&reply)) };
    let (reply, mirror) = question(Recall::Mirror).await?;
    let mirror = Mirror::map(mirror.ok_or_else(|| wrong(&reply))?)?;
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
    let mut bindings: Vec<Binding> = Vec::new();
    loop {
        let (reply, _) = question(Recall::NextBinding(bindings.last().copied())).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let Reply::Binding(binding) = reply else { return Err(wrong(&reply)) };
        bindings.push(binding);
    }
    let mut uplinks = BTreeMap::new();
    for place in 0..UPLINKS_MAX {
        if let (Reply::Uplink(spec), Some(socket)) = question(Recall::Uplink(place)).await? {
            uplinks.insert(place, (spec, socket));
        }
    }
    let claims = remember_claims(channel).await?;
    let relays = remember_relays(channel).await?;
    let (tunnels, tunnel_sockets) = remember_tunnels(channel).await?;
    let (_, kept) = question(Recall::Kept).await?;
    let counters = Counters::map(counters)?;
    Ok(Memory {
        options,
        counters,
        mirror,
        networks,
        ports,
        uplinks,
        claims,
        bindings,
        relays,
        tunnels,
        tunnel_sockets,
        kept,
    })
}

async fn remember_claims(channel: &AsyncFd<Channel>) -> io::Result<BTreeMap<Claimed, Arc<OwnedFd>>> {
    let mut all = BTreeMap::new();
    loop {
        let last = all.last_key_value().map(|(claimed, _)| *claimed);
        let (reply, fds) = ask_with(channel, &Command::Recall(Recall::NextClaims(last)), &[]).await?;
        let Reply::Claims(claimed) = reply else { return Err(wrong(&reply)) };
        if claimed.is_empty() {
            return Ok(all);
        }
        if claimed.len() != fds.len() {
            return Err(io::Error::other("sockets of claimed ports are missing"));
        }
        all.extend(claimed.into_iter().zip(fds.into_iter().map(Arc::new)));
    }
}

async fn remember_relays(channel: &AsyncFd<Channel>) -> io::Result<BTreeMap<Relayed, Relay>> {
    let mut all: BTreeMap<Relayed, (Targets, Vec<OwnedFd>)> = BTreeMap::new();
    let mut last = None;
    loop {
        let recall = Command::Recall(Recall::NextSockets(last));
        let (reply, fds) = ask_with(channel, &recall, &[]).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let Reply::Sockets(relayed, targets, first) = reply else { return Err(wrong(&reply)) };
        let (_, sockets) = all.entry(relayed).or_insert_with(|| (targets, Vec::new()));
        if fds.is_empty() || sockets.len() != first {
            return Err(io::Error::other("sockets of published ports are missing"));
        }
        sockets.extend(fds);
        last = Some((relayed, sockets.len() - 1));
    }
    let relay = |(relayed, (targets, sockets))| (relayed, Relay { sockets: Arc::new(sockets), targets });
    Ok(all.into_iter().map(relay).collect())
}

type Tunnels = (BTreeMap<NetworkId, KnownTunnel>, BTreeMap<TunnelSocket, OwnedFd>);

async fn remember_tunnels(channel: &AsyncFd<Channel>) -> io::Result<Tunnels> {
    let question = |recall| async move { ask(channel, &Command::Recall(recall), None).await };
    let mut tunnels = BTreeMap::new();
    loop {
        let last = tunnels.last_key_value().map(|(id, _)| *id);
        let (reply, _) = question(Recall::NextTunnel(last)).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let Reply::Tunnel(network, spec, peers) = reply else { return Err(wrong(&reply)) };
        let mut records = BTreeMap::new();
        loop {
            let after = records.last_key_value().map(|(mac, _)| *mac);
            let (reply, _) = question(Recall::Records { network, after }).await?;
            let Reply::Records(page) = reply else { return Err(wrong(&reply)) };
            if page.is_empty() {
                break;
            }
            records.extend(page.into_iter().map(|record| (record.mac, record)));
        }
        tunnels.insert(network, KnownTunnel { spec, peers: peers.into_iter().collect(), records });
    }
    let mut sockets = BTreeMap::new();
    loop {
        let last = sockets.last_key_value().map(|(socket, _)| *socket);
        let (reply, fd) = question(Recall::NextTunnelSocket(last)).await?;
        if matches!(reply, Reply::Done) {
            break;
        }
        let (Reply::TunnelSocket(socket), Some(fd)) = (&reply, fd) else { return Err(wrong(&reply)) };
        sockets.insert(*socket, fd);
    }
    Ok((tunnels, sockets))
}

fn wrong(reply: &Reply) -> io::Error {
    if let Reply::Refused(why) = reply {
        return io::Error::other(why.clone());
    }
    io::Error::other(format!("it answered {reply:?}"))
}
