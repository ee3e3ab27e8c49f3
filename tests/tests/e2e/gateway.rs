//! The gateway as containers see it.

use std::net::IpAddr;

use vswitch_frame::DropReason;

use super::world;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_gateway_answers_pings() {
    let world = world();
    world.network("net1", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    for port_type in ["tap", "veth"] {
        let container = world.attach(port_type, &["--network", "net1", "--port-type", port_type]);
        container.pings(address("10.77.0.1"));
        container.pings(address("fd77::1"));
    }
}

#[test]
fn nobody_at_an_address_beyond_is_said_so() {
    let world = world();
    world.network("net1", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let container = world.attach("a", &["--network", "net1"]);
    for beyond in ["192.0.2.1", "2001:db8::1"] {
        container.cannot_ping(address(beyond));
    }
    assert!(world.drops(&container, DropReason::NoRoute) >= 2);
}
