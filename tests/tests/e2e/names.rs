//! Names as containers see them: those of each other, those of the world, and their own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use nix::sys::signal::Signal;
use simple_dns::{RCODE, TYPE};
use vswitch_tests::names::{ANSWER, Server, ask, ask_stream, failed, found};
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World, send_signal};

use super::world;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The exit status of `getent` that found nothing.
const NOT_FOUND: i32 = 2;

/// A name server in the host's namespace, which the switch asks.
fn server(world: &World) -> Server {
    fs::write(world.resolv_conf(), format!("search example.com\nnameserver {SERVER}\n")).expect("write");
    Server::start(world.host(), SERVER)
}

/// Looks a name up with `getent`, by the container's own files; `None` if it finds nothing.
fn getent(world: &World, container: &Container, database: &str, name: &str) -> Option<String> {
    let output = world.command(&["exec", &container.name, "--", "getent", database, name]).output();
    let output = output.expect("vswitch starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[test]
fn containers_find_each_other_on_a_network_of_their_own() {
    let world = world();
    world.network("lan", &["--ipv6"]);
    let web = world.sandbox("web", &["--network", "lan"]);
    let db = world.sandbox("db", &["--network", "lan", "--alias", "Store", "--hostname", "dbhost"]);
    let (v4, v6) = (Some(db.ipv4().to_string()), Some(db.ipv6().to_string()));
    let in_capitals = db.name.to_uppercase();
    let with_network = format!("{}.lan", db.name);
    for name in [db.name.as_str(), "store", "STORE.lan", "dbhost", &in_capitals, &with_network] {
        assert_eq!(getent(&world, &web, "ahostsv4", name), v4, "{name}");
        assert_eq!(getent(&world, &web, "ahostsv6", name), v6, "{name}");
    }
    let reverse = world.exec(&web, &["getent", "hosts", &db.ipv4().to_string()]);
    assert!(reverse.contains(&with_network), "{reverse}");
    // A name goes with its container.
    world.vswitch(&["sandbox", "rm", &db.name]);
    assert_eq!(getent(&world, &web, "ahostsv4", "store"), None);
}

#[test]
fn the_default_network_has_no_names() {
    let world = world();
    let web = world.sandbox("web", &[]);
    let db = world.sandbox("db", &["--alias", "store"]);
    web.pings(db.ipv4());
    assert_eq!(getent(&world, &web, "ahostsv4", "store"), None);
    assert_eq!(getent(&world, &web, "ahostsv4", &db.name), None);
    // Its own name it finds in its hosts file.
    assert_eq!(getent(&world, &web, "ahostsv4", &web.name), Some(web.ipv4().to_string()));
}

#[test]
fn questions_are_answered_over_udp_and_tcp_at_every_gateway() {
    let world = world();
    world.network("lan", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    world.network("v4", &["--subnet", "10.78.0.0/24"]);
    let gateways = ["10.77.0.1", "fd77::1"].map(|text| text.parse::<IpAddr>().expect("an address"));
    for port_type in ["tap", "veth"] {
        let a = world.attach(&format!("a-{port_type}"), &["--network", "lan", "--port-type", port_type]);
        let (v4, v6) = (a.ipv4().to_string(), a.ipv6().to_string());
        for gateway in gateways {
            let name = format!("A-{port_type}");
            assert_eq!(ask(&a.path, gateway, &name, TYPE::A), found(&[&v4]));
            assert_eq!(ask(&a.path, gateway, &name, TYPE::AAAA), found(&[&v6]));
            assert_eq!(ask(&a.path, gateway, &name, TYPE::MX), found(&[]));
            let questions: Vec<(&str, TYPE)> = [(name.as_str(), TYPE::A); 50].to_vec();
            assert_eq!(ask_stream(&a.path, gateway, &questions), vec![found(&[&v4]); 50]);
        }
    }
    let c = world.attach("c", &["--network", "v4"]);
    let gateway = "10.78.0.1".parse().expect("an address");
    assert_eq!(ask(&c.path, gateway, "c", TYPE::AAAA), found(&[]));
    assert_eq!(ask(&c.path, gateway, "a-tap", TYPE::A), failed(RCODE::ServerFailure), "of another network");
    let all: Vec<String> = (0..60).map(|number| format!("n{number}")).collect();
    let attach = |name: &String| world.attach(name, &["--network", "v4", "--alias", "all"]);
    let there: Vec<Container> = all[..5].iter().map(attach).collect();
    let answer = ask(&c.path, gateway, "all", TYPE::A);
    assert_eq!(answer.records.len(), there.len(), "{answer:?}");
}

#[test]
fn names_of_the_world_are_asked_of_the_hosts_servers() {
    let world = world();
    let server = server(&world);
    world.network("lan", &[]);
    world.network("closed", &["--internal"]);
    let a = world.sandbox("a", &["--network", "lan"]);
    let b = world.sandbox("b", &[]);
    let answer = ANSWER.to_string();
    // By the container's own files, on its own network and on the default one.
    for container in [&a, &b] {
        assert_eq!(getent(&world, container, "ahostsv4", "www.example.com"), Some(answer.clone()));
    }
    // The second answer was kept.
    let asked = server.asked();
    let gateway = gateway_of(&world, "lan");
    assert_eq!(ask(&a.path, gateway, "WWW.example.com", TYPE::A), found(&[&answer]));
    assert_eq!(ask(&a.path, gateway, "www.example.com", TYPE::A), found(&[&answer]));
    assert!(server.asked() <= asked + 1, "asked {} times", server.asked() - asked);
    // A long answer comes over TCP, and at once over UDP only if it fits.
    let long = ask(&a.path, gateway, "many.example.com", TYPE::A);
    assert!(long.truncated && long.records.is_empty(), "{long:?}");
    let long = ask_stream(&a.path, gateway, &[("many.example.com", TYPE::A)]);
    assert_eq!(long[0].records.len(), 100);
    // An internal network has no world.
    let asked = server.asked();
    let c = world.attach("c", &["--network", "closed"]);
    let gateway = gateway_of(&world, "closed");
    assert_eq!(ask(&c.path, gateway, "other.example.com", TYPE::A), failed(RCODE::ServerFailure));
    assert_eq!(ask(&c.path, gateway, "c", TYPE::A), found(&[&c.ipv4().to_string()]));
    assert_eq!(server.asked(), asked);
}

#[test]
fn a_server_on_the_hosts_loopback_is_asked() {
    let world = world();
    let stub = Ipv4Addr::new(127, 0, 0, 53);
    fs::write(world.resolv_conf(), format!("nameserver {stub}\noptions edns0 trust-ad\n")).expect("write");
    let server = Server::start(world.host(), stub);
    world.network("lan", &[]);
    let a = world.sandbox("a", &["--network", "lan"]);
    assert_eq!(getent(&world, &a, "ahostsv4", "www.corp.example"), Some(ANSWER.to_string()));
    assert_eq!(
        ask_stream(&a.path, gateway_of(&world, "lan"), &[("many.example.com", TYPE::A)])[0].records.len(),
        100
    );
    assert!(server.asked() > 0);
}

#[test]
fn servers_that_keep_silent_cost_seconds_in_all() {
    let world = world();
    let silent = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
    let all = silent.map(|silent| {
        world.host().ip(&["address", "add", &format!("{silent}/32"), "dev", "lo"]);
        world.host().inside(|| UdpSocket::bind((silent, 53))).expect("bind")
    });
    let file = |servers: &[Ipv4Addr]| {
        let named = servers.iter().map(|server| format!("nameserver {server}\n"));
        format!("search corp.example\n{}", named.collect::<String>())
    };
    fs::write(world.resolv_conf(), file(&silent)).expect("write");
    world.network("lan", &[]);
    let a = world.sandbox("a", &["--network", "lan"]);
    // Name after name of the search list, each of them twice: so does the C library.
    let seconds = |name: &str| {
        let words = ["exec", &a.name, "--", "timeout", "4", "getent", "ahostsv4", name];
        world.command(&words).output().expect("vswitch starts").status.code()
    };
    assert_eq!(seconds("nobody"), Some(NOT_FOUND), "it took longer than seconds");
    // A server that was silent is asked beside the next, so that it costs nothing until it speaks again.
    let _server = Server::start(world.host(), SERVER);
    fs::write(world.resolv_conf(), file(&[silent[0], silent[1], SERVER])).expect("write");
    for number in 0..20 {
        assert_eq!(seconds(&format!("n{number}.example.com")), Some(0), "{number}");
    }
    drop(all);
}

#[test]
fn a_killed_datapath_costs_no_name() {
    let world = world();
    let _server = server(&world);
    world.network("lan", &[]);
    let a = world.attach("a", &["--network", "lan"]);
    let gateway = gateway_of(&world, "lan");
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until_equal("started again", &1, || world.restarts());
    assert_eq!(ask(&a.path, gateway, "a", TYPE::A), found(&[&a.ipv4().to_string()]));
    assert_eq!(ask(&a.path, gateway, "example.com", TYPE::A), found(&[&ANSWER.to_string()]));
}

#[test]
fn a_killed_control_costs_no_name() {
    let mut world = world();
    let _server = server(&world);
    world.network("lan", &[]);
    let a = world.sandbox("a", &["--network", "lan"]);
    let gateway = gateway_of(&world, "lan");
    world.stop(Signal::SIGKILL);
    // Names that the datapath knows it answers alone; the rest fails at once.
    assert_eq!(ask(&a.path, gateway, &a.name, TYPE::A), found(&[&a.ipv4().to_string()]));
    assert_eq!(ask(&a.path, gateway, "example.com", TYPE::A), failed(RCODE::ServerFailure));
    world.start_again();
    assert_eq!(ask(&a.path, gateway, "example.com", TYPE::A), found(&[&ANSWER.to_string()]));
    assert_eq!(getent(&world, &a, "ahostsv4", "www.example.com"), Some(ANSWER.to_string()));
}

#[test]
fn a_sandbox_has_files_of_its_own() {
    let world = world();
    let _server = server(&world);
    let before = fs::read_to_string("/etc/hosts").expect("the host's");
    world.network("lan", &["--subnet", "10.77.0.0/24"]);
    world.network("more", &["--subnet", "10.78.0.0/24", "--subnet", "fd78::/64"]);
    let a = world.sandbox("a", &["--network", "lan", "--hostname", "alpha"]);
    let cat = |file: &str| world.exec(&a, &["cat", file]);
    let own = |address: &str| format!("{address}\talpha {}\n", a.name);
    assert_eq!(world.exec(&a, &["uname", "-n"]), "alpha\n");
    assert_eq!(
        cat("/etc/hostname"),
        fs::read_to_string("/etc/hostname").map_or(String::new(), |_| "alpha\n".to_owned())
    );
    assert!(cat("/etc/hosts").starts_with("127.0.0.1\tlocalhost\n"));
    assert!(cat("/etc/hosts").ends_with(&own("10.77.0.2")), "{}", cat("/etc/hosts"));
    assert_eq!(cat("/etc/resolv.conf"), "nameserver 10.77.0.1\nsearch example.com\noptions ndots:0\n");
    assert!(world.exec(&a, &["ls", "/sys/class/net"]).contains("eth0"));

    world.vswitch(&["network", "connect", "more", &a.name, "--gw-priority", "1"]);
    let hosts = cat("/etc/hosts");
    assert!(hosts.contains(&own("10.77.0.2")) && hosts.contains(&own("10.78.0.2")), "{hosts}");
    assert!(hosts.contains(&own("fd78::2")), "{hosts}");
    let servers = cat("/etc/resolv.conf");
    assert!(
        servers.starts_with("nameserver 10.78.0.1\nnameserver fd78::1\nnameserver 10.77.0.1\n"),
        "{servers}"
    );
    world.vswitch(&["network", "disconnect", "lan", &a.name]);
    assert!(!cat("/etc/hosts").contains("10.77."), "{}", cat("/etc/hosts"));

    let alone = world.sandbox("alone", &["--network", "none"]);
    let servers = world.exec(&alone, &["cat", "/etc/resolv.conf"]);
    assert_eq!(servers, fs::read_to_string(world.resolv_conf()).expect("the host's"));
    let folder = world.folder().join("sandboxes");
    assert!(folder.join(&a.name).join("hosts").exists());
    world.vswitch(&["sandbox", "rm", &a.name, &alone.name]);
    let left = fs::read_dir(&folder).expect("the folder").flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), [".vswitch"], "its mark");
    assert_eq!(fs::read_to_string("/etc/hosts").expect("the host's"), before);
}

fn gateway_of(world: &World, network: &str) -> IpAddr {
    let shown = world.json(&["network", "inspect", network]);
    let gateway = shown[0]["IPAM"]["Config"][0]["Gateway"].as_str();
    gateway.unwrap_or_else(|| panic!("{shown}")).parse().expect("an address")
}
