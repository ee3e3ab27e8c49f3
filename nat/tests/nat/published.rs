//! Published ports: from outside, from inside, and what may not be published.

use vswitch_frame::DropReason;
use vswitch_nat::{Binding, BindingError, Destination, Leaving, Limits, Origin, Protocol, Realm};

use crate::support::{DMZ, Fate, LAN, Packet, World, binding, end, error, ip, syn, tcp, udp};

#[test]
fn a_client_reaches_the_container_with_its_own_address() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    for host in ["192.0.2.1:8080", "192.0.2.2:8080"] {
        let came = world.enters(&syn("198.51.100.1:999", host));
        assert_eq!((came.source, came.target), (end("198.51.100.1:999"), end("10.1.0.2:80")));
        // Even from a network that lets nothing out.
        world.leaving = Leaving::Refused;
        let left = world.leaves(&came.reply());
        assert_eq!((left.source, left.target), (end(host), end("198.51.100.1:999")));
        world.forget("10.1.0.2");
        assert_eq!(world.flows(), 0);
    }
    assert_eq!(world.inn(&udp("198.51.100.1:999", "192.0.2.1:8080")).fate, Fate::Host, "another protocol");
    assert_eq!(world.inn(&syn("198.51.100.1:999", "192.0.2.1:8081")).fate, Fate::Host, "another port");
    assert_eq!(world.inn(&syn("198.51.100.1:999", "203.0.113.1:8080")).fate, Fate::Host, "another host");
}

#[test]
fn a_range_is_one_entry() {
    let mut world = World::new();
    let range = Binding { ports: 1000, host_port: 9000, container_port: 100, ..binding(Protocol::Udp) };
    world.nat.add_binding(range).expect("a binding");
    for (host, container) in [(9000, 100), (9500, 600), (9999, 1099)] {
        let came = world.enters(&udp("198.51.100.1:999", &format!("192.0.2.1:{host}")));
        assert_eq!(came.target, end(&format!("10.1.0.2:{container}")));
    }
    for host in [8999, 10_000] {
        let out = world.inn(&udp("198.51.100.1:999", &format!("192.0.2.1:{host}")));
        assert_eq!(out.fate, Fate::Host);
    }
    assert_eq!(world.nat.bindings().count(), 1);
}

#[test]
fn two_ports_may_lead_to_one() {
    let mut world = World::new();
    let second = Binding { host_port: 8081, ..binding(Protocol::Udp) };
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    world.nat.add_binding(second).expect("another");
    for (client, host) in [("198.51.100.1:1", "192.0.2.1:8080"), ("198.51.100.1:2", "192.0.2.1:8081")] {
        let sent = udp(client, host);
        let came = world.enters(&sent);
        assert_eq!(world.leaves(&came.reply()), sent.reply());
    }
    // The container could not tell these from the others.
    let out = world.inn(&udp("198.51.100.1:1", "192.0.2.1:8081"));
    assert_eq!(out.fate, Fate::Dropped(DropReason::NatConflict));
}

#[test]
fn containers_reach_published_ports_their_own_included() {
    for (network, client) in [(DMZ, "10.2.0.9:5000"), (LAN, "10.1.0.3:5000"), (LAN, "10.1.0.2:5000")] {
        // The gateway's address is one of the host's, too.
        for host in ["192.0.2.1:8080", "10.1.0.1:8080"] {
            let mut world = World::new();
            world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
            let sent = syn(client, host);
            let came = world.out_of(network, &sent);
            assert_eq!(came.fate, Fate::Inside(LAN), "{client}");
            let came = came.packet();
            assert_eq!((came.source.ip(), came.target), (ip("10.1.0.1"), end("10.1.0.2:80")));
            let back = world.out(&came.reply());
            assert_eq!(back.fate, Fate::Inside(network));
            assert_eq!(back.packet(), sent.reply());
        }
    }
}

#[test]
fn a_flow_of_a_published_port_is_kept_by_either_side() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    let sent = udp("198.51.100.1:999", "192.0.2.1:8080");
    for _ in 0..10 {
        world.enters(&sent);
        world.seconds(100);
        world.poll();
    }
    assert_eq!(world.flows(), 1);
    let flow = world.nat.flows(world.now).next().expect("a flow");
    assert_eq!((flow.origin, flow.frames), (Origin::Published, [10, 0]));
}

