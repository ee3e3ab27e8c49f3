//! Interfaces and namespaces are made, found and removed as asked. Needs root; leaves nothing behind.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use vswitch_frame::Mac;
use vswitch_sys::netlink::{Link, LinkChange, Netlink, Route, VethPeer};
use vswitch_sys::netns::{NetNs, named_path, run_in};

fn netlink_in(netns: &NetNs) -> Netlink {
    run_in(netns, Netlink::open).expect("enter").expect("open")
}

fn link(netlink: &mut Netlink, name: &str) -> Link {
    netlink.find_link(name).expect("ask").expect("there")
}

#[test]
fn a_veth_pair_across_namespaces_carries_what_it_was_told() {
    let (here, there) = (NetNs::anonymous().expect("namespace"), NetNs::anonymous().expect("namespace"));
    let (mut near, mut far) = (netlink_in(&here), netlink_in(&there));
    near.create_veth("near0", VethPeer { name: "far0", netns: Some(there.as_fd()) }).expect("create");
    let mac = Mac([0x02, 0x42, 10, 0, 0, 1]);
    let change = LinkChange {
        mac: Some(mac),
        mtu: Some(9000),
        txqueuelen: Some(1234),
        name: Some("eth7"),
        up: Some(true),
        ..LinkChange::default()
    };
    far.change("far0", change).expect("configure");
    let shown = link(&mut far, "eth7");
    let expected = Link {
        index: shown.index,
        name: "eth7".to_owned(),
        mac: Some(mac),
        mtu: 9000,
        txqueuelen: 1234,
        up: true,
        master: None,
        kind: "veth".to_owned(),
    };
    assert_eq!(shown, expected);
    assert_eq!(far.find_link("far0").expect("ask"), None);

    near.delete_link("near0").expect("delete");
    assert_eq!(far.links().expect("dump").iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
}

#[test]
fn addresses_and_routes_appear_and_vanish() {
    let netns = NetNs::anonymous().expect("namespace");
    let mut netlink = netlink_in(&netns);
    netlink.create_bridge("d0").expect("create");
    netlink.forbid_link_local("d0").expect("quiet");
    netlink.set_up("d0").expect("up");
    for address in ["10.1.2.3/24", "fd00:1::3/64"] {
        netlink.add_address("d0", address.parse().expect("net")).expect("address");
    }
    let shown: Vec<String> = netlink.addresses().expect("dump").iter().map(|a| a.net.to_string()).collect();
    assert_eq!(shown, ["10.1.2.3/24", "fd00:1::3/64"]);

    let default = "0.0.0.0/0".parse().expect("net");
    let gateway = Some("10.1.2.1".parse().expect("address"));
    netlink.add_route("d0", default, gateway).expect("route");
    netlink.add_route("d0", "10.9.0.0/16".parse().expect("net"), None).expect("route");
    let routes = netlink.routes().expect("dump");
    assert!(
        routes.iter().any(|route| route.destination == default && route.gateway == gateway),
        "{routes:?}"
    );
    let error = netlink.add_route("d0", default, gateway).expect_err("twice");
    assert!(error.is(17), "{error}");
    netlink.delete_route("d0", default, gateway).expect("delete");
    assert!(!netlink.routes().expect("dump").iter().any(|route| route.destination == default));
}

/// A namespace with two interfaces that are up, `d0` and `e0`, and what `ip` does there.
fn two_links() -> (NetNs, Netlink, impl Fn(&str)) {
    let netns = NetNs::anonymous().expect("namespace");
    let mut netlink = netlink_in(&netns);
    let inside = NetNs::from_fd(netns.as_fd().try_clone_to_owned().expect("duplicate")).expect("namespace");
    for (name, peer, address) in [("d0", "d1", "192.0.2.2/24"), ("e0", "e1", "198.51.100.2/24")] {
        netlink.create_veth(name, VethPeer { name: peer, netns: None }).expect("create");
        netlink.set_up(name).expect("up");
        netlink.set_up(peer).expect("up");
        netlink.add_address(name, address.parse().expect("net")).expect("address");
    }
    let ip = move |words: &str| {
        let run = || Command::new("ip").args(words.split(' ')).output().expect("ip");
        let output = run_in(&inside, run).expect("enter");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    (netns, netlink, ip)
}

/// The next hops of default routes.
fn hops(netlink: &mut Netlink) -> Vec<String> {
    let names: BTreeMap<u32, String> =
        netlink.links().expect("dump").into_iter().map(|link| (link.index, link.name)).collect();
    let routes = netlink.routes().expect("dump").into_iter();
    let routes = routes.filter(|route| route.destination.prefix_len() == 0);
    let shown = routes.map(|route| {
        let gateway = route.gateway.map_or("-".to_owned(), |gateway| gateway.to_string());
        let name = route.index.map_or("-", |index| names[&index].as_str());
        let source = route.source.map_or(String::new(), |source| format!(" src {source}"));
        let down = if route.is_down { " down" } else { "" };
        format!("{gateway} {name} {}{source}{down}", route.metric)
    });
    shown.collect()
}

#[test]
fn every_next_hop_of_a_route_is_told() {
    let (_netns, mut netlink, ip) = two_links();
    let both = "nexthop via 192.0.2.1 dev d0 nexthop via 198.51.100.1 dev e0";
    ip(&format!("route add default metric 7 src 192.0.2.2 {both}"));
    assert_eq!(hops(&mut netlink), ["192.0.2.1 d0 7 src 192.0.2.2", "198.51.100.1 e0 7 src 192.0.2.2"]);
    ip("link set e1 down");
    assert_eq!(hops(&mut netlink)[1], "198.51.100.1 e0 7 src 192.0.2.2 down");
    ip("link set e1 up");
    ip("-4 route replace default metric 7 via inet6 fe80::1 dev d0");
    assert_eq!(hops(&mut netlink), ["fe80::1 d0 7"]);
    let by_name = |route: &Route| route.gateway == "fe80::1".parse().ok();
    let route = netlink.routes().expect("dump").into_iter().find(by_name).expect("a route");
    assert!(route.destination.addr().is_ipv4(), "{route:?}");
    ip("route del default");
    ip("route add blackhole default");
    assert_eq!(hops(&mut netlink), ["- - 0"]);
    ip("route del blackhole default");
    ip("-6 route add default metric 9 nexthop via fe80::1 dev d0 nexthop via fe80::2 dev e0");
    assert_eq!(hops(&mut netlink), ["fe80::1 d0 9", "fe80::2 e0 9"]);
}

#[test]
fn nexthop_objects_are_told_whether_routes_spell_them_out_or_not() {
    let (netns, mut netlink, ip) = two_links();
    ip("nexthop add id 1 via 192.0.2.1 dev d0");
    ip("nexthop add id 2 via 198.51.100.1 dev e0");
    ip("nexthop add id 3 group 1/2,3");
    ip("route add default metric 1 nhid 3");
    ip("route add default metric 2 nhid 2");
    for spelled_out in ["1", "0"] {
        let set = || std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", spelled_out);
        run_in(&netns, set).expect("enter").expect("a setting");
        let expected = ["192.0.2.1 d0 1", "198.51.100.1 e0 1", "198.51.100.1 e0 2"];
        assert_eq!(hops(&mut netlink), expected, "{spelled_out}");
    }
}

#[test]
fn errors_name_the_thing() {
    let netns = NetNs::anonymous().expect("namespace");
    let mut netlink = netlink_in(&netns);
    let error = netlink.set_up("nowhere0").expect_err("no such interface").to_string();
    assert_eq!(error, "cannot find interface \"nowhere0\": No such device (os error 19)");
    netlink.create_bridge("b0").expect("create");
    let error = netlink.create_bridge("b0").expect_err("twice").to_string();
    assert_eq!(error, "cannot create bridge \"b0\": File exists (os error 17)");
    netlink.create_veth("d0", VethPeer { name: "d1", netns: None }).expect("create");
    netlink.change("d0", LinkChange { master: Some("b0"), ..LinkChange::default() }).expect("enslave");
    assert_eq!(link(&mut netlink, "d0").master, Some(link(&mut netlink, "b0").index));
}

#[test]
fn a_link_moves_and_is_renamed_on_the_way() {
    let (here, there) = (NetNs::anonymous().expect("namespace"), NetNs::anonymous().expect("namespace"));
    let (mut near, mut far) = (netlink_in(&here), netlink_in(&there));
    near.create_veth("d0", VethPeer { name: "d1", netns: None }).expect("create");
    let change = LinkChange { netns: Some(there.as_fd()), name: Some("eth0"), ..LinkChange::default() };
    near.change("d0", change).expect("move");
    assert_eq!(near.find_link("d0").expect("ask"), None);
    assert_eq!(link(&mut far, "eth0").kind, "veth");
}

#[test]
fn a_named_namespace_is_found_by_ip_netns() {
    let name = format!("vswtest-{}", std::process::id());
    let made = NetNs::create_named(&name).expect("create");
    assert_eq!(NetNs::named(&name).expect("open").id().expect("id"), made.id().expect("id"));
    assert_ne!(made.id().expect("id"), NetNs::current().expect("current").id().expect("id"));
    assert_eq!(NetNs::create_named(&name).expect_err("taken").kind(), std::io::ErrorKind::AlreadyExists);
    let listed = Command::new("ip").args(["netns", "exec", &name, "true"]).status().expect("ip");
    NetNs::delete_named(&name).expect("delete");
    assert!(listed.success());
    assert!(!named_path(&name).exists());
    let inside = run_in(&made, NetNs::current).expect("enter").expect("current");
    assert_eq!(inside.id().expect("id"), made.id().expect("id"));
}

#[test]
fn what_is_no_namespace_is_refused() {
    let error = NetNs::open(Path::new("/dev/null")).expect_err("a device");
    assert_eq!(error.to_string(), "not a network namespace");
    assert!(NetNs::open(Path::new("/proc/self/ns/uts")).is_err());
}
