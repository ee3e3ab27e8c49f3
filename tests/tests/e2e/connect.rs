//! Sandboxes on several networks: hot connecting, default routes, settings of interfaces, announcements.

use std::net::{IpAddr, UdpSocket};

use vswitch_tests::raw::Capture;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World};

use super::world;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// The default route of a family inside a container, as in `via 10.1.0.1 dev eth0`; empty if there is none.
fn default_route(container: &Container, family: &str) -> String {
    let routes = container.ip(&[family, "route", "show", "default"]);
    let words: Vec<&str> = routes.lines().next().unwrap_or_default().split(' ').skip(1).take(4).collect();
    words.join(" ")
}

fn default_routes(container: &Container) -> [String; 2] {
    ["-4", "-6"].map(|family| default_route(container, family))
}

fn setting(container: &Container, path: &str) -> String {
    let path = format!("/proc/sys/net/{path}");
    container.inside(|| std::fs::read_to_string(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn connect(world: &World, network: &str, container: &Container, options: &[&str]) {
    world.vswitch(&[&["network", "connect", network, &container.name], options].concat());
}

fn disconnect(world: &World, network: &str, container: &Container) {
    world.vswitch(&["network", "disconnect", network, &container.name]);
}

/// Networks with fixed addresses: `a` and `b` of IPv4, `both` of both families, `inner` internal.
fn networks() -> World {
    let world = world();
    world.network("a", &["--subnet", "10.1.0.0/24"]);
    world.network("b", &["--subnet", "10.2.0.0/24"]);
    world.network("both", &["--subnet", "10.3.0.0/24", "--subnet", "fd00:3::/64"]);
    world.network("inner", &["--subnet", "10.4.0.0/24", "--subnet", "fd00:4::/64", "--internal"]);
    world
}

#[test]
fn the_default_route_goes_from_hand_to_hand() {
    let world = networks();
    let c = world.sandbox("c", &["--network", "inner"]);
    assert_eq!(default_routes(&c), ["", ""]);
    connect(&world, "b", &c, &[]);
    assert_eq!(default_routes(&c), ["via 10.2.0.1 dev eth1", ""]);
    connect(&world, "a", &c, &[]);
    assert_eq!(default_routes(&c), ["via 10.1.0.1 dev eth2", ""], "names are in order");
    connect(&world, "both", &c, &[]);
    assert_eq!(
        default_routes(&c),
        ["via 10.3.0.1 dev eth3", "via fd00:3::1 dev eth3"],
        "both families first"
    );
    disconnect(&world, "both", &c);
    assert_eq!(default_routes(&c), ["via 10.1.0.1 dev eth2", ""]);
    connect(&world, "both", &c, &["--gw-priority", "-1"]);
    assert_eq!(default_routes(&c), ["via 10.1.0.1 dev eth2", "via fd00:3::1 dev eth3"], "by family");
    disconnect(&world, "a", &c);
    assert_eq!(default_routes(&c), ["via 10.2.0.1 dev eth1", "via fd00:3::1 dev eth3"]);
    connect(&world, "a", &c, &["--gw-priority", "7"]);
    assert_eq!(default_routes(&c), ["via 10.1.0.1 dev eth2", "via fd00:3::1 dev eth3"]);
    let ps = world.json(&["ps"]);
    let priorities = ps.as_array().expect("endpoints").iter();
    let priorities: Vec<i64> = priorities.filter_map(|endpoint| endpoint["GwPriority"].as_i64()).collect();
    assert_eq!(priorities, [0, 0, -1, 7]);
    for network in ["a", "b", "both"] {
        disconnect(&world, network, &c);
    }
    assert_eq!(default_routes(&c), ["", ""]);
}

#[test]
fn a_default_route_is_handed_over_without_a_gap() {
    let world = networks();
    world.network("b6", &["--subnet", "10.6.0.0/24", "--subnet", "fd00:6::/64"]);
    let c = world.attach("c", &["--network", "both"]);
    let looks = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for priority in ["1", "-1", "2", "1", "1"] {
                connect(&world, "b6", &c, &["--gw-priority", priority]);
                disconnect(&world, "b6", &c);
            }
        });
        // Connecting a datagram socket looks a route up, and sends nothing.
        c.inside(|| {
            let mut looks = 0;
            while !changes.is_finished() {
                for (own, target) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
                    let socket = UdpSocket::bind(own).expect("a socket");
                    socket.connect(target).unwrap_or_else(|error| panic!("{target}: {error}"));
                }
                looks += 1;
            }
            looks
        })
    });
    assert!(looks > 0);
    assert_eq!(default_routes(&c), ["via 10.3.0.1 dev eth0", "via fd00:3::1 dev eth0"]);
}

