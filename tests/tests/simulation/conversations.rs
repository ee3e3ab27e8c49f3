//! Conversations of hosts on the simulated switch, and what they must not hear.

use std::time::Duration;

use smoltcp::wire::{IpAddress, IpCidr};
use vswitch_frame::{DropReason, GroupId, NetworkId};

use crate::cable::Faults;
use crate::host::Host;
use crate::world::World;

const MINUTES: Duration = Duration::from_secs(600);
const MEGABYTE: usize = 1 << 20;

fn ipv4(host: u8) -> IpAddress {
    IpAddress::v4(10, 0, 0, host)
}

fn ipv6(host: u8) -> IpAddress {
    IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host))
}

fn host(number: u8) -> Host {
    Host::new(number, &[IpCidr::new(ipv4(number), 24), IpCidr::new(ipv6(number), 64)])
}

/// A network of hosts 1, 2, 3 … with groups of their own.
fn network(hosts: u8, faults: Faults) -> World {
    let mut world = World::new(1, faults);
    for number in 1..=hosts {
        world.plug(host(number), 0, None);
    }
    world
}

fn all_done(world: &World) -> bool {
    world.hosts.iter().all(Host::is_done)
}

/// Received frames got exactly one verdict each.
fn assert_law(world: &World) {
    let account = &world.account;
    let dropped: usize = account.dropped.iter().sum();
    let fates = account.forwarded + account.flooded + dropped;
    assert_eq!(account.received + account.made, fates, "{account:?}");
}

#[test]
fn a_transfer_over_good_cables_is_merged_and_whole() {
    for address in [ipv4(2), ipv6(2)] {
        let mut world = network(2, Faults::default());
        world.hosts[0].send(address, 5, MEGABYTE);
        world.hosts[1].expect(5, MEGABYTE);
        assert!(world.run(MINUTES, all_done));
        assert_law(&world);
        assert_eq!(world.account.dropped, [0; DropReason::COUNT]);
        assert!(world.account.merged > world.account.forwarded / 4, "{:?}", world.account);
    }
}

#[test]
fn transfers_over_bad_cables_are_whole() {
    let faults = Faults { lost: 20, doubled: 10, swapped: 20, corrupted: 20 };
    let mut world = network(4, faults);
    for (from, to, address, seed) in
        [(0, 1, ipv4(2), 1), (2, 3, ipv6(4), 2), (3, 0, ipv4(1), 3), (1, 2, ipv6(3), 4)]
    {
        world.hosts[from].send(address, seed, 100_000);
        world.hosts[to].expect(seed, 100_000);
    }
    assert!(world.run(MINUTES, all_done), "{:?}", world.account);
    assert_law(&world);
}

#[test]
fn a_group_hears_nothing_of_its_own() {
    let mut world = World::new(1, Faults::default());
    let group = GroupId::containers_of(NetworkId(0));
    for number in 1..=2 {
        world.plug(host(number), 0, Some(group));
    }
    world.plug(host(3), 0, None);
    world.hosts[0].send(ipv4(3), 1, 1000);
    world.hosts[2].expect(1, 1000);
    assert!(world.run(MINUTES, all_done), "a port outside the group is reachable");
    world.hosts[0].send(ipv4(2), 1, 1000);
    world.hosts[1].expect(1, 1000);
    assert!(!world.run(MINUTES, |world| world.hosts[1].is_done()), "isolated hosts talked");
    assert_law(&world);
}

#[test]
fn networks_with_the_same_addresses_stay_apart() {
    let mut world = World::new(2, Faults::default());
    for network in 0..2 {
        world.plug(host(1), network, None);
        world.plug(host(2), network, None);
    }
    for (from, to, seed) in [(0, 1, 11), (2, 3, 22)] {
        world.hosts[from].send(ipv4(2), seed, 100_000);
        world.hosts[to].expect(seed, 100_000);
    }
    assert!(world.run(MINUTES, all_done), "a byte of the other network would be wrong");
    assert_eq!(world.account.dropped, [0; DropReason::COUNT]);
}

#[test]
fn silence_is_forgotten() {
    let mut world = network(2, Faults::default());
    world.hosts[0].send(ipv4(2), 1, 1000);
    world.hosts[1].expect(1, 1000);
    assert!(world.run(MINUTES, all_done));
    assert_eq!(world.switch.table(NetworkId(0)).count(), 2);
    let forgotten = |world: &World| world.switch.table(NetworkId(0)).count() == 0;
    assert!(world.run(2 * MINUTES, forgotten), "the table still knows hosts that are silent");
}
