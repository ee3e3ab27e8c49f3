//! Disks that are full, may only be read, or stall: what was promised stays, what cannot be promised is not
//! done, and everything else goes on.

use std::process::Child;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vswitch_tests::disk::Disk;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World, send_signal};

use super::world;

/// Bytes of the small disk.
const SMALL: usize = 1 << 20;
/// Networks that are made until one is refused, at most.
const NETWORKS_MAX: usize = 100;

/// A stopped switch's state directory gets a disk of its own, and the switch starts again.
fn on_disk(make: impl FnOnce(&World) -> Disk) -> (World, Disk) {
    let mut world = world();
    assert!(world.stop(Signal::SIGTERM).success());
    let disk = make(&world);
    world.start_again();
    (world, disk)
}

fn on_small_disk() -> (World, Disk) {
    on_disk(|world| Disk::small(&world.state_dir(), SMALL))
}

/// Two containers on a network, each of another kind.
fn populate(world: &World) -> [Container; 2] {
    world.network("net1", &[]);
    [world.sandbox("made", &["--network", "net1"]), world.attach("attached", &["--network", "net1"])]
}

/// All that clients can see of the configuration.
fn seen(world: &World) -> [Value; 3] {
    ["/networks", "/sandboxes", "/rules"].map(|path| {
        let (status, answer) = world.curl("GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    })
}

/// Asks for a network with a label of so many bytes.
fn make_network(world: &World, name: &str, bytes: usize) -> (u16, Value) {
    let body = json!({ "Name": name, "Labels": { "long": "x".repeat(bytes) } }).to_string();
    let file = world.folder().join("body");
    std::fs::write(&file, body).expect("write");
    world.curl("POST", "/networks/create", Some(&format!("@{}", file.display())))
}

/// Asserts that a refusal is one line that names the state directory and the mend.
fn is_of_the_disk(world: &World, answer: &Value, mend: &str) {
    assert_eq!(answer["code"], "storage-unavailable", "{answer}");
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains(world.state_dir().to_str().expect("a path")), "{message}");
    assert!(message.contains(mend) && !message.contains('\n'), "{message}");
}

/// Makes networks until one is refused; what there was before it is what there is.
fn use_up(world: &World, mend: &str) {
    for number in 0..NETWORKS_MAX {
        let before = seen(world);
        let (status, answer) = make_network(world, &format!("net-{number}"), 8 << 10);
        if status != 201 {
            is_of_the_disk(world, &answer, mend);
            assert_eq!(seen(world), before);
            return;
        }
    }
    panic!("{NETWORKS_MAX} networks fit on a full disk");
}

fn all_talk(containers: &[Container; 2]) {
    let [one, other] = containers;
    one.pings(other.ipv4());
    other.pings(one.ipv4());
}

/// The warnings of `vswitch version`.
fn warnings(world: &World) -> String {
    world.json(&["version"])["Server"]["Warnings"].to_string()
}

/// Ends both processes, as the host's end does, and starts again.
fn both_die(world: &mut World) {
    let datapath = world.datapath_pid();
    world.stop(Signal::SIGKILL);
    send_signal(datapath, Signal::SIGKILL);
    world.start_again();
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let (mut world, disk) = on_small_disk();
    let containers = populate(&world);
    disk.fill();
    use_up(&world, "make room");
    assert!(warnings(&world).contains("make room"), "{}", warnings(&world));
    let before = seen(&world);
    all_talk(&containers);

    // A restart finds all that was promised, and leaves alone what runs.
    let datapath = world.datapath_pid();
    world.stop(Signal::SIGKILL);
    world.start_again();
    assert_eq!((seen(&world), world.datapath_pid()), (before.clone(), datapath));
    all_talk(&containers);
    is_of_the_disk(&world, &make_network(&world, "more", 8 << 10).1, "make room");

    // As does the host's: everything is made again.
    both_die(&mut world);
    assert_eq!(seen(&world), before);
    all_talk(&containers);
    is_of_the_disk(&world, &make_network(&world, "more", 8 << 10).1, "make room");

    disk.free();
    assert_eq!(make_network(&world, "more", 8 << 10).0, 201);
    assert_eq!(world.json(&["version"])["Server"]["Warnings"], Value::Null);
    let before = seen(&world);
    world.stop(Signal::SIGKILL);
    world.start_again();
    assert_eq!(seen(&world), before);
}

#[test]
fn a_change_for_which_there_is_no_room_is_undone() {
    let (world, disk) = on_small_disk();
    let containers = populate(&world);
    world.vswitch(&["rule", "add", "--proto", "tcp", "--dport", "7", "--action", "drop"]);
    disk.fill();
    let before = seen(&world);
    let links = world.host().ip(&["-o", "link"]).lines().count();
    for _ in 0..3 {
        let (status, answer) = make_network(&world, "large", 300 << 10);
        assert!(status >= 500, "{status}: {answer}");
        is_of_the_disk(&world, &answer, "make room");
        assert_eq!(seen(&world), before);
        wait::until_equal("interfaces of the host", &links, || {
            world.host().ip(&["-o", "link"]).lines().count()
        });
        all_talk(&containers);
    }
    disk.free();
    assert_eq!(make_network(&world, "large", 300 << 10).0, 201);
    all_talk(&containers);
}

#[test]
fn a_start_on_a_disk_that_may_only_be_read_goes_on() {
    let (mut world, disk) = on_small_disk();
    let containers = populate(&world);
    let before = seen(&world);
    world.stop(Signal::SIGKILL);
    disk.set_read_only(true);
    world.start_again();
    assert_eq!(seen(&world), before);
    is_of_the_disk(&world, &make_network(&world, "more", 1).1, "writable");
    assert!(warnings(&world).contains("writable"), "{}", warnings(&world));
    assert!(world.logged().contains("no change is made"), "{}", world.logged());
    all_talk(&containers);

    both_die(&mut world);
    assert_eq!(seen(&world), before);
    all_talk(&containers);

    // The next control takes up with this datapath, wherever that listens.
    let datapath = world.datapath_pid();
    world.stop(Signal::SIGKILL);
    world.start_again();
    assert_eq!((seen(&world), world.datapath_pid()), (before, datapath));
    disk.set_read_only(false);
    assert_eq!(make_network(&world, "more", 1).0, 201);
    all_talk(&containers);
}

#[test]
fn a_stalled_disk_delays_changes_and_nothing_else() {
    let (world, mut disk) = on_disk(|world| Disk::ext4(&world.state_dir(), &world.folder().join("image")));
    let containers = populate(&world);
    let before = seen(&world);
    let links = world.host().ip(&["-o", "link"]).lines().count();
    disk.freeze();
    let mut clients: Vec<Child> = ["late1", "late2", "late3"]
        .map(|name| world.command(&["network", "create", name]).spawn().expect("a client"))
        .into();
    let made = || world.host().ip(&["-o", "link"]).lines().count() == links + clients.len();
    wait::until("the networks are made", || made().then_some(()));
    for _ in 0..10 {
        assert_eq!(seen(&world), before, "what is seen is promised");
        world.json(&["stats"]);
        all_talk(&containers);
    }
    let ended = |client: &mut Child| client.try_wait().expect("our child");
    assert!(clients.iter_mut().all(|client| ended(client).is_none()), "a promise that is not on the disk");
    disk.thaw();
    for client in &mut clients {
        assert!(wait::until("an answer", || ended(client)).success());
    }
    assert_eq!(
        world.json(&["network", "ls"]).as_array().map(Vec::len),
        before[0].as_array().map(|all| all.len() + 3)
    );
}
