//! A client of one host: it makes, connects, disconnects and removes, and knows what it was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::chance::Chance;
use super::tally::Tally;
use crate::api::request;
use crate::model::{Change, Model};
use crate::namespace::Namespace;
use crate::world::World;

/// Sandboxes that the switch makes, and namespaces that are attached, of each client.
const MADE: usize = 3;
const ATTACHED: usize = 2;
/// One change of so many is asked for by a client that hangs up at once.
const HANGS_UP: usize = 24;

/// Networks that span hosts, as far as their makers know.
pub type Board = Mutex<BTreeSet<String>>;

/// See the [module](self).
#[derive(Debug)]
pub struct Client {
    number: usize,
    chance: Chance,
    socket: PathBuf,
    made: Vec<String>,
    attached: BTreeMap<String, Namespace>,
    /// Networks that this client made so far; each gets a name of its own.
    generation: usize,
    /// Networks that this client was told are gone.
    gone: BTreeSet<String>,
    model: Model,
    /// The change that was asked for last and not answered.
    unanswered: Option<Change>,
}

impl Client {
    /// A client of a host.
    pub fn new(number: usize, world: &World, seed: u64) -> Self {
        Self {
            number,
            chance: Chance::new(seed),
            socket: world.socket(),
            made: (0..MADE).map(|index| world.global_name(&format!("h{number}m{index}"))).collect(),
            attached: (0..ATTACHED).map(|index| (format!("h{number}a{index}"), Namespace::new())).collect(),
            generation: 0,
            gone: BTreeSet::new(),
            model: Model::default(),
            unanswered: None,
        }
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Changes things until it is told to stop or is not answered.
    pub fn churn(&mut self, board: &Board, stop: &AtomicBool, tally: &Tally) {
        while !stop.load(Ordering::Relaxed) && self.unanswered.is_none() {
            let Some(change) = self.next_change(board) else { continue };
            self.try_change(change, board, tally);
        }
    }

    /// Removes all it has; `true` once there is nothing left.
    pub fn clear(&mut self, board: &Board, tally: &Tally) -> bool {
        for name in self.model.sandboxes.keys().cloned().collect::<Vec<_>>() {
            let change =
                if self.attached.contains_key(&name) { Change::Detach(name) } else { Change::Remove(name) };
            self.try_change(change, board, tally);
        }
        for name in self.model.networks.clone() {
            self.try_change(Change::RemoveNetwork(name), board, tally);
        }
        self.unanswered.is_none() && self.model == Model::default()
    }

    fn try_change(&mut self, change: Change, board: &Board, tally: &Tally) {
        if self.chance.below(HANGS_UP) == 0 {
            tally.count("changes whose client hung up");
            self.hang_up(&change);
            self.unanswered = Some(change);
            return;
        }
        match self.ask(&change) {
            Ok((status, _)) if status < 300 => {
                tally.count("changes answered as done");
                self.note(&change, board);
            }
            Ok((_, answer)) => {
                tally.count("changes refused");
                tally.count(&format!("refused: {}", answer["code"].as_str().unwrap_or("without a code")));
            }
            Err(_) => {
                tally.count("changes not answered");
                self.unanswered = Some(change);
            }
        }
    }

    fn note(&mut self, change: &Change, board: &Board) {
        self.model.apply(change);
        match change {
            Change::MakeNetwork(name) if is_shared(name) => drop(lock(board).insert(name.clone())),
            Change::RemoveNetwork(name) => {
                lock(board).remove(name);
                self.gone.insert(name.clone());
            }
            Change::MakeNetwork(_)
            | Change::MakeSandbox { .. }
            | Change::Attach { .. }
            | Change::Remove(_)
            | Change::Detach(_)
            | Change::Connect { .. }
            | Change::Disconnect { .. } => {}
        }
    }

    fn next_change(&mut self, board: &Board) -> Option<Change> {
        let mut networks: Vec<String> = lock(board).iter().cloned().collect();
        networks.extend(self.model.networks.iter().filter(|name| !is_shared(name)).cloned());
        if networks.len() < 3 || self.chance.below(8) == 0 {
            return self.change_of_network();
        }
        let network = self.chance.choose(&networks).clone();
        let names: Vec<String> = self.made.iter().chain(self.attached.keys()).cloned().collect();
        let name = self.chance.choose(&names).clone();
        let is_attached = self.attached.contains_key(&name);
        let Some(on) = self.model.sandboxes.get(&name) else {
            return Some(if is_attached {
                Change::Attach { name, network }
            } else {
                Change::MakeSandbox { name, network }
            });
        };
        Some(match (self.chance.below(3), on.contains(&network)) {
            (0, _) if is_attached => Change::Detach(name),
            (0, _) => Change::Remove(name),
            (_, true) => Change::Disconnect { name, network },
            (_, false) => Change::Connect { name, network },
        })
    }

    fn change_of_network(&mut self) -> Option<Change> {
        let kind = *self.chance.choose(&["w", "l"]);
        let own = self.model.networks.iter().find(|name| name.starts_with(kind)).cloned();
        let Some(name) = own else {
            self.generation += 1;
            return Some(Change::MakeNetwork(format!("{kind}{}g{}", self.number, self.generation)));
        };
        let is_used = self.model.sandboxes.values().any(|on| on.contains(&name));
        (!is_used).then_some(Change::RemoveNetwork(name))
    }

    fn ask(&mut self, change: &Change) -> std::io::Result<(u16, Value)> {
        let (method, path, body) = self.written(change);
        request(&self.socket, method, &path, &body)
    }

    /// Asks, and does not wait for the answer.
    fn hang_up(&mut self, change: &Change) {
        let (method, path, body) = self.written(change);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: vswitch\r\nContent-Length: {length}\r\n\r\n{body}");
        if let Ok(mut connection) = UnixStream::connect(&self.socket) {
            // The switch may be gone.
            let _ = connection.write_all(text.as_bytes());
        }
    }

    fn written(&mut self, change: &Change) -> (&'static str, String, Value) {
        let kind = self.chance.choose(&["tap", "tap-moved", "veth"]);
        let options = json!({ "DriverOpts": { "vswitch.port_type": kind } });
        match change {
            Change::MakeNetwork(name) => {
                let driver = if is_shared(name) { "overlay" } else { "bridge" };
                ("POST", "/networks/create".to_owned(), json!({ "Name": name, "Driver": driver }))
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
        }
    }

    /// Compares with what there is, and learns whether a change that was not answered was made.
    ///
    /// # Errors
    /// The difference, when an answered change is lost, or there is one that was refused.
    pub fn compare(&mut self, networks: &[String], sandboxes: &[Value], board: &Board) -> Result<(), String> {
        let found = self.found(networks, sandboxes);
        let mut changed = self.model.clone();
        self.unanswered.iter().for_each(|change| changed.apply(change));
        // A network that another host needed, which could not be asked when it was removed, is there again.
        let differs = |model: &Model| {
            let mut networks = model.networks.clone();
            networks.extend(found.networks.intersection(&self.gone).cloned());
            networks != found.networks || model.sandboxes != found.sandboxes
        };
        if differs(&self.model) && differs(&changed) {
            return Err(format!(
                "host {}: unanswered {:?}\nfound {found:?}\nmodel {:?}",
                self.number, self.unanswered, self.model
            ));
        }
        self.unanswered = None;
        let mut board = lock(board);
        board.retain(|name| !name.starts_with(&format!("w{}g", self.number)));
        board.extend(found.networks.iter().filter(|name| is_shared(name)).cloned());
        self.model = found;
        Ok(())
    }

    fn found(&self, networks: &[String], sandboxes: &[Value]) -> Model {
        let own = |name: &&String| {
            ["w", "l"].iter().any(|kind| name.starts_with(&format!("{kind}{}g", self.number)))
        };
        let mut found =
            Model { networks: networks.iter().filter(own).cloned().collect(), ..Model::default() };
        for sandbox in sandboxes {
            let name = sandbox["Name"].as_str().unwrap_or_default().to_owned();
            let endpoints = sandbox["Endpoints"].as_array().cloned().unwrap_or_default();
            let on = endpoints.iter().map(|endpoint| endpoint["Network"].as_str().unwrap_or_default());
            found.sandboxes.insert(name, on.map(str::to_owned).collect());
        }
        found
    }
}

/// Whether a network of this name spans hosts.
fn is_shared(name: &str) -> bool {
    name.starts_with('w')
}

fn lock(board: &Board) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
    board.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
