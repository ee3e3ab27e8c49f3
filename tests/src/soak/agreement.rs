//! Agreement: what must hold when all faults have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use simple_dns::TYPE;
use vswitch_sys::clock;

use super::client::{Board, Client};
use super::host::{Host, pause};
use super::stage::Stage;
use super::tally::Tally;
use crate::names::ask;
use crate::talk;

/// The time within which everything must agree once the last fault has ended: longer than a lease of etcd's
/// and than SWIM takes to believe a host again.
const HEALS: Duration = Duration::from_secs(90);
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Descriptors more than at the beginning that a process may have: connections come and go.
const DESCRIPTORS_SLACK: u64 = 12;
/// KiB more than at the beginning that a process may have: buffers that grew stay.
const MEMORY_SLACK: u64 = 96 << 10;

/// An endpoint, as its host shows it.
#[derive(Clone, Debug)]
struct Endpoint {
    host: usize,
    sandbox: String,
    namespace: PathBuf,
    address: IpAddr,
    gateway: IpAddr,
}

/// The state of a host.
struct Seen {
    networks: Vec<String>,
    sandboxes: Vec<Value>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Agreement {
    /// The belongings of each host when it had nothing.
    at_first: Vec<BTreeMap<&'static str, u64>>,
}

impl Agreement {
    /// Notes what hosts without anything have.
    pub fn new(stage: &Stage, tally: &Tally) -> Self {
        wait(tally, "hosts see each other", || stage.hosts.iter().try_for_each(|host| sees(host, stage)));
        Self { at_first: stage.hosts.iter().map(Host::belongings).collect() }
    }

    /// Waits until all hosts agree with their clients and with each other, and packets and names arrive.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn reach(&mut self, stage: &Stage, clients: &mut [Client], board: &Board, tally: &Tally) {
        wait(tally, "hosts see each other", || stage.hosts.iter().try_for_each(|host| sees(host, stage)));
        wait(tally, "hosts have what their clients were answered", || {
            for (host, client) in stage.hosts.iter().zip(&mut *clients) {
                let seen = look(host)?;
                client.compare(&seen.networks, &seen.sandboxes, board)?;
            }
            Ok(())
        });
        wait(tally, "networks are the same everywhere", || same_networks(stage));
        let endpoints = wait(tally, "every endpoint is there", || endpoints(stage));
        no_address_twice(&endpoints);
        for (network, members) in &endpoints {
            for (one, other) in pairs(members) {
                let what = format!("{} of {network} finds {} of {}", one.sandbox, other.sandbox, other.host);
                let all = endpoints.values().flatten();
                let its = all.filter(|endpoint| endpoint.sandbox == other.sandbox);
                let addresses: BTreeSet<IpAddr> = its.map(|endpoint| endpoint.address).collect();
                wait(tally, "names are right", || {
                    named(one, other, &addresses).map_err(|error| format!("{what}: {error}"))
                });
                wait(tally, "packets arrive", || {
                    let answers = talk::answers(&one.namespace, other.address);
                    answers.then_some(()).ok_or_else(|| format!("{what}: no answer"))
                });
                tally.count("pairs that found each other by name and by ping");
            }
        }
        tally.count("agreements");
    }

    /// Has everything removed, and counts what is left.
    ///
    /// # Panics
    /// When anything is.
    pub fn clear(&mut self, stage: &Stage, clients: &mut [Client], board: &Board, tally: &Tally) {
        wait(tally, "everything is removed", || {
            let mut left = None;
            for (host, client) in stage.hosts.iter().zip(&mut *clients) {
                let seen = look(host)?;
                client.compare(&seen.networks, &seen.sandboxes, board)?;
                // A network goes when the other hosts have left it, too.
                if !client.clear(board, tally) {
                    left = Some(format!("host {}: left: {:?}", host.number, client.model()));
                }
            }
            left.map_or(Ok(()), Err)
        });
        wait(tally, "networks are the same everywhere", || same_networks(stage));
        for (host, at_first) in stage.hosts.iter().zip(&self.at_first) {
            wait(tally, "nothing is left", || {
                let now = host.belongings();
                tally.largest("KiB of control", now["memory of control"]);
                tally.largest("KiB of a datapath", now["memory of the datapath"]);
                let leaks = |(what, many): (&&str, &u64)| {
                    let slack = match *what {
                        "interfaces" => 0,
                        what if what.starts_with("memory") => MEMORY_SLACK,
                        _ => DESCRIPTORS_SLACK,
                    };
                    *many > at_first[what] + slack
                };
                let leaked = now.iter().any(leaks);
                if leaked {
                    Err(format!("host {}: {now:?}, at first {at_first:?}", host.number))
                } else {
                    Ok(())
                }
            });
        }
        tally.count("times that everything was removed and nothing left");
    }
}

