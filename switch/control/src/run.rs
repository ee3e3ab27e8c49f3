//! The daemon, from its start to its end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_cluster::Prepared;
use vswitch_contract::poll::PollMode;

use crate::actor;
use crate::api;
use crate::api::socket;
use crate::cleanup::Cleanup;
use crate::cluster::agent;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::error::{Code, Error, Result, failed};
use crate::host::addresses;
use crate::host::tunnels::Tunnels;
use crate::host::uplink::Uplink;
use crate::host::ways_out::Choice;
use crate::link::{Link, LinkOptions};
use crate::missing;
use crate::network::predefined::DEFAULT_NETWORK;
use crate::publish;
use crate::publish::claims::Claims;
use crate::resolver::Resolver;
use crate::sandbox;
use crate::sandbox::files::Files;
use crate::signals;
use crate::state::store::Store;

/// Threads that wait for the kernel to destroy interfaces.
const BLOCKING_THREADS: usize = 32;

/// The end of the path of the datapath's socket beside the control socket, behind that one's.
const SPARE: &str = ".datapath";

/// Time that a daemon which was killed may take to let go of what there is only one of.
const LETTING_GO: Duration = Duration::from_millis(1500);

/// Time that leaving a cluster may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Options of the daemon.
#[derive(Debug)]
pub struct RunOptions {
    /// The control socket, where clients reach it.
    pub socket: PathBuf,
    /// The directory where the state is kept.
    pub state_dir: PathBuf,
    /// Polling: what the datapath does when there is no work.
    pub poll: PollMode,
    /// The file that names the host's name servers.
    pub resolv_conf: PathBuf,
    /// The choice of uplinks.
    pub uplink: Choice,
    /// Its part in a cluster, if it takes part in one.
    pub cluster: Option<vswitch_cluster::Options>,
    /// The UDP port of tunnels.
    pub vxlan_port: u16,
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
    let listener = runtime.block_on(patiently(|| socket::listen(&options.socket)))?;
    let outcome = runtime.block_on(serve(listener, options));
    // Nobody else's: `listen` made it, and refused to while another daemon had one there.
    let _ = std::fs::remove_file(&options.socket);
    outcome
}

async fn serve(listener: std::os::unix::net::UnixListener, options: &RunOptions) -> Result<()> {
    // Before there is anything to remove, so that no signal ends the process with it still there.
    let stop = signals::stop().map_err(|error| failed("wait for signals", &error))?;
    let listener = UnixListener::from_std(listener).map_err(|error| failed("listen", &error))?;
    // Before anything is made: most refusals are for a key or an address.
    let source = vswitch_cluster::prepare(options.cluster.as_ref()).await;
    let source = source.map_err(|message| Error::new(Code::InvalidArgument, message))?;
    let mut control = Control::start(options).await?;
    let (handle, jobs) = actor::channel(&control);
    let cluster = control.join_cluster(options.cluster.as_ref(), source, &handle).await?;
    let vanished = tokio::spawn(sandbox::gone::follow(handle.clone()));
    let drained = tokio::spawn(publish::drain::follow(handle.clone()));
    let missing = tokio::spawn(missing::follow(handle.clone(), control.link.clone()));
    let server = tokio::spawn(async move { axum::serve(listener, api::router(handle)).await });
    let uplink = Uplink::start(control.link.clone(), options.uplink.clone(), control.claims.clone()).await;
    let uplink = uplink.map_err(|error| failed("take up the uplink", &error))?;
    // Standard error may have been closed by the program that started the daemon.
    let _ = writeln!(io::stderr(), "vswitch: ready on {}", options.socket.display());
    let follower = tokio::spawn(addresses::follow(control.link.clone()));
    let uplink = tokio::spawn(uplink.follow());
    let tunnels = tokio::spawn(control.tunnels.clone().follow());
    jobs.work(&mut control, stop).await;
    server.abort();
    vanished.abort();
    drained.abort();
    missing.abort();
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
        let (store, state) = patiently(|| Store::open(&options.state_dir)).await?;
        let files = Files::new(&options.socket, options.resolv_conf.clone())?;
        let resolver = Resolver::new(options.resolv_conf.clone());
        let mut spare = options.socket.clone().into_os_string();
        spare.push(SPARE);
        let link_options =
            LinkOptions { poll: options.poll, directory: options.state_dir.clone(), spare: spare.into() };
        let link = Link::start(link_options, resolver).await;
        let link = link.map_err(|error| failed("start the datapath", &error))?;
        let mut control = Self {
            state,
            store,
            remains: BTreeMap::new(),
            claims: Claims::default(),
            cluster: None,
            tunnels: Tunnels::new(link.clone(), options.vxlan_port),
            uplinks: options.uplink.names().to_vec(),
            link,
            far: None,
            files,
            offloads_noted: false,
            has_private_mounts: false,
        };
        control.reconcile().await?;
        if !control.state.networks.contains_key(DEFAULT_NETWORK) {
            let name = DEFAULT_NETWORK.to_owned();
            control.create_network(api::types::NetworkCreate { name, ..Default::default() }).await?;
        }
        control.owe();
        Ok(control)
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
        self.write_down().await?;
        let others = self.cluster.as_ref().map(Cluster::other_hosts).unwrap_or_default();
        let started = prepared.start(host, others, source).await;
        let source = started.map_err(|message| Error::new(Code::Internal, message))?;
        self.settle_cluster().await;
        self.steer().await;
        tokio::spawn(agent::follow(handle.clone(), events));
        Ok(Some(source))
    }

    /// Removes everything but what is written down. The datapath goes first, so that closing our descriptors
    /// is what ends the interfaces, all at once.
    async fn stop(&mut self) {
        self.link.stop().await;
        let mut cleanup = Cleanup::default();
        std::mem::take(&mut self.remains).into_values().for_each(|remains| cleanup.destroy(remains));
        for (name, sandbox) in self.state.sandboxes.iter() {
            sandbox::forget_namespace(name, sandbox);
        }
        self.files.remove();
        cleanup.done().await;
    }
}

/// Takes something that one daemon has at a time; one that was killed may need a moment to let go of it. The
/// kernel closes what was opened last first, so who has the lock of the state directory, which is opened
/// before anything is made, finds nothing else of that one's.
async fn patiently<T>(mut take: impl FnMut() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(10);
    let again = async {
        loop {
            match take() {
                Err(error) if error.code == Code::NameInUse => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    match timeout(LETTING_GO, again).await {
        Ok(outcome) => outcome,
        Err(_) => take(),
    }
}

/// Raises the limit of descriptors. A port takes a handful of them in this process, and a published one
/// another; the usual soft limit of 1,024 is few. A process that may have more than the hard limit has as
/// many as the kernel allows.
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