#[test]
fn only_a_syn_opens_a_connection() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    let out = world.inn(&tcp("198.51.100.1:999", "192.0.2.1:8080", "A", 5, 6));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatNoFlow));
    assert_eq!(out.packet(), tcp("192.0.2.1:8080", "198.51.100.1:999", "R", 6, 0));
    assert_eq!(world.flows(), 0);
}

#[test]
fn unpublishing_ends_flows() {
    let mut world = World::new();
    let published = binding(Protocol::Udp);
    world.nat.add_binding(published).expect("a binding");
    world.enters(&udp("198.51.100.1:999", "192.0.2.1:8080"));
    world.out_of(DMZ, &udp("10.2.0.9:5000", "192.0.2.1:8080"));
    world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    assert_eq!(world.flows(), 3);
    assert!(world.nat.remove_binding(&published));
    assert!(!world.nat.remove_binding(&published));
    assert_eq!(world.flows(), 1);
    assert_eq!(world.inn(&udp("198.51.100.1:999", "192.0.2.1:8080")).fate, Fate::Host);
}

#[test]
fn connections_to_a_port_that_is_published_no_longer_are_reset() {
    let mut world = World::new();
    let published = binding(Protocol::Tcp);
    world.nat.add_binding(published).expect("a binding");
    let (client, host) = ("198.51.100.1:999", "192.0.2.1:8080");
    let came = world.enters(&tcp(client, host, "S", 100, 0));
    world.leaves(&tcp(&came.target.to_string(), client, "SA", 500, 101));
    world.enters(&tcp(client, host, "A", 101, 501));
    assert!(world.nat.remove_binding(&published));
    let made: Vec<(Fate, Packet)> = world.poll().iter().map(|out| (out.fate, out.packet())).collect();
    let expected = [(Fate::Outside, host, client, 501), (Fate::Inside(LAN), client, "10.1.0.2:80", 101)];
    let expected = expected.map(|(fate, from, to, sequence)| (fate, tcp(from, to, "R", sequence, 0)));
    for (fate, reset) in expected {
        let has = |(other, packet): &(Fate, Packet)| {
            (*other, packet.kind, packet.source, packet.target)
                == (fate, reset.kind, reset.source, reset.target)
        };
        assert!(made.iter().any(has), "{reset:?} in {made:?}");
    }
    assert_eq!((made.len(), world.nat.stats().reset), (2, 1));
}

#[test]
fn a_port_that_is_closed_keeps_its_flows_and_takes_no_others() {
    let mut world = World::new();
    let published = binding(Protocol::Tcp);
    world.nat.add_binding(published).expect("a binding");
    let (client, host) = ("198.51.100.1:999", "192.0.2.1:8080");
    world.enters(&tcp(client, host, "S", 100, 0));
    assert!(world.nat.is_in_use(&published));
    world.nat.set_closed(&published, true);
    world.leaves(&tcp("10.1.0.2:80", client, "SA", 500, 101));
    world.enters(&tcp(client, host, "A", 101, 501));
    let other = world.inn(&tcp("198.51.100.2:999", host, "S", 1, 0));
    assert_eq!(other.fate, Fate::Answered(DropReason::NatNoFlow), "reset");
    assert_eq!(world.flows(), 1);
    world.enters(&tcp(client, host, "FA", 101, 501));
    world.leaves(&tcp("10.1.0.2:80", client, "FA", 501, 102));
    assert!(!world.nat.is_in_use(&published), "all was said");
    world.nat.set_closed(&published, false);
    world.enters(&tcp("198.51.100.2:999", host, "S", 1, 0));
}