#[test]
fn a_new_sandbox_gets_the_default_route_its_flags_ask_for() {
    let world = networks();
    let c = world.sandbox("c", &["--network", "name=b,gw-priority=1", "--network", "a"]);
    assert_eq!(default_route(&c, "-4"), "via 10.2.0.1 dev eth0");
    let d = world
        .sandbox("d", &["--network", "a", "--network", "name=both,ip=10.3.0.9,alias=dd", "--ip", "10.1.0.9"]);
    assert_eq!(default_routes(&d), ["via 10.3.0.1 dev eth1", "via fd00:3::1 dev eth1"]);
    let endpoints = &world.json(&["sandbox", "inspect", &d.name])[0]["Endpoints"];
    assert_eq!(
        (&endpoints[0]["IPAddress"], &endpoints[1]["IPAddress"]),
        (&"10.1.0.9".into(), &"10.3.0.9".into())
    );
    assert_eq!(endpoints[1]["Aliases"], serde_json::json!(["dd"]));
}

#[test]
fn a_default_route_of_the_owners_stays() {
    let world = networks();
    let c = world.attach("c", &["--network", "inner"]);
    c.ip(&["route", "add", "default", "via", "10.4.0.99"]);
    connect(&world, "a", &c, &[]);
    connect(&world, "b", &c, &["--gw-priority", "1"]);
    assert_eq!(c.ip(&["-4", "route", "show", "default"]), "default via 10.4.0.99 dev eth0 \n");
    disconnect(&world, "a", &c);
    disconnect(&world, "b", &c);
    assert_eq!(c.ip(&["-4", "route", "show", "default"]), "default via 10.4.0.99 dev eth0 \n");
    // Another metric, the same next hop as ours: it is his all the same.
    c.ip(&["route", "del", "default"]);
    connect(&world, "a", &c, &[]);
    c.ip(&["route", "add", "default", "via", "10.1.0.1", "dev", "eth1", "metric", "9"]);
    connect(&world, "b", &c, &["--gw-priority", "1"]);
    let routes = c.ip(&["-4", "route", "show", "default"]);
    assert!(routes.contains("via 10.2.0.1 dev eth2") && routes.contains("metric 9"), "{routes}");
    assert_eq!(routes.lines().count(), 2, "{routes}");
}

#[test]
fn a_sandbox_on_several_networks_is_reached_from_each() {
    let world = networks();
    let names = ["a", "b", "both", "inner"];
    let c =
        world.sandbox("c", &["--network", "a", "--network", "b", "--network", "both", "--network", "inner"]);
    let addresses = |network: &str| -> Vec<IpAddr> {
        let ps = world.json(&["ps"]);
        let own = |endpoint: &&serde_json::Value| {
            endpoint["Network"] == network && endpoint["Sandbox"] == c.name.as_str()
        };
        let endpoint = ps.as_array().expect("endpoints").iter().find(own).expect("an endpoint").clone();
        let found = ["IPAddress", "GlobalIPv6Address"].map(|key| endpoint[key].as_str().map(str::to_owned));
        found.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
    };
    for network in names {
        let peer = world.attach(network, &["--network", network]);
        for address in addresses(network) {
            peer.pings(address);
        }
        world.exec(&c, &["ping", "-c", "1", "-W", "5", &peer.ipv4().to_string()]);
    }
    for network in ["a", "both"] {
        disconnect(&world, network, &c);
    }
    let peer = world.attach("later", &["--network", "b"]);
    peer.pings(addresses("b")[0]);
    assert_eq!(default_routes(&c), ["via 10.2.0.1 dev eth1", ""]);
}

