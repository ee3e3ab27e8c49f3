//! Containers that are gone: everybody is told the same, nobody reaches what is left, and who comes back
//! under the name has all of it again.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_tests::namespace::{Namespace, inside, must};
use vswitch_tests::outside::{HOST, Outside};
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, world::send_signal};

use super::{VSWITCH, world};

const PORT_TYPES: [&str; 3] = ["tap", "tap-moved", "veth"];
const WEB: [u8; 4] = [10, 7, 0, 80];

/// A switch with a world behind it, a network, and a container that looks on.
fn prepared() -> (World, Outside, Container) {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--subnet", "10.7.0.0/24"]);
    let other = world.attach("other", &["--network", "net1"]);
    (world, outside, other)
}

/// A namespace, attached as `web` with an address and a published port.
fn web(world: &World, namespace: &Namespace, port_type: &str) {
    let attach = ["attach", "web", "--netns", namespace.name(), "--network", "net1", "--ip", "10.7.0.80"];
    world.vswitch(&[&attach[..], &["--port-type", port_type, "-p", "8080:80"]].concat());
}

/// The endpoint of a sandbox, as `ps` shows it.
fn endpoint(world: &World, name: &str) -> Value {
    let all = world.json(&["ps"]);
    let found = all.as_array().and_then(|all| all.iter().find(|endpoint| endpoint["Sandbox"] == name));
    found.unwrap_or_else(|| panic!("no endpoint of {name}: {all}")).clone()
}

fn is_gone(world: &World, name: &str) {
    wait::until_equal("it is gone", &Value::from("gone"), || endpoint(world, name)["Status"].clone());
    let seen = endpoint(world, name);
    assert!(seen["GoneSince"].as_str().is_some_and(|since| since.contains('T')), "{seen}");
    assert!(world.vswitch(&["ps"]).contains("gone since 2"), "{}", world.vswitch(&["ps"]));
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["Sandbox"] == name).expect("its port");
    assert_eq!(port["Gone"], true, "{port}");
    let table = world.json(&["fdb"]);
    let mac = &seen["MacAddress"];
    assert!(table.as_array().expect("a table").iter().all(|entry| entry["MacAddress"] != *mac), "{table}");
}

/// Asserts that a connection comes to nothing at once: it is refused, or reset.
fn refuses(from: &Path, to: SocketAddr) {
    let outcome = inside(from, || {
        let mut client = TcpStream::connect_timeout(&to, DEADLINE)?;
        client.set_read_timeout(Some(DEADLINE))?;
        client.read(&mut [0; 1])
    });
    let error = outcome.expect_err("nobody is there");
    assert!(
        matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
        "{to}: {error}"
    );
}

/// Asserts that nobody reaches the container, and that all are told so.
fn nobody_is_there(world: &World, outside: &Outside, other: &Container) {
    other.cannot_ping(IpAddr::from(WEB));
    refuses(&world.host().path(), ([127, 0, 0, 1], 8080).into());
    refuses(&outside.path(), (HOST[0].parse::<IpAddr>().expect("an address"), 8080).into());
}

/// Asserts that everybody reaches the container again, at its address and its published port.
fn everybody_is_served(world: &World, outside: &Outside, other: &Container, web: &Path) {
    other.pings(IpAddr::from(WEB));
    let listener = talk::listen_at(web, ([0, 0, 0, 0], 80).into());
    let host: IpAddr = HOST[0].parse().expect("an address");
    for (from, to) in [(world.host().path(), IpAddr::from([127, 0, 0, 1])), (outside.path(), host)] {
        let mut client = talk::connect(&from, (to, 8080).into());
        let (mut served, _) = listener.accept().expect("accept");
        served.write_all(b"x").expect("send");
        client.read_exact(&mut [0; 1]).expect("receive");
    }
    assert_eq!(endpoint(world, "web")["Status"], "up");
}

#[test]
fn a_namespace_whose_name_is_deleted_is_gone_and_comes_back_under_its_name() {
    let (mut world, outside, other) = prepared();
    let witness = Namespace::new();
    for port_type in PORT_TYPES {
        let first = Namespace::new();
        first.ip(&["link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", witness.name()]);
        web(&world, &first, port_type);
        everybody_is_served(&world, &outside, &other, &first.path());
        let before = endpoint(&world, "web");
        drop(first);
        is_gone(&world, "web");
        nobody_is_there(&world, &outside, &other);
        let gone = || !witness.ip(&["-o", "link"]).contains("near0");
        wait::until("the namespace goes with its last descriptor", || gone().then_some(()));
        let since = endpoint(&world, "web")["GoneSince"].clone();
        world.stop(Signal::SIGKILL);
        world.start_again();
        assert_eq!(endpoint(&world, "web")["GoneSince"], since);
        nobody_is_there(&world, &outside, &other);
        let second = Namespace::new();
        web(&world, &second, port_type);
        assert_eq!(endpoint(&world, "web"), before);
        everybody_is_served(&world, &outside, &other, &second.path());
        world.vswitch(&["detach", "web"]);
    }
}

#[test]
fn an_interface_that_is_deleted_inside_is_gone_and_its_container_is_not() {
    let (world, outside, other) = prepared();
    for port_type in PORT_TYPES {
        let namespace = Namespace::new();
        web(&world, &namespace, port_type);
        namespace.ip(&["link", "del", "eth0"]);
        is_gone(&world, "web");
        nobody_is_there(&world, &outside, &other);
        assert_eq!(world.json(&["sandbox", "inspect", "web"])[0]["Status"], "up");
        web(&world, &namespace, port_type);
        everybody_is_served(&world, &outside, &other, &namespace.path());
        world.vswitch(&["detach", "web"]);
    }
}