#[test]
fn a_binding_that_cannot_be_is_refused() {
    let good = binding(Protocol::Tcp);
    let any_v6 = Binding { host: ip("::"), container: ip("fd01::2"), gateway: ip("fd01::1"), ..good };
    let cases = [
        (Binding { ports: 0, ..good }, BindingError::Range),
        (Binding { host_port: 0, ..good }, BindingError::Range),
        (Binding { host_port: 65_000, ports: 1000, ..good }, BindingError::Range),
        (Binding { container_port: 65_535, ports: 2, ..good }, BindingError::Range),
        (Binding { container: ip("fd01::2"), ..good }, BindingError::Family),
        (Binding { protocol: Protocol::Icmp, ..good }, BindingError::Protocol),
        (Binding { protocol: Protocol::Sctp, ..good }, BindingError::SctpPorts),
        (Binding { host: ip("192.0.2.2"), ..good }, BindingError::Taken(good)),
        (Binding { host_port: 8000, ports: 81, ..good }, BindingError::Taken(good)),
    ];
    let mut world = World::new();
    world.nat.add_binding(good).expect("a binding");
    for (bad, error) in cases {
        assert_eq!(world.nat.add_binding(bad), Err(error));
    }
    assert_eq!(
        BindingError::Taken(good).to_string(),
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    );
    let fitting =
        [any_v6, Binding { protocol: Protocol::Udp, ..good }, Binding { host_port: 8000, ports: 80, ..good }];
    for other in fitting {
        world.nat.add_binding(other).expect("another port, protocol or family");
    }
    assert_eq!(world.nat.bindings().count(), 4);
}

#[test]
fn flows_of_a_published_port_are_charged_to_it() {
    let mut world = World::with(Limits { flows_per_sandbox: 2, ..World::limits() });
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    for port in 1..4 {
        world.enters(&udp(&format!("198.51.100.1:{port}"), "192.0.2.1:8080"));
    }
    let clients = world.nat.flows(world.now).map(|flow| (flow.sandbox, flow.initiator.source_port));
    assert_eq!(clients.collect::<std::collections::BTreeSet<_>>(), [(1, 2), (1, 3)].into());
    (1..3).for_each(|port| drop(world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53"))));
    assert_eq!(world.flows(), 4, "and what the container begins is charged to itself");
}

#[test]
fn a_flood_of_connections_makes_room_for_itself_only() {
    let limits = Limits { flows_per_sandbox: 10, ..World::limits() };
    let mut world = World::with(limits);
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    let other = world.out_of(DMZ, &syn("10.2.0.9:5000", "203.0.113.1:80")).packet();
    let came = world.enters(&syn("198.51.100.1:999", "192.0.2.1:8080"));
    world.leaves(&came.reply());
    world.enters(&tcp("198.51.100.1:999", "192.0.2.1:8080", "A", 101, 501));
    for port in 1..500 {
        world.enters(&syn(&format!("203.0.113.5:{port}"), "192.0.2.1:8080"));
    }
    assert_eq!((world.flows(), world.nat.stats().evicted), (11, 490));
    world.enters(&tcp("198.51.100.1:999", "192.0.2.1:8080", "A", 101, 501));
    assert_eq!(world.inn(&other.reply()).fate, Fate::Inside(DMZ));
}

#[test]
fn what_may_not_leave_its_network_reaches_no_other_by_way_of_the_host() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    world.leaving = Leaving::Refused;
    let out = world.out_of(DMZ, &syn("10.2.0.9:5000", "192.0.2.1:8080"));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatRefused));
    assert_eq!(world.out(&syn("10.1.0.3:5000", "192.0.2.1:8080")).fate, Fate::Inside(LAN));
}

#[test]
fn where_a_packet_leads_can_be_asked_before() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    let (lan, dmz) = (Realm::network(LAN), Realm::network(DMZ));
    let container = Destination { network: LAN, address: ip("10.1.0.2"), port: 80, established: false };
    let established = Destination { established: true, ..container };
    let sent = udp("198.51.100.1:999", "192.0.2.1:8080");
    assert_eq!(world.destination(Realm::OUTSIDE, &sent), Some(container));
    assert_eq!(world.destination(dmz, &udp("10.2.0.9:5", "192.0.2.1:8080")), Some(container));
    world.enters(&sent);
    assert_eq!(world.destination(Realm::OUTSIDE, &sent), Some(established));
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let mapped = Destination { port: 5000, ..container };
    let to_mapping = |from: &str| udp(from, &left.source.to_string());
    assert_eq!(world.destination(Realm::OUTSIDE, &to_mapping("203.0.113.1:1")), Some(mapped));
    assert_eq!(world.destination(lan, &udp("10.1.0.2:5000", "198.51.100.1:53")), None, "outside");
    assert_eq!(world.destination(lan, &udp("10.1.0.2:5000", "192.0.2.1:22")), None, "the host");
}

