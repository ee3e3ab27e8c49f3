//! Restarts: what a control that ends, by whatever cause, leaves to the one that comes after it.

use std::fs;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_control::state::store::Store;
use vswitch_sys::netns::{NetNs, named_path};
use vswitch_tests::namespace::inside;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World, send_signal};

use super::world;

const PORT_TYPES: [&str; 3] = ["tap", "tap-moved", "veth"];

/// A network with a container for each port type, one whose namespace the switch made, and one on two
/// networks.
fn populate(world: &World) -> Vec<Container> {
    world.network("net1", &["--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "--label", "a=b"]);
    let mut containers = Vec::new();
    for port_type in PORT_TYPES {
        let options = ["--network", "net1", "--port-type", port_type, "--alias", "other"];
        containers.push(world.attach(&format!("attached-{port_type}"), &options));
    }
    containers.push(world.sandbox("made", &["--network", "net1"]));
    containers.push(world.sandbox("default", &[]));
    world.vswitch(&["network", "connect", "net1", &containers[4].name]);
    containers
}

/// All that clients can see of the configuration.
fn seen(world: &World) -> [Value; 3] {
    ["/networks", "/sandboxes", "/endpoints"].map(|path| world.curl("GET", path, None).1)
}

fn all_reach_the_first(containers: &[Container]) {
    for container in &containers[1..] {
        container.pings(containers[0].ipv4());
        container.pings(containers[0].ipv6());
    }
}

#[test]
fn a_killed_control_costs_no_connection() {
    let mut world = world();
    let containers = populate(&world);
    let (a, b) = (&containers[0], &containers[2]);
    let before = seen(&world);
    let received = |world: &World| world.counters(a)["ReceivedBytes"].as_u64().expect("a counter");
    let (start, datapath) = (received(&world), world.datapath_pid());
    thread::scope(|scope| {
        let transfer = scope.spawn(|| a.transfers(b, b.ipv4(), 512 << 20));
        wait::until("traffic", || (received(&world) > start + (8 << 20)).then_some(()));
        world.stop(Signal::SIGKILL);
        world.start_again();
        assert_eq!(seen(&world), before);
        assert!(!transfer.is_finished(), "the transfer was over before control was back");
        transfer.join().expect("the transfer survives");
    });
    assert_eq!((world.datapath_pid(), world.restarts()), (datapath, 0), "the datapath was replaced");
    assert!(received(&world) > start + (512 << 20), "the counters began anew");
    all_reach_the_first(&containers);

    send_signal(datapath, Signal::SIGKILL);
    wait::until_equal("the next control watches the datapath, too", &1, || world.restarts());
    all_reach_the_first(&containers);
}

#[test]
fn a_stopped_switch_is_restored() {
    let mut world = world();
    let containers = populate(&world);
    let before = seen(&world);
    assert!(world.stop(Signal::SIGTERM).success());
    for container in &containers[..3] {
        assert_eq!(
            container.ip(&["-o", "link"]).lines().count(),
            1,
            "{} keeps its interface",
            container.name
        );
    }
    assert!(!containers[3].path.exists());
    world.start_again();
    assert_eq!(seen(&world), before);
    all_reach_the_first(&containers);
}

#[test]
fn a_switch_of_which_both_processes_were_killed_is_restored() {
    let mut world = world();
    world.network("quiet", &["-o", "com.docker.network.bridge.enable_icc=false"]);
    let containers = populate(&world);
    let [one, other] = ["one", "other"].map(|name| world.sandbox(name, &["--network", "quiet"]));
    let before = seen(&world);
    let datapath = world.datapath_pid();
    world.stop(Signal::SIGKILL);
    send_signal(datapath, Signal::SIGKILL);
    world.start_again();
    assert_ne!(world.datapath_pid(), datapath);
    assert_eq!(seen(&world), before);
    all_reach_the_first(&containers);
    one.cannot_ping(other.ipv4());
}

#[test]
fn what_cannot_be_restored_stays_until_it_is_detached() {
    let mut world = world();
    let kept = world.sandbox("kept", &[]);
    let lost = world.attach("lost", &["--ip", "172.17.0.99"]);
    assert!(world.stop(Signal::SIGTERM).success());
    drop(lost);
    world.start_again();
    assert_eq!(world.json(&["ps"]).as_array().map(Vec::len), Some(2));
    assert!(world.logged().contains("sandbox \"lost\" could not be restored"), "{}", world.logged());
    let refusal = world.refused(&["sandbox", "create", &world.global_name("x"), "--ip", "172.17.0.99"]);
    assert!(refusal.message.contains("Address already in use"), "{}", refusal.message);
    world.vswitch(&["detach", "lost"]);
    let next = world.attach("next", &["--ip", "172.17.0.99"]);
    next.pings(kept.ipv4());
}

#[test]
fn a_namespace_that_nobody_was_told_of_is_removed() {
    let mut world = world();
    assert!(world.stop(Signal::SIGTERM).success());
    // As a control leaves them that dies over making a sandbox: noted, named, and not yet anybody's; and one
    // of the same name that somebody else has made since.
    let (ours, theirs) = (world.global_name("ours"), world.global_name("theirs"));
    let mut notes = Vec::new();
    for name in [&ours, &theirs] {
        let identity = NetNs::create_named(name).and_then(|netns| netns.id()).expect("a namespace");
        notes.push((name.clone(), identity));
    }
    notes[1].1.1 += 1;
    let (mut store, mut state) = Store::open(&world.state_dir()).expect("open");
    for (name, identity) in notes {
        state.namespaces.insert(name, identity.into());
    }
    store.hand_over(&mut state);
    drop(store);
    world.start_again();
    assert!(!named_path(&ours).exists());
    assert!(named_path(&theirs).exists());
}

#[test]
fn a_state_directory_has_one_daemon() {
    let world = world();
    let mut command = Command::new(super::VSWITCH);
    command.arg("run").arg("--state-dir").arg(world.state_dir());
    command.arg("--socket").arg(world.folder().join("other.sock"));
    refuses(&world, &mut command, "is running on state directory");
    world.vswitch(&["network", "ls"]);
}

#[test]
fn a_journal_that_is_damaged_or_newer_is_refused_and_left_as_it_is() {
    let mut world = world();
    world.network("net1", &[]);
    assert!(world.stop(Signal::SIGTERM).success());
    let journal = world.state_dir().join("journal");
    let right = fs::read(&journal).expect("the journal");
    let mut flipped = right.clone();
    flipped[right.len() / 2] ^= 4;
    let newer = String::from_utf8_lossy(&right).replacen("format 1", "format 7", 1).into_bytes();
    let wrong: [(&[u8], &str); 4] = [
        (b"", "is damaged"),
        (b"\x7fELF and so on\n", "is damaged"),
        (&flipped, "is damaged at line"),
        (&newer, "is of format 7"),
    ];
    for (text, why) in wrong {
        fs::write(&journal, text).expect("write");
        let mut command = world.command(&["run"]);
        let message = refuses(&world, &mut command, why);
        assert!(message.contains(&journal.display().to_string()), "{message}");
        assert_eq!(fs::read(&journal).expect("the journal"), text);
        assert!(!world.socket().exists(), "the socket is left over");
    }
    fs::write(&journal, right).expect("write");
    world.start_again();
    world.vswitch(&["network", "inspect", "net1"]);
}

/// Runs a daemon that must refuse to start, in one line; gives back the line.
fn refuses(world: &World, command: &mut Command, why: &str) -> String {
    let output = inside(&world.host().path(), || command.output()).expect("it starts");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(why), "{message}");
    message
}