/// A process that waits in a network namespace, and ends with the value.
struct Waits(Child);

impl Waits {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a process"))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[test]
fn a_container_is_gone_with_its_process() {
    let world = world();
    let own = world.host().path();
    let process = Waits::start(Command::new("unshare").args(["--net", "cat"]));
    let path = format!("/proc/{}/ns/net", process.0.id());
    let identity = |path: &Path| std::fs::read_link(path).ok();
    let start = identity(Path::new("/proc/self/ns/net"));
    wait::until("a namespace of its own", || {
        identity(Path::new(&path)).filter(|now| Some(now) != start.as_ref())
    });
    world.vswitch(&["attach", "web", "--pid", &process.0.id().to_string()]);
    let address = endpoint(&world, "web")["IPAddress"].as_str().and_then(|text| text.parse().ok());
    let address: IpAddr = address.expect("an address");
    assert!(talk::answers(&own, address));
    send_signal(process.0.id(), Signal::SIGKILL);
    is_gone(&world, "web");
    assert!(talk::is_silent(&own, address));
}

#[test]
fn a_container_whose_name_is_deleted_lives_on_while_a_process_is_inside() {
    let world = world();
    let namespace = Namespace::new();
    let name = namespace.name().to_owned();
    let process = Waits::start(Command::new("ip").args(["netns", "exec", &name, "cat"]));
    world.vswitch(&["attach", "web", "--netns", &name]);
    let path = namespace.path();
    let inode =
        |path: &Path| std::fs::metadata(path).ok().map(|file| std::os::unix::fs::MetadataExt::ino(&file));
    let inner = format!("/proc/{}/ns/net", process.0.id());
    wait::until("the process is inside", || (inode(Path::new(&inner)) == inode(&path)).then_some(()));
    drop(namespace);
    let now = || world.json(&["sandbox", "inspect", "web"])[0]["NetNS"].clone();
    wait::until_equal("it is found by its process", &Value::from(inner), now);
    assert_eq!(endpoint(&world, "web")["Status"], "up");
    must(&mut world.command(&["exec", "web", "--", "true"]));
    drop(process);
    is_gone(&world, "web");
    let refusal = world.refused(&["exec", "web", "--", "true"]);
    assert!(refusal.message.contains("gone since"), "{}", refusal.message);
}

#[test]
fn a_sandbox_whose_namespace_is_deleted_is_gone_until_the_next_start() {
    let mut world = world();
    let made = world.sandbox("made", &["-p", "8080:80"]);
    let address = made.ipv4();
    let own = world.host().path();
    assert!(talk::answers(&own, address));
    must(Command::new("ip").args(["netns", "delete", &made.name]));
    is_gone(&world, &made.name);
    assert!(talk::is_silent(&own, address));
    refuses(&own, ([127, 0, 0, 1], 8080).into());
    world.stop(Signal::SIGTERM);
    world.start_again();
    assert_eq!(endpoint(&world, &made.name)["Status"], "up");
    assert!(talk::answers(&own, address));
    world.vswitch(&["sandbox", "rm", &made.name]);
}

#[test]
fn another_container_does_not_take_the_place_of_one_that_is_gone() {
    let (world, _outside, _other) = prepared();
    world.network("net2", &[]);
    let first = Namespace::new();
    web(&world, &first, "tap");
    drop(first);
    is_gone(&world, "web");
    let second = Namespace::new();
    let attach = ["attach", "web", "--netns", second.name(), "--network"];
    for (asked, why) in [(&["net2"][..], "was not on network"), (&["net1", "--ip", "10.7.0.81"], "10.7.0.81")]
    {
        let message = world.refused(&[&attach[..], asked].concat()).message;
        assert!(message.contains(why) && message.contains("detach it first"), "{message}");
    }
    let refused = world.refused(&[&attach[..], &["net1", "--ifname", "lo"]].concat());
    assert!(refused.message.contains("lo"), "{}", refused.message);
    is_gone(&world, "web");
    assert_eq!(second.ip(&["-o", "link"]).lines().count(), 1);
    world.vswitch(&[&attach[..], &["net1"]].concat());
    assert_eq!(endpoint(&world, "web")["IPAddress"], "10.7.0.80");
    world.vswitch(&["detach", "web"]);
}

/// Gives a namespace's name to other ones until one has the inode of the first.
fn replace_by_namesake(namespace: &Namespace) {
    let inode = || std::fs::metadata(namespace.path()).expect("a namespace").ino();
    let before = inode();
    wait::until("another namespace gets the inode", || {
        for verb in ["delete", "add"] {
            must(Command::new("ip").args(["netns", verb, namespace.name()]));
        }
        (inode() == before).then_some(())
    });
}

#[test]
fn a_namespace_that_got_the_inode_of_one_that_is_gone_is_left_alone() {
    let mut world = world();
    world.network("net1", &["--subnet", "10.7.0.0/24"]);
    let namespace = Namespace::new();
    web(&world, &namespace, "tap");
    world.stop(Signal::SIGTERM);
    replace_by_namesake(&namespace);
    world.start_again();
    is_gone(&world, "web");
    let interfaces = namespace.ip(&["-o", "link"]);
    assert!(interfaces.lines().all(|line| line.contains(": lo:")), "nothing is made there: {interfaces}");
}