#[test]
fn a_port_that_is_published_takes_what_was_filtered_before() {
    let mut world = World::new();
    let theirs = world.leaves(&udp("10.1.0.3:6000", "198.51.100.1:53")).source;
    let sent = udp("10.1.0.4:5000", &theirs.to_string());
    assert_eq!(world.out(&sent).fate, Fate::Dropped(DropReason::NatFiltered));
    let published = Binding { host_port: theirs.port(), ..binding(Protocol::Udp) };
    world.nat.add_binding(published).expect("a binding");
    let came = world.out(&sent);
    assert_eq!((came.fate, came.packet().target), (Fate::Inside(LAN), end("10.1.0.2:80")));
    assert_eq!(world.out(&came.packet().reply()).packet(), sent.reply());
    assert_eq!(world.flows(), 2);
}

#[test]
fn a_container_without_a_way_back_sees_the_gateway() {
    let mut world = World::new();
    let hiding = Binding { keeps_client: false, ..binding(Protocol::Udp) };
    world.nat.add_binding(hiding).expect("a binding");
    world.leaving = Leaving::Refused;
    let mut seen = Vec::new();
    for client in ["198.51.100.1:999", "198.51.100.2:999", "198.51.100.1:998"] {
        let sent = udp(client, "192.0.2.1:8080");
        assert!(!world.has_flow_of(LAN, &udp("10.1.0.2:80", client)));
        let came = world.enters(&sent);
        assert_eq!((came.source.ip(), came.target), (ip("10.1.0.1"), end("10.1.0.2:80")));
        assert!((40_000..40_064).contains(&came.source.port()), "a port of ours");
        assert!(world.has_flow_of(LAN, &came.reply()));
        assert_eq!(world.enters(&sent), came, "the same flow");
        assert_eq!(world.leaves(&came.reply()), sent.reply());
        // Routers outside are nobody the container knows, and it is nobody whom the client knows.
        let told = world.enters(&error(3, 4, "203.0.113.7", "192.0.2.1", &sent.reply()));
        assert_eq!((told.source.ip(), told.quoted()), (ip("10.1.0.1"), (came.target, came.source)));
        let complaint = error(3, 3, "10.1.0.2", "10.1.0.1", &came);
        assert!(world.has_flow_of(LAN, &complaint));
        let left = world.leaves(&complaint);
        assert_eq!((left.source.ip(), left.quoted()), (ip("192.0.2.1"), (sent.source, sent.target)));
        seen.push(came.source);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    assert!(world.nat.remove_binding(&hiding));
    assert_eq!(world.flows(), 0);
}

#[test]
fn clients_that_are_hidden_share_the_ports_there_are() {
    let mut world = World::new();
    let hiding = Binding { keeps_client: false, ..binding(Protocol::Udp) };
    world.nat.add_binding(hiding).expect("a binding");
    let client = |number: u16| format!("198.51.100.{number}:999");
    (0..200).for_each(|number| drop(world.enters(&udp(&client(number), "192.0.2.1:8080"))));
    assert_eq!(world.flows(), 64, "64 ports lead to one port of a container, and who came last has one");
    // Clients that go on keep theirs.
    let keeps = (0..64).map(|number| {
        world.seconds(1);
        for _ in 0..2 {
            let came = world.inn(&udp(&client(number), "192.0.2.1:8080"));
            if came.fate == Fate::Inside(LAN) {
                world.leaves(&came.packet().reply());
            }
        }
    });
    assert_eq!(keeps.count(), 64);
    let firm = world.nat.flows(world.now).filter(|flow| flow.class.is_established()).count();
    assert_eq!(firm, 64);
    let late = world.inn(&udp(&client(250), "192.0.2.1:8080"));
    assert_eq!(late.fate, Fate::Dropped(DropReason::NatNoPort));
}
