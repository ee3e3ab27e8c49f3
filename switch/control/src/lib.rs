//! The privileged process: API, networks, addresses, interfaces.
//!
//! # Theory of operation
//! A request arrives at the [`socket`], is read by the [`api`] and becomes a job for the [`actor`], which
//! does one at a time on [`Control`]. A job that changes something reserves what is needed, makes
//! interfaces by netlink, tells the datapath over the [`link`], and only then writes the [`state`]; a
//! failure at any step undoes the ones before it. What must wait for the kernel, such as destroying an
//! interface, goes on beside, and the client is answered when it is done.
//!
//! | file | |
//! |---|---|
//! | [`socket`] [`api`] | how clients come in, and what they say |
//! | [`actor`] | one job at a time |
//! | [`networks`] [`sandboxes`] [`endpoints`] [`rules`] [`flows`] [`observe`] | the operations, by noun |
//! | [`host_addresses`] | which addresses the host has, told to the datapath |
//! | [`uplink`] [`claims`] | the way out of the host, and the ports held for it |
//! | [`overlay`] [`tunnels`] | networks that span hosts, and what the datapath is told of them |
//! | [`host_port`] | the interface a host reaches a network by |
//! | [`interface`] | making an interface in a sandbox, and its default routes |
//! | [`publish`] | ports of the host that lead to sandboxes |
//! | [`announce`] | telling a network of a new endpoint |
//! | [`state`] [`records`] | what there is, and what of it was touched |
//! | [`store`] [`reconcile`] | what survives, and what is made of it after a start |
//! | [`files`] | what sandboxes find under `/etc` |
//! | [`resolver`] | asks the host's name servers for the datapath |
//! | [`describe`] | what the datapath is told of networks and endpoints |
//! | [`surroundings`] [`predefined`] | what a new network must know of the host; networks that are none |
//! | [`ipam`] [`subnets`] [`options`] [`names`] [`mode`] [`default_route`] [`filters`] [`calendar`] | pure rules |
//! | [`cluster`] | other hosts: networks that span them, addresses, names |
//! | [`link`] | the datapath, seen from here |
//! | [`error`] | what a refusal looks like |

#![forbid(unsafe_code)]

pub mod actor;
pub mod announce;
pub mod api;
pub mod calendar;
pub mod claims;
pub mod cluster;
pub mod default_route;
pub mod describe;
pub mod endpoints;
pub mod error;
pub mod files;
pub mod filters;
pub mod flows;
pub mod host_addresses;
pub mod host_port;
pub mod interface;
pub mod ipam;
pub mod link;
pub mod mode;
pub mod names;
pub mod networks;
pub mod observe;
pub mod options;
pub mod overlay;
pub mod predefined;
pub mod publish;
pub mod reconcile;
pub mod records;
pub mod resolver;
pub mod rules;
pub mod sandboxes;
pub mod socket;
pub mod state;
pub mod store;
pub mod subnets;
pub mod surroundings;
pub mod tunnels;
pub mod uplink;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_frame::PortId;
use vswitch_sys::{random, wallclock};

use cluster::agent::Cluster;
use error::{Code, Error, Result};
use files::Files;
use interface::{FarSide, Remains, failed};
use link::{Link, LinkOptions};
use publish::claims::Claims;
use resolver::Resolver;
use state::State;
use store::Store;
use tunnels::Tunnels;
use uplink::Uplink;
use vswitch_cluster::Prepared;
use vswitch_cluster::id::Id;
use vswitch_contract::poll::PollMode;

/// Threads that wait for the kernel to destroy interfaces.
const BLOCKING_THREADS: usize = 32;

/// How long leaving a cluster may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// How the daemon runs.
#[derive(Debug)]
pub struct RunOptions {
    /// Where clients reach it.
    pub socket: PathBuf,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// What the datapath does when there is no work.
    pub poll: PollMode,
    /// The file that names the host's name servers.
    pub resolv_conf: PathBuf,
    /// Which interface leads out of the host.
    pub uplink: uplink::Choice,
    /// How it takes part in a cluster, if it does.
    pub cluster: Option<vswitch_cluster::Options>,
    /// The UDP port of tunnels.
    pub vxlan_port: u16,
}

/// Everything the daemon owns. One job at a time has it: see [`actor`].
#[derive(Debug)]
pub struct Control {
    state: State,
    store: Store,
    /// What is left of each port's interface to destroy when it goes.
    remains: BTreeMap<PortId, Remains>,
    claims: Claims,
    link: Link,
    tunnels: Tunnels,
    /// What it knows of the cluster it is in.
    cluster: Option<Cluster>,
    far: Option<FarSide>,
    files: Files,
    offloads_noted: bool,
}

/// Runs the daemon until it is told to stop, and then removes everything it made but the state, of which the
/// next one makes it again.
///
/// # Errors
/// When it cannot start.
pub fn run(options: &RunOptions) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        let message = "vswitch run makes interfaces and namespaces: run it as root";
        return Err(Error::new(Code::PermissionDenied, message));
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| failed("start the daemon", &error))?;
    let listener = socket::listen(&options.socket)?;
    let outcome = runtime.block_on(serve(listener, options));
    // Nobody else's: `listen` made it, and refused to while another daemon had one there.
    let _ = std::fs::remove_file(&options.socket);
    outcome
}

