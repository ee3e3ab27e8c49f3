//! The link, and everything that its clones share.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinHandle;
use vswitch_contract::claim::Wanted;
use vswitch_contract::counters::Counters;
use vswitch_contract::fact::{Facts, Key};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::Options;
use vswitch_contract::poll::PollMode;
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use crate::resolver::Resolver;

/// The socket in the state directory where the datapath listens for the next control.
pub(super) const SOCKET: &str = "datapath.sock";

/// Options of the datapath.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The state directory.
    pub directory: PathBuf,
    /// The path of the socket where the datapath listens for the next control, where it can be none in the
    /// state directory.
    pub spare: PathBuf,
    /// Polling: what the datapath does when there is no work.
    pub poll: PollMode,
}

/// The reason why the datapath did not do what it was told.
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
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) mirror: Mirror,
    pub(super) resolver: Resolver,
    pub(super) pid: AtomicU32,
    pub(super) restarts: AtomicU64,
    pub(super) state: Mutex<State>,
    pub(super) uplink_names: std::sync::Mutex<BTreeMap<u16, String>>,
    /// Notice that other packets from the uplink are the switch's than before.
    pub(super) admission: Notify,
    /// Whether nobody is to wait for the datapath any more.
    pub(super) given_up: watch::Sender<bool>,
    /// Ports the datapath wants to be claimed.
    pub(super) wants: mpsc::UnboundedSender<Vec<Wanted>>,
    pub(super) wanted: Mutex<mpsc::UnboundedReceiver<Vec<Wanted>>>,
}

/// Everything the datapath must have, and the datapath that has it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) socket: PathBuf,
    /// The socket's path where the state directory may only be read.
    pub(super) spare: PathBuf,
    /// Starts the process that is to be the datapath, at the other end of this channel.
    pub(super) spawn: fn(Channel) -> io::Result<Child>,
    pub(super) options: Options,
    pub(super) facts: Facts,
    pub(super) running: Option<Running>,
    /// The datapath started or found last, dead or alive: only its watcher may replace it.
    pub(super) latest: u32,
    pub(super) stopped: bool,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) channel: AsyncFd<Channel>,
    pub(super) process: Pidfd,
    pub(super) watcher: JoinHandle<()>,
}

/// A fact that the datapath does not take, and why.
pub type Dropped = (Key, String);

impl Link {
    /// A link whose datapath is not there yet.
    pub(super) fn of(counters: Counters, mirror: Mirror, resolver: Resolver, state: State) -> Self {
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
}
