//! A datapath that outlived its control: finding it, and learning what it was told.
//!
//! It listens on a socket in the state directory, which only one control has at a time. The process that
//! listens is the one that answers there, as the kernel knows it, so it can be waited for and ended like a
//! child.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use vswitch_contract::counters::Counters;
use vswitch_contract::fact::{Change, Facts, Held};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::{Options, Order, Reply, VERSION};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use super::process::end;
use super::talk::{PATIENCE, ask, wrong};

const ESRCH: i32 = 3;

/// A datapath, and all that it was told.
#[derive(Debug)]
pub(crate) struct Survivor {
    /// The connection to it.
    pub channel: AsyncFd<Channel>,
    /// The process.
    pub process: Pidfd,
    /// Its number.
    pub pid: u32,
    /// Facts and memory.
    pub memory: Memory,
}

/// The facts that a datapath was told, and the memory that it shares.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Its options.
    pub options: Options,
    /// Its counters.
    pub counters: Counters,
    /// Its mirror, where it writes down flows.
    pub mirror: Mirror,
    /// Facts that it was told.
    pub facts: Facts,
}

/// Finds the datapath that listens on `socket`. One that does not answer, or that is of another version, is
/// ended: then there is none.
///
/// # Errors
/// When there may be one that cannot be talked to.
pub(crate) async fn find(socket: &Path) -> io::Result<Option<Survivor>> {
    let Some(channel) = connect(socket).await? else { return Ok(None) };
    let pid = channel.peer()?.pid;
    let process = match Pidfd::open(pid) {
        Ok(process) => process,
        // It has ended since, as one without a port does.
        Err(error) if error.raw_os_error() == Some(ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let channel = channel.into_async()?;
    match remember(&channel).await {
        Ok(memory) => Ok(Some(Survivor { channel, process, pid, memory })),
        Err(error) => {
            tracing::warn!(pid, "ending the datapath that was found: {error}");
            end(process).await?;
            Ok(None)
        }
    }
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
    let (reply, fds) = ask(channel, &Order::Greet(VERSION.to_owned()), &[]).await?;
    let (Reply::Options(options), Ok([mirror, counters])) = (&reply, <[_; 2]>::try_from(fds)) else {
        return Err(wrong(&reply));
    };
    let (mirror, counters) = (Mirror::map(mirror)?, Counters::map(counters)?);
    let facts = recall(channel).await?;
    Ok(Memory { options: *options, counters, mirror, facts })
}

/// Asks for all facts, page by page.
pub(super) async fn recall(channel: &AsyncFd<Channel>) -> io::Result<Facts> {
    let mut facts = Facts::default();
    let mut last = None;
    loop {
        let (reply, fds) = ask(channel, &Order::Recall(last), &[]).await?;
        let Reply::Facts(page) = reply else { return Err(wrong(&reply)) };
        if page.is_empty() {
            return Ok(facts);
        }
        let mut fds = fds.into_iter().map(Arc::new);
        for (fact, count) in page {
            let held = Held { fact, fds: fds.by_ref().take(count).collect() };
            if held.fds.len() < count {
                return Err(io::Error::other("descriptors are missing: allow more (ulimit -n)"));
            }
            last = Some(held.fact.key());
            facts.change(Change::Set(held));
        }
    }
}
