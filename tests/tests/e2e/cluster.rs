//! Clusters by gossip: several switches, each in a host namespace of its own, on one underlay.
//!
//! ```text
//!  host 1  wan0 192.0.2.1 ──┐
//!  host 2  wan0 192.0.2.2 ──┼── br0  underlay
//!  host 3  wan0 192.0.2.3 ──┘
//! ```

use std::net::{IpAddr, UdpSocket};
use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, TryRecvError};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use simple_dns::TYPE;
use vswitch_sys::clock;
use vswitch_tests::names::ask;
use vswitch_tests::namespace::{Namespace, inside};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{underlay, wait};

use super::VSWITCH;

/// The underlay that joins the hosts of a test.
pub(crate) struct Underlay(underlay::Underlay);

impl Deref for Underlay {
    type Target = underlay::Underlay;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Underlay {
    pub(crate) fn new() -> Self {
        Self(underlay::Underlay::new(VSWITCH))
    }

    /// Starts a switch on a host of its own.
    pub(crate) fn host(&self, number: usize) -> World {
        let arguments = self.gossips(number);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        World::start_with(VSWITCH, &arguments, |host| self.connect(host, number)).0
    }

    /// Starts a cluster of so many hosts that see each other.
    pub(crate) fn cluster<const HOSTS: usize>(&self) -> [World; HOSTS] {
        let worlds = std::array::from_fn(|index| self.host(index + 1));
        worlds.iter().for_each(|world| sees(world, HOSTS - 1));
        worlds
    }

    /// The error that a host gets which may not be in the cluster.
    fn refused(&self, number: usize, arguments: &[&str]) -> String {
        let host = Namespace::new();
        self.connect(&host, number);
        let advertise = format!("192.0.2.{number}");
        let folder = self.folder().join("refused");
        let mut command = Command::new(VSWITCH);
        command.args(["run", "--uplink", "none", "--advertise", &advertise, "--join", "192.0.2.1"]);
        command.arg("--socket").arg(folder.join("control.sock")).arg("--state-dir").arg(folder.join("state"));
        let output = host.output(command.args(arguments).stdin(Stdio::null()));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Waits until a host sees so many others.
pub(crate) fn sees(world: &World, others: usize) {
    wait::until_equal("the others are up", &others, || {
        let cluster = world.json(&["cluster", "ls"]);
        let hosts = cluster["Hosts"].as_array().cloned().unwrap_or_default();
        hosts.iter().filter(|host| host["State"] == "up").count()
    });
}

/// Makes a network on a host and waits until the others have it, too.
pub(crate) fn span(worlds: &[World], options: &[&str]) {
    worlds[0].network("wide", &[&["-d", "overlay", "--subnet", "10.9.0.0/24"], options].concat());
    for world in worlds {
        wait::until("the network is there", || {
            world.vswitch(&["network", "ls"]).contains("wide").then_some(())
        });
    }
}

/// Removes the network once its host has heard that nobody needs it.
pub(crate) fn removes(world: &World) {
    wait::until("nobody needs it", || {
        let removed = world.command(&["network", "rm", "wide"]).output();
        removed.expect("vswitch starts").status.success().then_some(())
    });
}

pub(crate) fn container(world: &World, name: &str, options: &[&str]) -> Container {
    world.attach(name, &[&["--network", "wide"], options].concat())
}

/// The answer that a container gets for a name: an address, or nothing.
pub(crate) fn look_up(container: &Container, name: &str) -> Option<IpAddr> {
    let gateway = IpAddr::from([10, 9, 0, 1]);
    ask(&container.path, gateway, name, TYPE::A).records.first()?.parse().ok()
}

pub(crate) fn answers(container: &Container, address: IpAddr) {
    wait::until("a ping is answered", || {
        vswitch_tests::talk::answers(&container.path, address).then_some(())
    });
}

#[test]
fn containers_of_all_hosts_are_on_one_network_and_know_each_other_by_name() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<3>();
    span(&worlds, &["--subnet", "fd09::/64"]);
    let shown = worlds[2].json(&["network", "ls", "-f", "name=wide"]);
    assert_eq!((&shown[0]["Driver"], &shown[0]["Scope"]), (&"overlay".into(), &"swarm".into()));
    let a = container(&worlds[0], "a", &[]);
    let b = container(&worlds[1], "b", &["--alias", "db"]);
    let c = container(&worlds[2], "c", &["--ip", "10.9.0.77"]);
    assert_eq!(c.ipv4(), IpAddr::from([10, 9, 0, 77]));
    for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
        answers(from, to.ipv4());
        answers(from, to.ipv6());
        from.transfers(to, to.ipv4(), 1 << 20);
    }
    for (name, of) in [("b", &b), ("db", &b), ("c.wide", &c)] {
        wait::until_equal("a name is answered", &Some(of.ipv4()), || look_up(&a, name));
    }
    // It is there as long as anybody, anywhere, needs it.
    let message = worlds[0].refused(&["network", "rm", "wide"]).message;
    assert!(message.contains("active endpoints"), "{message}");
    for (world, name) in worlds.iter().zip(["a", "b", "c"]) {
        world.vswitch(&["detach", name]);
    }
    removes(&worlds[1]);
    for world in &worlds {
        wait::until("it is gone", || (!world.vswitch(&["network", "ls"]).contains("wide")).then_some(()));
    }
}

#[test]
fn a_duplicate_address_is_refused_and_not_fought_over() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &["--ip", "10.9.0.50"]);
    let b = container(&worlds[1], "b", &[]);
    let spare = Namespace::new();
    let attach = ["attach", "again", "--netns", spare.name(), "--network", "wide", "--ip", "10.9.0.50"];
    let message = worlds[1].refused(&attach).message;
    assert!(message.contains("address 10.9.0.50 is taken by a on host host1"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    answers(&a, b.ipv4());
    // Nor while the owner cannot be asked.
    underlay.set(1, "down");
    let attach = ["attach", "again", "--netns", spare.name(), "--network", "wide", "--ip", "10.9.0.51"];
    let message = worlds[1].refused(&attach).message;
    assert!(message.contains("10.9.0.51"), "{message}");
    assert!(worlds[0].command(&["ps"]).output().expect("vswitch starts").status.success());
}

/// Datagrams without end from a container to an address, as fast as they are taken, until this is dropped.
struct Load(Option<(mpsc::Sender<()>, JoinHandle<u64>)>);

impl Load {
    fn start(from: &Container, to: IpAddr) -> Self {
        let socket = inside(&from.path, || UdpSocket::bind(("0.0.0.0", 0))).expect("bind");
        let (stop, stopped) = mpsc::channel();
        let sending = thread::spawn(move || {
            let mut sent = 0;
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                sent += u64::from(socket.send_to(&[0; 1000], (to, 9)).is_ok());
            }
            sent
        });
        Self(Some((stop, sending)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let Some((stop, sending)) = self.0.take() else { return };
        drop(stop);
        let sent = sending.join();
        assert!(thread::panicking() || sent.is_ok_and(|sent| sent > 0), "nothing was sent");
    }
}

#[test]
fn a_container_that_moved_is_followed_within_a_second() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<3>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let _stays = container(&worlds[2], "stays", &[]);
    let mac = "02:42:0a:09:00:64";
    let options = ["--ip", "10.9.0.100", "--mac-address", mac, "--alias", "mover"];
    let first = container(&worlds[1], "mover-1", &options);
    let address = first.ipv4();
    answers(&a, address);
    let load = Load::start(&a, address);
    worlds[1].vswitch(&["detach", "mover-1"]);
    let second = wait::until("the address is free again", || {
        let namespace = Namespace::new();
        let arguments =
            [&["attach", "mover-2", "--netns", namespace.name(), "--network", "wide"], &options[..]].concat();
        let output = worlds[2].command(&arguments).output().expect("vswitch starts");
        output.status.success().then_some(namespace)
    });
    let from = clock::now();
    answers(&a, address);
    eprintln!("followed within {:?}", clock::now().since(from));
    drop(load);
    wait::until_equal("its name", &Some(address), || look_up(&a, "mover"));
    drop(second);
}

/// Kills the control of the last of three hosts, where the container `c` is, and starts it again; `a` is on
/// the first.
pub(crate) fn kill_and_start_again(worlds: &mut [World; 3], a: &Container, c: &Container) {
    answers(a, c.ipv4());
    worlds[2].stop(Signal::SIGKILL);
    sees(&worlds[0], 1);
    // Its datapath goes on, and so do its containers.
    answers(a, c.ipv4());
    worlds[2].start_again();
    worlds.iter().for_each(|world| sees(world, 2));
    wait::until_equal("its names are answered", &Some(c.ipv4()), || look_up(a, "c"));
}

#[test]
fn a_host_is_killed_and_back() {
    let underlay = Underlay::new();
    let mut worlds = underlay.cluster::<3>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let b = container(&worlds[1], "b", &[]);
    let c = container(&worlds[2], "c", &[]);
    kill_and_start_again(&mut worlds, &a, &c);
    answers(&b, c.ipv4());
    // Addresses it owned it still owns: nobody else is given them.
    let d = container(&worlds[2], "d", &[]);
    let e = container(&worlds[0], "e", &[]);
    let addresses = [&a, &b, &c, &d, &e].map(Container::ipv4);
    let different: std::collections::BTreeSet<IpAddr> = addresses.into_iter().collect();
    assert_eq!(different.len(), addresses.len(), "{addresses:?}");
    answers(&e, d.ipv4());
}

#[test]
fn a_partition_heals() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<3>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let _c = container(&worlds[2], "c", &[]);
    underlay.set(3, "down");
    sees(&worlds[2], 0);
    sees(&worlds[0], 1);
    // Both sides go on, with addresses of their own.
    let here = container(&worlds[0], "here", &[]);
    let there = container(&worlds[2], "there", &[]);
    assert_ne!(here.ipv4(), there.ipv4());
    answers(&a, here.ipv4());
    worlds[0].network("made-meanwhile", &["-d", "overlay"]);
    underlay.set(3, "up");
    worlds.iter().for_each(|world| sees(world, 2));
    answers(&here, there.ipv4());
    wait::until_equal("a name", &Some(there.ipv4()), || look_up(&here, "there"));
    wait::until("the new network", || {
        worlds[2].vswitch(&["network", "ls"]).contains("made-meanwhile").then_some(())
    });
}