#[test]
fn settings_of_an_interface_are_made_or_nothing_is() {
    let world = networks();
    // One that is dropped is gone, and shown so.
    let mut kept = Vec::new();
    for port_type in ["tap", "tap-moved", "veth"] {
        let name = format!("c-{port_type}");
        let sysctls =
            format!("{SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.forwarding=1");
        let c = world.attach(
            &name,
            &["--network", "both", "--ifname", "up.link", "--port-type", port_type, "--driver-opt", &sysctls],
        );
        assert_eq!(setting(&c, "ipv4/conf/up.link/log_martians"), "1\n");
        assert_eq!(setting(&c, "ipv6/conf/up.link/forwarding"), "1\n");
        let before = world.json(&["ps"]);
        for (sysctl, named) in [
            ("net.ipv4.conf.IFNAME.no_such_setting=1", "no_such_setting"),
            ("net.ipv4.conf.IFNAME.log_martians=maybe", "maybe"),
        ] {
            let option = format!("{SYSCTLS}={sysctl}");
            let refusal = world.refused(&[
                "network",
                "connect",
                "a",
                &name,
                "--port-type",
                port_type,
                "--driver-opt",
                &option,
            ]);
            assert_eq!((refusal.code, refusal.message.lines().count()), (1, 1), "{}", refusal.message);
            assert!(refusal.message.contains(named), "{}", refusal.message);
            assert_eq!(world.json(&["ps"]), before);
            assert_eq!(default_route(&c, "-4"), "via 10.3.0.1 dev up.link");
            wait::until_equal("no interface is left", &2, || c.ip(&["-o", "link"]).lines().count());
        }
        kept.push(c);
    }
}

#[test]
fn ipv6_is_static_where_it_is_and_off_where_it_is_not() {
    let world = networks();
    let c = world.sandbox("c", &["--network", "both", "--network", "a"]);
    assert_eq!(setting(&c, "ipv6/conf/eth0/accept_ra"), "0\n");
    assert_eq!(setting(&c, "ipv6/conf/eth1/disable_ipv6"), "1\n");
    let addresses = c.ip(&["-6", "address", "show", "dev", "eth0"]);
    assert!(!addresses.contains("tentative"), "{addresses}");
    let [_, _, third, fourth, fifth, sixth] = c.mac().0;
    let link_local = format!("fe80::42:{third:x}ff:fe{fourth:02x}:{fifth:x}{sixth:02x}");
    let link_local: IpAddr = link_local.parse().expect("an address");
    assert!(addresses.contains(&link_local.to_string()), "{addresses} has no {link_local}");
    assert_eq!(c.ip(&["-6", "address", "show", "dev", "eth1"]), "");
}

/// The sender's address of an ARP announcement, or the target of a neighbour advertisement.
fn announced(frame: &[u8]) -> IpAddr {
    if frame[12..14] == [8, 6] {
        assert_eq!(frame[28..32], frame[38..42], "an announcement, not a question");
        return <[u8; 4]>::try_from(&frame[28..32]).expect("four").into();
    }
    <[u8; 16]>::try_from(&frame[62..78]).expect("sixteen").into()
}

#[test]
fn a_new_endpoint_is_announced_as_often_as_is_asked() {
    let world = networks();
    for port_type in ["tap", "veth"] {
        let watcher = world.attach(&format!("watcher-{port_type}"), &["--network", "both"]);
        let filter = "(arp and arp[14:4] == arp[24:4]) or (icmp6 and ip6[40] == 136 and dst host ff02::1)";
        let mut capture = Capture::start(&watcher.path, "eth0", filter);
        let mut expected = Vec::new();
        for (index, count) in ["3", "0", "1"].into_iter().enumerate() {
            let [count_option, interval_option] = [("nmsgs", count), ("ms", "100")]
                .map(|(key, value)| format!("com.docker.network.advertise_addr_{key}={value}"));
            let name = format!("{port_type}-{index}");
            let options = ["--network", "both", "--port-type", port_type, "--driver-opt", &count_option];
            let c = world.attach(&name, &[&options[..], &["--driver-opt", &interval_option]].concat());
            let times: usize = count.parse().expect("a number");
            for _ in 0..times {
                expected.extend([c.ipv4(), c.ipv6()]);
                for _ in 0..2 {
                    let frame = capture.receive();
                    assert_eq!(frame[6..12], c.mac().0);
                    assert_eq!(announced(&frame), expected.remove(0));
                }
            }
            world.vswitch(&["detach", &name]);
        }
    }
}
