//! Starts of the daemon before the host is complete: what cannot be made yet is made when it can be.

use std::net::IpAddr;
use std::process::Command;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::talk;
use vswitch_tests::wait;
use vswitch_tests::world::{World, send_signal};

use super::VSWITCH;

/// The interface of the host that gets its address late, as by DHCP, and that address.
const INTERFACE: &str = "wan0";
const LATE: &str = "192.0.2.1";

fn interface(host: &Namespace) {
    host.ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "far"]);
    for end in [INTERFACE, "far"] {
        host.ip(&["link", "set", end, "up"]);
    }
}

fn address(world: &World, verb: &str, address: &str) {
    world.host().ip(&["address", verb, &format!("{address}/24"), "dev", INTERFACE]);
}

/// How often something was logged.
fn logged(world: &World, text: &str) -> usize {
    world.logged().matches(text).count()
}

#[test]
fn an_overlay_is_raised_when_the_host_gets_its_address() {
    let (mut world, ()) = World::start_prepared(VSWITCH, interface);
    address(&world, "add", LATE);
    let options = ["vswitch.vni=4097", "vswitch.peers=192.0.2.2,192.0.2.3", "vswitch.vtep=192.0.2.1"];
    let options = options.iter().flat_map(|option| ["-o", option]);
    let subnet = ["-d", "overlay", "--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.16/28"];
    world.network("wide", &subnet.into_iter().chain(options).collect::<Vec<_>>());
    let peers = |world: &World| {
        let shown = world.json(&["network", "inspect", "wide"]);
        shown[0]["Peers"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(peers(&world), 2);
    world.stop(Signal::SIGTERM);
    address(&world, "del", LATE);
    world.start_again();
    let why = "192.0.2.1 is no address of this host";
    wait::until("it is said", || (logged(&world, why) > 0).then_some(()));
    // Changes that are not what is waited for: each is a try, and none is said.
    for number in 0..20 {
        address(&world, "add", &format!("198.51.100.{number}"));
    }
    assert_eq!(peers(&world), 0);
    address(&world, "add", LATE);
    wait::until_equal("the tunnel is there, with its peers", &2, || peers(&world));
    wait::until("that is said", || {
        (logged(&world, "\"wide\" was missing, and is no longer") > 0).then_some(())
    });
    assert_eq!(logged(&world, why), 1, "{}", world.logged());
}

#[test]
fn a_port_is_published_when_the_host_gets_its_address_or_the_port_is_free() {
    let (mut world, ()) = World::start_prepared(VSWITCH, interface);
    address(&world, "add", LATE);
    let web = world.attach("web", &["-p", "192.0.2.1:8080:80", "-p", "127.0.0.1:9090:80"]);
    let server = web.inside(|| std::net::TcpListener::bind("0.0.0.0:80")).expect("bind");
    std::thread::spawn(move || server.incoming().for_each(drop));
    let reaches = |world: &World, at: &str| {
        let at: std::net::SocketAddr = at.parse().expect("an address");
        world.host().inside(|| std::net::TcpStream::connect(at)).is_ok()
    };
    wait::until("it is served", || reaches(&world, "192.0.2.1:8080").then_some(()));
    world.stop(Signal::SIGTERM);
    address(&world, "del", LATE);
    let taken = talk::listen_at(&world.host().path(), "127.0.0.1:9090".parse().expect("an address"));
    world.start_again();
    assert_eq!(logged(&world, "a published port of sandbox \"web\" leads nowhere"), 2, "{}", world.logged());
    drop(taken);
    // Nothing announces that a port is free.
    wait::until("the port is taken", || reaches(&world, "127.0.0.1:9090").then_some(()));
    address(&world, "add", LATE);
    let back = "192.0.2.1:8080/tcp, a published port of sandbox \"web\", was missing";
    wait::until("the address is taken", || (logged(&world, back) == 1).then_some(()));
    // The container that was attached is there still, and has its interface again.
    wait::until("it is served", || reaches(&world, "192.0.2.1:8080").then_some(()));
}

#[test]
fn a_moment_without_descriptors_ends_no_look_at_the_host() {
    let (world, ()) = World::start_prepared(VSWITCH, interface);
    let one = world.attach("one", &[]);
    let pid = format!("--pid={}", world.control_pid());
    let limit = must(Command::new("prlimit").args([&pid, "--nofile", "--noheadings", "--output=SOFT"]));
    let set = |soft: &str| must(Command::new("prlimit").args([&pid, &format!("--nofile={soft}:")]));
    set("3");
    address(&world, "add", LATE);
    wait::until("it is noticed", || world.logged().contains("Too many open files").then_some(()));
    set(limit.trim());
    let late: IpAddr = LATE.parse().expect("an address");
    wait::until("the host answers there", || {
        talk::ping(&one.path, late, &["-c", "1", "-W", "1"]).then_some(())
    });
}

#[test]
fn changes_that_were_missed_are_found() {
    let (world, ()) = World::start_prepared(VSWITCH, interface);
    let one = world.attach("one", &[]);
    let pid = world.control_pid();
    send_signal(pid, Signal::SIGSTOP);
    // More than the sockets hold that hear of them.
    let file = std::env::temp_dir().join(format!("{}-batch", world.host().name()));
    let lines = (0..4000).map(|number| {
        let verb = if number % 2 == 0 { "add" } else { "del" };
        format!("address {verb} 198.51.100.1/24 dev {INTERFACE}\n")
    });
    std::fs::write(&file, lines.collect::<String>() + &format!("address add {LATE}/24 dev {INTERFACE}\n"))
        .expect("written");
    world.host().ip(&["-batch", file.to_str().expect("text")]);
    std::fs::remove_file(&file).expect("ours");
    send_signal(pid, Signal::SIGCONT);
    let late: IpAddr = LATE.parse().expect("an address");
    for address in [late, "192.0.2.7".parse().expect("an address")] {
        if address != late {
            world.host().ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE]);
        }
        wait::until("the host answers there", || {
            talk::ping(&one.path, address, &["-c", "1", "-W", "1"]).then_some(())
        });
    }
}
