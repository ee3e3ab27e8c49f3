//! Two hundred kills: whatever was answered is there, and nothing else.
//!
//! # Theory of operation
//! Clients make, connect, disconnect and remove, each with networks and sandboxes of its own, and each keeps
//! a model of what it was answered. At a random moment a process is killed: control, or the datapath, or
//! both. What a client has asked and was not answered may have happened or not; all the rest must be as the
//! model says. At checkpoints the kernel is looked at, too: interfaces, addresses and namespaces are those
//! of the state, no more and no fewer, and containers reach each other.
//!
//! Subnets have room for little more than there is, so an address that leaks is missed before long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vswitch_tests::api::request;
use vswitch_tests::model::{Change, Model};
use vswitch_tests::namespace::{Namespace, inside, must};
use vswitch_tests::talk;
use vswitch_tests::wait;
use vswitch_tests::world::{World, send_signal};

use super::world;

const KILLS: usize = 200;
const KILLS_PER_CHECKPOINT: usize = 25;
const CLIENTS: usize = 2;
const NETWORKS: usize = 3;
const SANDBOXES: usize = 4;
const ATTACHED: usize = 2;
const PORT_TYPES: [&str; 3] = ["tap", "tap-moved", "veth"];
/// The latest a kill comes after the clients have begun, in microseconds.
const KILL_MICROS_MAX: u64 = 60_000;

/// Random numbers that are the same in every run (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word >> 33) % (limit as u64)).expect("a small number")
    }

    fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// A client that changes things, and knows what it was answered.
pub(super) struct Client {
    random: Random,
    socket: PathBuf,
    /// The subnet of each of its networks.
    networks: BTreeMap<String, String>,
    made: Vec<String>,
    attached: BTreeMap<String, Namespace>,
    model: Model,
    /// The change that was asked for last and not answered.
    unanswered: Option<Change>,
}

impl Client {
    pub(super) fn new(number: usize, world: &World) -> Self {
        let subnet = |network: usize| format!("10.{}.{network}.0/28", 100 + number);
        Self {
            random: Random(number as u64),
            socket: world.socket(),
            networks: (0..NETWORKS).map(|index| (format!("c{number}n{index}"), subnet(index))).collect(),
            made: (0..SANDBOXES).map(|index| world.global_name(&format!("c{number}s{index}"))).collect(),
            attached: (0..ATTACHED).map(|index| (format!("c{number}a{index}"), Namespace::new())).collect(),
            model: Model::default(),
            unanswered: None,
        }
    }