/// Asks again and again until something holds.
///
/// # Panics
/// When it does not in time.
fn wait<T>(tally: &Tally, what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let from = clock::now();
    loop {
        match holds() {
            Ok(answer) => {
                tally.took(what, clock::now().since(from));
                return answer;
            }
            Err(why) => assert!(clock::now().since(from) < HEALS, "in {HEALS:?} not: {what}: {why}"),
        }
        pause(LOOK_EVERY);
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn sees(host: &Host, stage: &Stage) -> Result<(), String> {
    let cluster = host.get("/cluster")?;
    let up = list(&cluster["Hosts"]).iter().filter(|other| other["State"] == "up").count();
    if up + 1 == stage.hosts.len() { Ok(()) } else { Err(format!("host {}: {cluster}", host.number)) }
}

fn look(host: &Host) -> Result<Seen, String> {
    let networks = list(&host.get("/networks")?);
    let networks = networks.iter().map(|network| text(network, "Name")).collect();
    Ok(Seen { networks, sandboxes: list(&host.get("/sandboxes")?) })
}

/// Networks that span hosts are known to all of them, under one identifier.
fn same_networks(stage: &Stage) -> Result<(), String> {
    let mut known: Option<BTreeSet<(String, String)>> = None;
    for host in &stage.hosts {
        let networks = list(&host.get("/networks")?);
        let shared = networks.iter().filter(|network| network["Scope"] == "swarm");
        let shared = shared.map(|network| (text(network, "Name"), text(network, "Id"))).collect();
        match &known {
            Some(known) if *known != shared => {
                return Err(format!("host {}: {shared:?}, another {known:?}", host.number));
            }
            _ => known = Some(shared),
        }
    }
    Ok(())
}

/// All endpoints by network; those of networks of one host by themselves.
fn endpoints(stage: &Stage) -> Result<BTreeMap<String, Vec<Endpoint>>, String> {
    let mut all: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for host in &stage.hosts {
        for sandbox in look(host)?.sandboxes {
            let gone = text(&sandbox, "GoneSince");
            if !gone.is_empty() {
                return Err(format!("host {}: {sandbox} is gone", host.number));
            }
            for endpoint in list(&sandbox["Endpoints"]) {
                let [address, gateway] = ["IPAddress", "Gateway"].map(|key| text(&endpoint, key).parse());
                let (Ok(address), Ok(gateway)) = (address, gateway) else {
                    return Err(format!("host {}: {endpoint} has no address", host.number));
                };
                let (sandbox_name, namespace) = (text(&sandbox, "Name"), text(&sandbox, "NetNS").into());
                let found =
                    Endpoint { host: host.number, sandbox: sandbox_name, namespace, address, gateway };
                all.entry(text(&endpoint, "NetworkID")).or_default().push(found);
            }
        }
    }
    Ok(all)
}

/// Asserts that no two endpoints of a network have one address.
fn no_address_twice(endpoints: &BTreeMap<String, Vec<Endpoint>>) {
    for (network, members) in endpoints {
        let mut holders: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
        for member in members {
            let other = holders.insert(member.address, member);
            assert!(other.is_none(), "{network}: {member:?} and {other:?} have one address");
        }
    }
}

/// Each member and the next, and the last and the first.
fn pairs(members: &[Endpoint]) -> impl Iterator<Item = (&Endpoint, &Endpoint)> {
    let others = members.iter().cycle().skip(1);
    members.iter().zip(others).filter(|(one, other)| one.address != other.address)
}

/// Whether one endpoint gets an address of another one's sandbox for its name, and nothing else. Where both
/// are on several networks, the address may be of any of these.
fn named(one: &Endpoint, other: &Endpoint, addresses: &BTreeSet<IpAddr>) -> Result<(), String> {
    let answer = ask(&one.namespace, one.gateway, &other.sandbox, TYPE::A);
    let found: BTreeSet<IpAddr> = answer.records.iter().filter_map(|record| record.parse().ok()).collect();
    let is_right = !found.is_empty() && found.is_subset(addresses);
    if is_right { Ok(()) } else { Err(format!("{answer:?}, not of {addresses:?}")) }
}
