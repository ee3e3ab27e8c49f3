//! Interfaces and namespaces are made, found and removed as asked. Needs root; leaves nothing behind.

use std::os::fd::AsFd;
use std::path::Path;

use vswitch_frame::Mac;
use vswitch_sys::netlink::{Link, LinkChange, Netlink, VethPeer};
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
    let listed =
        std::process::Command::new("ip").args(["netns", "exec", &name, "true"]).status().expect("ip");
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