    /// Changes things until it is told to stop or is not answered.
    pub(super) fn churn(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let change = self.next_change();
            match self.ask(&change) {
                Ok((status, _)) if status < 300 => self.model.apply(&change),
                Ok((status, answer)) => panic!("{change:?}: {status}: {answer}\n{:?}", self.model),
                Err(_) => {
                    self.unanswered = Some(change);
                    return;
                }
            }
        }
    }

    /// A change that must succeed.
    fn next_change(&mut self) -> Change {
        loop {
            if let Some(change) = self.try_change() {
                return change;
            }
        }
    }

    fn try_change(&mut self) -> Option<Change> {
        let networks: Vec<String> = self.model.networks.iter().cloned().collect();
        if networks.is_empty() || self.random.below(8) == 0 {
            let names: Vec<String> = self.networks.keys().cloned().collect();
            let name = self.random.choose(&names).clone();
            let used = self.model.sandboxes.values().any(|on| on.contains(&name));
            let there = self.model.networks.contains(&name);
            return match (there, used) {
                (false, _) => Some(Change::MakeNetwork(name)),
                (true, false) => Some(Change::RemoveNetwork(name)),
                (true, true) => None,
            };
        }
        let network = self.random.choose(&networks).clone();
        let names: Vec<String> = self.made.iter().chain(self.attached.keys()).cloned().collect();
        let name = self.random.choose(&names).clone();
        let is_attached = self.attached.contains_key(&name);
        let Some(on) = self.model.sandboxes.get(&name) else {
            let change = if is_attached {
                Change::Attach { name, network }
            } else {
                Change::MakeSandbox { name, network }
            };
            return Some(change);
        };
        match (self.random.below(3), on.contains(&network)) {
            (0, _) if is_attached => Some(Change::Detach(name)),
            (0, _) => Some(Change::Remove(name)),
            (_, true) => Some(Change::Disconnect { name, network }),
            (_, false) => Some(Change::Connect { name, network }),
        }
    }

    fn ask(&mut self, change: &Change) -> io::Result<(u16, Value)> {
        let options = json!({ "DriverOpts": { "vswitch.port_type": self.random.choose(&PORT_TYPES) } });
        let (method, path, body) = match change {
            Change::MakeNetwork(name) => {
                let config = json!([{ "Subnet": self.networks[name] }]);
                let body = json!({ "Name": name, "IPAM": { "Config": config } });
                ("POST", "/networks/create".to_owned(), body)
            }
            Change::RemoveNetwork(name) => ("DELETE", format!("/networks/{name}"), Value::Null),
            Change::MakeSandbox { name, network } => {
                let networks = json!([{ "Network": network, "EndpointConfig": options }]);
                ("POST", "/sandboxes/create".to_owned(), json!({ "Name": name, "Networks": networks }))
            }
            Change::Attach { name, network } => {
                let path = self.attached[name].path();
                let body =
                    json!({ "Name": name, "NetNS": path, "Network": network, "EndpointConfig": options });
                ("POST", "/sandboxes/attach".to_owned(), body)
            }
            Change::Remove(name) => ("DELETE", format!("/sandboxes/{name}"), Value::Null),
            Change::Detach(name) => ("POST", format!("/sandboxes/{name}/detach"), Value::Null),
            Change::Connect { name, network } => {
                let body = json!({ "Container": name, "EndpointConfig": options });
                ("POST", format!("/networks/{network}/connect"), body)
            }
            Change::Disconnect { name, network } => {
                ("POST", format!("/networks/{network}/disconnect"), json!({ "Container": name }))
            }
        };
        request(&self.socket, method, &path, &body)
    }

    /// Asserts that there is what the client was answered, and learns whether what it was not answered was
    /// done.
    pub(super) fn check(&mut self, networks: &Value, sandboxes: &Value) {
        let mut found = Model::default();
        let name_of = |value: &Value| value["Name"].as_str().expect("a name").to_owned();
        let names = list(networks).iter().map(name_of);
        found.networks = names.filter(|name| self.networks.contains_key(name)).collect();
        for sandbox in list(sandboxes) {
            let name = name_of(sandbox);
            if self.made.contains(&name) || self.attached.contains_key(&name) {
                let on = list(&sandbox["Endpoints"])
                    .iter()
                    .map(|endpoint| endpoint["Network"].as_str().expect("a network").to_owned());
                found.sandboxes.insert(name, on.collect());
            }
        }
        let mut changed = self.model.clone();
        let unanswered = self.unanswered.take();
        unanswered.iter().for_each(|change| changed.apply(change));
        let expected = found == self.model || found == changed;
        assert!(expected, "unanswered: {unanswered:?}\nfound: {found:?}\nmodel: {:?}", self.model);
        self.model = found;
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Gets the state of the switch when it is idle: the answer to a request that must succeed.
pub(super) fn get(world: &World, path: &str) -> Value {
    let (status, answer) = request(&world.socket(), "GET", path, &Value::Null).expect("an answer");
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

#[test]
fn two_hundred_kills_lose_nothing_and_leave_nothing() {
    let mut world = world();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(number, &world)).collect();
    let mut random = Random(2026);
    for kill in 1..=KILLS {
        let (control, datapath) = match random.below(20) {
            0..=8 => (true, false),
            9..=17 => (false, true),
            _ => (true, true),
        };
        let after =
            Duration::from_micros(random.below(usize::try_from(KILL_MICROS_MAX).expect("small")) as u64);
        churn_and_kill(&mut world, &mut clients, after, control, datapath);
        let mut networks = get(&world, "/networks");
        // Docker's modes `host` and `none` are listed, too.
        networks.as_array_mut().expect("a list").retain(|network| network["Driver"] == "bridge");
        let sandboxes = get(&world, "/sandboxes");
        clients.iter_mut().for_each(|client| client.check(&networks, &sandboxes));
        if kill % KILLS_PER_CHECKPOINT == 0 {
            check_kernel(&world, &clients, &networks, &sandboxes);
        }
    }
}

/// Lets the clients work, kills what is to be killed, and starts it again.
fn churn_and_kill(world: &mut World, clients: &mut [Client], after: Duration, control: bool, datapath: bool) {
    let pid = world.datapath_pid();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.churn(&stop));
        }
        // A random moment to come, not a time to wait for something.
        let _moment = crossbeam::channel::after(after).recv();
        if datapath {
            send_signal(pid, Signal::SIGKILL);
        }
        if control {
            world.stop(Signal::SIGKILL);
            world.start_again();
        } else {
            wait::until("another datapath", || (world.datapath_pid() != pid).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Asserts that the kernel has what the state says, and nothing else of ours.
fn check_kernel(world: &World, clients: &[Client], networks: &Value, sandboxes: &Value) {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for sandbox in list(sandboxes) {
        let name = sandbox["Name"].as_str().expect("a name");
        if sandbox["Origin"] == "created" {
            named.insert(name.to_owned());
        }
        let path = PathBuf::from(sandbox["NetNS"].as_str().expect("a path"));
        let expected = list(&sandbox["Endpoints"]).iter().map(|endpoint| {
            ["Interface", "MacAddress", "IPAddress"].map(|key| endpoint[key].as_str().expect(key).to_owned())
        });
        let expected: BTreeSet<[String; 3]> = expected.collect();
        wait::until_equal(&format!("interfaces of {name}"), &expected, || interfaces(&path));
    }
    let prefix = world.global_name("");
    let in_kernel = || -> BTreeSet<String> {
        let entries = fs::read_dir("/run/netns").expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    };
    assert_eq!(in_kernel(), named, "namespaces");
    for namespace in clients.iter().flat_map(|client| &client.attached) {
        let (name, namespace) = namespace;
        if !list(sandboxes).iter().any(|sandbox| sandbox["Name"] == name.as_str()) {
            wait::until_equal(name, &BTreeSet::new(), || interfaces(&namespace.path()));
        }
    }
    let count = |text: String| text.lines().count();
    wait::until_equal(
        "one interface of the host for each network, and lo",
        &(list(networks).len() + 1),
        || count(world.host().ip(&["-o", "link"])),
    );
    check_ports(world, networks, sandboxes);
    check_pings(sandboxes);
}

/// The interfaces in a namespace but the loopback: name, MAC address, IPv4 address.
fn interfaces(namespace: &Path) -> BTreeSet<[String; 3]> {
    let text = inside(namespace, || must(std::process::Command::new("ip").args(["-j", "address"])));
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let all = list(&all).iter().filter(|link| link["ifname"] != "lo");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|link| {
        let v4 = list(&link["addr_info"]).iter().find(|address| address["family"] == "inet");
        [text(&link["ifname"]), text(&link["address"]), text(&v4.unwrap_or(&Value::Null)["local"])]
    })
    .collect()
}

/// Asserts that the datapath has the ports of the state: their addresses are known in the right network.
fn check_ports(world: &World, networks: &Value, sandboxes: &Value) {
    let mut expected = BTreeSet::new();
    for endpoint in list(sandboxes).iter().flat_map(|sandbox| list(&sandbox["Endpoints"])) {
        expected.insert((endpoint["Network"].clone().to_string(), endpoint["MacAddress"].to_string()));
    }
    let known = get(world, "/fdb");
    let known = list(&known).iter().filter(|entry| entry["Static"] == true && entry["Sandbox"] != "(host)");
    let known: BTreeSet<(String, String)> =
        known.map(|entry| (entry["Network"].to_string(), entry["MacAddress"].to_string())).collect();
    assert_eq!(known, expected, "ports of the datapath");
    let ports = get(world, "/stats");
    assert_eq!(list(&ports["Ports"]).len(), expected.len() + list(networks).len(), "ports of control");
}

/// Asserts that the containers of each network reach each other.
fn check_pings(sandboxes: &Value) {
    let mut members: BTreeMap<&str, Vec<(PathBuf, &str)>> = BTreeMap::new();
    for sandbox in list(sandboxes) {
        let path = PathBuf::from(sandbox["NetNS"].as_str().expect("a path"));
        for endpoint in list(&sandbox["Endpoints"]) {
            let text = |key: &str| endpoint[key].as_str().expect("a text");
            members.entry(text("Network")).or_default().push((path.clone(), text("IPAddress")));
        }
    }
    for (network, members) in members {
        for pair in members.windows(2) {
            let address = pair[1].1.parse().expect("an address");
            assert!(talk::answers(&pair[0].0, address), "{network}: {address} is silent");
        }
    }
}