async fn serve(listener: std::os::unix::net::UnixListener, options: &RunOptions) -> Result<()> {
    // Before there is anything to remove, so that no signal ends the process with it still there.
    let stop = stop_signal().map_err(|error| failed("wait for signals", &error))?;
    let listener = UnixListener::from_std(listener).map_err(|error| failed("listen", &error))?;
    // Before anything is made: most refusals are for a key or an address.
    let source = vswitch_cluster::prepare(options.cluster.as_ref()).await;
    let source = source.map_err(|message| Error::new(Code::InvalidArgument, message))?;
    let mut control = Control::start(options).await?;
    let (handle, jobs) = actor::channel();
    let cluster = control.join_cluster(options.cluster.as_ref(), source, &handle).await?;
    let server = tokio::spawn(async move { axum::serve(listener, api::router(handle)).await });
    let uplink = Uplink::start(control.link.clone(), options.uplink.clone(), control.claims.clone()).await;
    let uplink = uplink.map_err(|error| failed("follow the uplink", &error))?;
    eprintln!("vswitch: ready on {}", options.socket.display());
    let follower = tokio::spawn(host_addresses::follow(control.link.clone()));
    let uplink = tokio::spawn(uplink.follow());
    let tunnels = tokio::spawn(control.tunnels.clone().follow());
    jobs.work(&mut control, stop).await;
    server.abort();
    follower.abort();
    uplink.abort();
    tunnels.abort();
    // Without its view the source leaves the cluster.
    drop(control.cluster.take());
    if let Some(source) = cluster {
        let _ = timeout(LEAVE_PATIENCE, source).await;
    }
    control.stop().await;
    Ok(())
}

impl Control {
    /// Goes on where the last control on this state directory stopped, however it ended. One that cannot
    /// leaves everything as it is.
    async fn start(options: &RunOptions) -> Result<Self> {
        let (store, state) = Store::open(&options.state_dir)?;
        let resolver = Resolver::new(options.resolv_conf.clone());
        let link_options = LinkOptions { poll: options.poll, directory: options.state_dir.clone() };
        let link = Link::start(link_options, resolver).await;
        let link = link.map_err(|error| failed("start the datapath", &error))?;
        let mut control = Self {
            state,
            store,
            remains: BTreeMap::new(),
            claims: Claims::default(),
            cluster: None,
            tunnels: Tunnels::new(link.clone(), options.vxlan_port),
            link,
            far: None,
            files: Files::new(&options.socket, options.resolv_conf.clone()),
            offloads_noted: false,
        };
        control.reconcile().await?;
        if !control.state.networks.contains_key(networks::DEFAULT_NETWORK) {
            let name = networks::DEFAULT_NETWORK.to_owned();
            control.create_network(api::types::NetworkCreate { name, ..Default::default() }).await?;
        }
        control.commit()?;
        Ok(control)
    }

    /// Writes down what has changed, and what the cluster is to know of it; only then the cluster is told.
    ///
    /// # Errors
    /// When it cannot be written.
    fn commit(&mut self) -> Result<()> {
        self.say_endpoints();
        self.store.commit(&mut self.state)?;
        if let Some(cluster) = &mut self.cluster {
            cluster.send();
        }
        Ok(())
    }

    /// Takes part in a cluster, if it shall, and follows what that says. Returns what ends when it has left.
    async fn join_cluster(
        &mut self,
        options: Option<&vswitch_cluster::Options>,
        source: Option<Prepared>,
        handle: &actor::Handle,
    ) -> Result<Option<JoinHandle<()>>> {
        let (Some(options), Some(prepared)) = (options, source) else { return Ok(None) };
        let (view, events, source) = prepared.channel();
        let host = self.enter_cluster(options, view)?;
        self.commit()?;
        let others = self.cluster.as_ref().map(Cluster::other_hosts).unwrap_or_default();
        let started = prepared.start(host, others, source).await;
        let source = started.map_err(|message| Error::new(Code::Internal, message))?;
        self.steer().await;
        tokio::spawn(cluster::agent::follow(handle.clone(), events));
        Ok(Some(source))
    }

    /// Removes everything but what is written down. The datapath goes first, so that closing our descriptors is what ends the
    /// interfaces, all at once.
    async fn stop(&mut self) {
        self.link.stop().await;
        let mut cleanup = endpoints::Cleanup::default();
        std::mem::take(&mut self.remains).into_values().for_each(|remains| cleanup.destroy(remains));
        for (name, sandbox) in self.state.sandboxes.iter() {
            sandboxes::forget_namespace(name, sandbox);
        }
        self.files.remove();
        cleanup.done().await;
    }
}

/// Ends when the process is asked to stop.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A port takes a handful of descriptors in this process, and a published one another; the usual soft limit
/// of 1,024 is few. Who may have more than the hard limit has as many as the kernel allows.
fn raise_descriptor_limit() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    if most.is_some_and(|most| setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok()) {
        return;
    }
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open descriptors: {error}");
    }
}

/// An identifier for something new.
fn new_id() -> Result<Id> {
    random::bytes().map(Id::new).map_err(|error| failed("draw an identifier", &error))
}

/// The moment it is, as people write it.
fn now() -> String {
    calendar::rfc3339(wallclock::since_epoch())
}
