//! The time until all hosts of a cluster know of a change to an endpoint.
//!
//! # Theory of operation
//! Each host is a source of the cluster's view as the daemon has it, with an address of its own on the
//! loopback interface of one namespace. One after the other says that an endpoint of its is new, and each of
//! the others notes when it hears so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Clock, Endpoint, HostId, Key, More, Record, Subscription, Value, Version};
use vswitch_cluster::view::{Event, View};
use vswitch_cluster::{Prepared, etcd, gossip};
use vswitch_frame::{Instant, Mac};
use vswitch_sys::netlink::Netlink;
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_sys::{clock, random, wallclock};
use vswitch_traffic::{Process, enter_stage};

use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::process::Program;

/// A source by which the cluster hears of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Gossip
    #[default]
    Gossip,
    /// An etcd of one member
    Etcd,
}

/// How long a change may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between changes, at most: hosts do not speak in step with it.
const PAUSE_MS: u64 = 250;
/// The network of all endpoints.
const NETWORK: Id = Id::new([9; 32]);
const KEY_FILE: &str = "/run/cluster.key";

/// Changes endpoints of one host after the other, and prints how long the others took to hear of it.
///
/// # Errors
/// When etcd cannot be started, or a change does not arrive.
pub fn run(source: Source, hosts: u8, changes: u32) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    let netns = NetNs::anonymous()?;
    run_in(&netns, Netlink::open)??.set_up("lo")?;
    std::fs::write(KEY_FILE, gossip::seal::show(random::bytes()?))?;
    let _etcd = if source == Source::Etcd { Some(start_etcd(&netns)?) } else { None };
    let runtime = || Builder::new_current_thread().enable_all().build();
    let mut delays = run_in(&netns, || runtime()?.block_on(measure(source, hosts, changes)))??;
    delays.sort_unstable();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    println!("{source:?}: {changes} changes of endpoints, each heard by the {} other hosts\n", hosts - 1);
    println!("ms: median {:.1}, p99 {:.1}, last {:.1}", at(50), at(99), at(100));
    println!("at most: p99 2,000 ms by gossip, 300 ms by etcd; aim 1,000 and 100 ms");
    Ok(())
}

fn start_etcd(netns: &NetNs) -> Result<Process, BenchError> {
    let arguments = ["--data-dir", "/run/etcd", "--unsafe-no-fsync"];
    Program::new(netns, "etcd", arguments, "apt-get install etcd-server")?.spawn()
}

/// A host of the cluster.
struct Host {
    number: u8,
    id: HostId,
    view: View,
}

/// Versions that hosts have heard of, and when.
type Heard = mpsc::UnboundedReceiver<(Version, Instant)>;

async fn measure(source: Source, hosts: u8, changes: u32) -> Result<Vec<Duration>, BenchError> {
    let (note, mut heard) = mpsc::unbounded_channel();
    let (mut members, mut versions) = (Vec::new(), Clock::default());
    for number in 1..=hosts {
        let member = join(source, number, note.clone()).await.map_err(BenchError::Fault)?;
        let version = versions.next(wallclock::since_epoch());
        let (key, value) =
            (Key::Subscription(NETWORK, member.id), Value::Subscription(Subscription::default()));
        member.view.publish(vec![Record { key, version, host: member.id, value: Some(value) }]);
        members.push(member);
    }
    // All hear of one host's change before anything is measured: then they have found each other.
    for member in &members {
        change(member, &mut versions, &mut heard, usize::from(hosts) - 1).await?;
    }
    let mut delays = Vec::new();
    for member in members.iter().cycle().take(changes as usize) {
        let [pause] = random::bytes()?;
        tokio::time::sleep(Duration::from_millis(u64::from(pause) * PAUSE_MS / 256)).await;
        delays.extend(change(member, &mut versions, &mut heard, usize::from(hosts) - 1).await?);
    }
    Ok(delays)
}

async fn join(
    source: Source,
    number: u8,
    note: mpsc::UnboundedSender<(Version, Instant)>,
) -> Result<Host, String> {
    let address = |number| IpAddr::from(Ipv4Addr::new(127, 0, 1, number));
    let prepared = match source {
        Source::Gossip => {
            let advertise = SocketAddr::new(address(number), gossip::PORT);
            let join = if number == 1 { Vec::new() } else { vec![address(1).to_string()] };
            let options = gossip::Options { key_file: KEY_FILE.into(), join, advertise, bind: None };
            Prepared::Gossip(gossip::prepare("bench", options).await?)
        }
        Source::Etcd => {
            let state_dir = PathBuf::from(format!("/run/host{number}"));
            std::fs::create_dir(&state_dir).map_err(|error| error.to_string())?;
            let address = "etcd://127.0.0.1:2379".parse()?;
            let access = etcd::client::Access { address, tls: None, user: None };
            let options = etcd::Options { access, state_dir, lease_s: etcd::LEASE_S };
            Prepared::Etcd(etcd::prepare("bench", options).await?)
        }
    };
    let (view, mut events, end) = prepared.channel();
    let id = HostId::new([number; 16]);
    prepared.start(id, Vec::new(), end).await?;
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let Event::Records(records) = event else { continue };
            let now = clock::now();
            for record in records.iter().filter(|record| record.host != id) {
                // The other end is gone once all is measured.
                let _ = note.send((record.version, now));
            }
        }
    });
    Ok(Host { number, id, view })
}

/// Says that the host's endpoint is new, and waits until all `others` have heard so. Answers how long each
/// took.
async fn change(
    member: &Host,
    versions: &mut Clock,
    heard: &mut Heard,
    others: usize,
) -> Result<Vec<Duration>, BenchError> {
    let endpoint = Endpoint {
        sandbox: "c".to_owned(),
        id: Id::new([1; 32]),
        addresses: vec![IpAddr::from([10, 9, 0, 1])],
        vtep: IpAddr::from([192, 0, 2, 1]),
        names: vec!["c".to_owned()],
        more: More::new(),
    };
    let version = versions.next(wallclock::since_epoch());
    let key = Key::Endpoint(NETWORK, Mac([2, 0, 0, 0, 0, member.number]));
    let begun = clock::now();
    member.view.publish(vec![Record {
        key,
        version,
        host: member.id,
        value: Some(Value::Endpoint(endpoint)),
    }]);
    let mut delays = Vec::new();
    while delays.len() < others {
        let news = timeout(PATIENCE, heard.recv()).await;
        let Ok(Some((of, at))) = news else {
            return Err(BenchError::Fault(format!(
                "{} of {others} hosts heard of a change within {} s",
                delays.len(),
                PATIENCE.as_secs()
            )));
        };
        if of == version {
            delays.push(at.since(begun));
        }
    }
    Ok(delays)
}