#[test]
fn a_host_that_does_not_come_back_is_given_up() {
    let underlay = Underlay::new();
    let mut worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    let _a = container(&worlds[0], "a", &[]);
    let _b = container(&worlds[1], "b", &[]);
    let message = worlds[1].refused(&["cluster", "forget", "host1"]).message;
    assert!(message.contains("is there"), "{message}");
    worlds[0].stop(Signal::SIGTERM);
    sees(&worlds[1], 0);
    let spare = Namespace::new();
    let attach = ["attach", "c", "--netns", spare.name(), "--network", "wide", "--ip", "10.9.0.3"];
    let message = worlds[1].refused(&attach).message;
    assert!(message.contains("10.9.0.3"), "{message}");
    worlds[1].vswitch(&["cluster", "forget", "host1"]);
    worlds[1].vswitch(&attach);
    assert!(!worlds[1].vswitch(&["cluster", "ls"]).contains("host1"));
}

#[test]
fn strangers_are_refused_with_one_clear_line() {
    let underlay = Underlay::new();
    let world = underlay.host(1);
    let (key, other) =
        (underlay.folder().join("key").display().to_string(), underlay.write_key(VSWITCH, "other"));
    let message = underlay.refused(2, &["--cluster-key-file", &other]);
    assert!(message.contains("sealed with another key"), "{message}");
    let message = underlay.refused(3, &["--cluster-key-file", &key, "--cluster-name", "elsewhere"]);
    assert!(message.contains("it is of cluster \"vswitch\""), "{message}");
    let message = underlay.refused(4, &["--cluster-key-file", "/nonexistent"]);
    assert!(message.contains("/nonexistent"), "{message}");
    let message = world.refused(&["network", "create", "x", "-d", "overlay", "-o", "encrypted"]).message;
    assert!(message.contains("encrypted"), "{message}");
}

