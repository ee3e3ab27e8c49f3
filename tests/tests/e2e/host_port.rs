//! The host and its containers reach each other through the network's interface on the host.

use std::net::IpAddr;

use vswitch_tests::{talk, wait};

use super::world;

const GATEWAY: &str = "10.66.0.1";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn host_and_containers_reach_each_other() {
    let world = world();
    world.network("net1", &["--subnet", "10.66.0.0/24", "--subnet", "fd66::/64"]);
    let a = world.sandbox("a", &["--network", "net1"]);
    for gateway in [GATEWAY, "fd66::1"] {
        a.pings(address(gateway));
    }
    let host = world.host().path();
    for container in [a.ipv4(), a.ipv6()] {
        assert!(talk::answers(&host, container), "the host gets no answer from {container}");
        talk::transfer(&host, &a.path, container, 4 << 20);
        talk::datagrams(&host, &a.path, container, &[0, 1, 1472]);
    }
    for gateway in [GATEWAY, "fd66::1"] {
        talk::transfer(&a.path, &host, address(gateway), 4 << 20);
    }
}

#[test]
fn icc_off_keeps_the_host_reachable() {
    let world = world();
    let options = ["--subnet", "10.66.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false"];
    world.network("net1", &options);
    let a = world.sandbox("a", &["--network", "net1"]);
    let b = world.sandbox("b", &["--network", "net1"]);
    a.cannot_ping(b.ipv4());
    a.pings(address(GATEWAY));
    assert!(talk::answers(&world.host().path(), b.ipv4()));
}

#[test]
fn an_internal_network_reaches_its_host_and_has_no_default_route() {
    let world = world();
    world.network("net1", &["--internal", "--subnet", "10.66.0.0/24"]);
    let a = world.sandbox("a", &["--network", "net1"]);
    a.pings(address(GATEWAY));
    assert_eq!(a.ip(&["route", "show", "default"]), "");
}

#[test]
fn the_interface_goes_with_its_network() {
    let world = world();
    world.network("net1", &[]);
    assert!(world.host().ip(&["-o", "link"]).contains(" vsw0: "));
    let (_, network) = world.curl("GET", "/networks/net1", None);
    let id = network["Id"].as_str().expect("an id").to_owned();
    let interface = format!("br-{}", &id[..12]);
    assert!(world.host().ip(&["-o", "link"]).contains(&interface));
    world.vswitch(&["network", "rm", "net1"]);
    assert!(!world.host().ip(&["-o", "link"]).contains(&interface));
}

#[test]
fn the_interface_lives_on_when_the_datapath_dies() {
    let world = world();
    world.network("net1", &["--subnet", "10.66.0.0/24"]);
    let a = world.sandbox("a", &["--network", "net1"]);
    let restarts = world.restarts();
    vswitch_tests::world::send_signal(world.datapath_pid(), nix::sys::signal::Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    a.pings(address(GATEWAY));
}

#[test]
fn a_second_switch_on_one_host_is_told_what_is_in_the_way() {
    let world = world();
    let mut second = std::process::Command::new(super::VSWITCH);
    second.args(["run", "--socket"]).arg(world.folder().join("second.sock"));
    second.arg("--state-dir").arg(world.folder().join("second"));
    let output = world.host().inside(|| second.output()).expect("vswitch starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(message.contains("\"vsw0\" is in use on this host"), "{message}");
}
