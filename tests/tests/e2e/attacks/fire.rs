//! The standing attacker at real interfaces: everybody else believes what is true, and goes on.

use std::net::{IpAddr, UdpSocket};

use vswitch_frame::Mac;
use vswitch_tests::attacker::places::{APART, FAR_V4, INTERNAL, PLACES, Place, Role, gateway, gateway_mac};
use vswitch_tests::attacker::wire::{self, Wire};
use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{HOST, Outside};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use super::super::VSWITCH;

/// Frames that each attacker sends.
const FRAMES: usize = 20_000;

fn place(name: char) -> &'static Place {
    PLACES.iter().find(|place| place.name == name).expect("a place")
}

fn network(world: &World, id: u16) {
    let subnets = [format!("10.{id}.0.0/24"), format!("fd00:0:0:{id}::/64")];
    let mut options = vec!["--ipv6", "--subnet", &subnets[0], "--subnet", &subnets[1]];
    match id {
        INTERNAL => options.push("--internal"),
        APART => options.extend(["-o", "com.docker.network.bridge.enable_icc=false"]),
        _ => {}
    }
    world.network(&format!("net{id}"), &options);
}

fn container(world: &World, place: &Place, port_type: &str) -> Container {
    let (network, v4, v6) = (format!("net{}", place.network), place.v4().to_string(), place.v6().to_string());
    let mac = place.mac_address().to_string();
    let own = ["--network", &network, "--ip", &v4, "--ip6", &v6, "--mac-address", &mac];
    world.attach(&place.name.to_string(), &[&own[..], &["--port-type", port_type]].concat())
}

/// Neighbours that somebody knows are who they are: each line of `ip neigh` with an address of a place has
/// the MAC address of that place, or none.
fn believes_the_truth(neighbours: &str, network: u16, real_gateway: Mac) {
    for line in neighbours.lines() {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next().and_then(|word| word.parse().ok()).expect("an address");
        let mac = words.skip_while(|word| *word != "lladdr").nth(1);
        let Some(mac) = mac else { continue };
        let owner = PLACES
            .iter()
            .find(|place| place.network == network && place.role != Role::World && place.owns(address));
        match owner {
            Some(owner) if owner.role == Role::Host => assert_eq!(mac, real_gateway.to_string(), "{line}"),
            Some(owner) => assert_eq!(mac, owner.mac_address().to_string(), "{line}"),
            None => {}
        }
    }
}

/// The host's interface on a network, and its MAC address, which is the gateway's.
fn host_interface(world: &World, network: u16) -> (String, Mac) {
    let (own, _) = gateway(network);
    let line = world.host().ip(&["-o", "address", "show", "to", &own.to_string()]);
    let name = line.split_whitespace().nth(1).expect("an interface").to_owned();
    let link = world.host().ip(&["-o", "link", "show", "dev", &name]);
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    (name, mac.and_then(|mac| mac.parse().ok()).expect("a MAC address"))
}

/// A socket that hears datagrams for this address at any port that the attackers use most.
fn witness(at: &std::path::Path, address: &str) -> UdpSocket {
    let socket = inside(at, || UdpSocket::bind((address, 5000))).expect("bind");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

fn under_fire(port_type: &str) {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    [1, INTERNAL, APART].into_iter().for_each(|id| network(&world, id));
    let everybody: Vec<(&Place, Container)> =
        "abcdef".chars().map(place).map(|place| (place, container(&world, place, port_type))).collect();
    let of = |name: char| &everybody.iter().find(|(place, _)| place.name == name).expect("attached").1;
    for (place, container) in &everybody {
        container.pings(gateway(place.network).0.into());
    }
    let host = witness(&world.host().path(), HOST[0]);
    let far = witness(&outside.path(), &FAR_V4.to_string());

    for (name, seed) in [('a', 1), ('c', 2), ('e', 3)] {
        let (from, container) = (place(name), of(name));
        let (_, real) = host_interface(&world, from.network);
        let wire = Wire::open(&container.path, &container.ifname());
        let taken = wire::frames(from, seed, FRAMES).filter(|frame| {
            let addressed = with_real_gateway(frame, gateway_mac(from.network), real);
            wire.send(&addressed)
        });
        assert!(taken.count() > FRAMES / 2, "the kernel takes most frames of {name}");
    }
    // Everything sent before it has been looked at when an answer has come back.
    for (place, container) in &everybody {
        let (_, real) = host_interface(&world, place.network);
        let answers = || talk::answers(&container.path, gateway(place.network).0.into());
        wait::until("an answer of the gateway's", || answers().then_some(()));
        believes_the_truth(&container.ip(&["neigh"]), place.network, real);
        let routers = container.ip(&["-6", "route", "show", "default"]);
        let own = Place { role: Role::Host, number: 1, ..**place };
        assert!(routers.lines().all(|line| line.contains(&own.v6().to_string())), "{routers}");
    }
    for id in [1, INTERNAL, APART] {
        let (interface, real) = host_interface(&world, id);
        believes_the_truth(&world.host().ip(&["neigh", "show", "dev", &interface]), id, real);
    }
    let mut room = [0; 2048];
    while let Ok((_, from)) = host.recv_from(&mut room) {
        assert!(!from.ip().to_string().starts_with("10.2."), "an internal network reached the host: {from}");
    }
    while let Ok((_, from)) = far.recv_from(&mut room) {
        assert_eq!(from.ip().to_string(), HOST[0], "a private address left");
    }
    assert_eq!(world.restarts(), 0);
}

/// The frame with another gateway's MAC address wherever it has this one.
fn with_real_gateway(frame: &[u8], made_up: [u8; 6], real: Mac) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for at in 0..frame.len().saturating_sub(5) {
        if frame[at..at + 6] == made_up {
            frame[at..at + 6].copy_from_slice(&real.0);
        }
    }
    frame
}

#[test]
fn everybody_at_taps_believes_the_truth() {
    under_fire("tap");
}

#[test]
fn everybody_at_veths_believes_the_truth() {
    under_fire("veth");
}