#[test]
fn three_hosts_with_fifty_containers_each_know_all_of_them() {
    const EACH: usize = 50;
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<3>();
    span(&worlds, &[]);
    let sandboxes = |world: &World| -> Vec<Container> {
        (0..EACH).map(|number| world.sandbox(&number.to_string(), &["--network", "wide"])).collect()
    };
    let containers: Vec<Vec<Container>> = std::thread::scope(|scope| {
        let started: Vec<_> = worlds.iter().map(|world| scope.spawn(|| sandboxes(world))).collect();
        started.into_iter().map(|thread| thread.join().expect("made")).collect()
    });
    let mut addresses = std::collections::BTreeSet::new();
    for world in &worlds {
        let endpoints = world.json(&["ps"]).as_array().cloned().unwrap_or_default();
        addresses.extend(endpoints.iter().map(|endpoint| endpoint["IPAddress"].to_string()));
        wait::until_equal("all are known", &vec![EACH; 3], || {
            let cluster = world.json(&["cluster", "ls"]);
            let hosts = cluster["Hosts"].as_array().cloned().unwrap_or_default();
            hosts
                .iter()
                .filter_map(|host| host["Endpoints"].as_u64())
                .filter_map(|count| count.try_into().ok())
                .collect()
        });
    }
    assert_eq!(addresses.len(), 3 * EACH, "no address is anybody else's");
    let (near, far) = (&containers[0][0], &containers[2][EACH - 1]);
    wait::until_equal("a name from the other end", &Some(far.ipv4()), || look_up(near, &far.name));
    answers(near, far.ipv4());
}
