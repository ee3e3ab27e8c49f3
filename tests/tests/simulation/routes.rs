//! Hosts on two networks that the switch routes between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::IpCidr;
use vswitch_engine::{Endpoint, Gateway, GatewayMode, Network, Station};
use vswitch_frame::{DropReason, Mac};

use crate::cable::Faults;
use crate::host::{Host, MTU};
use crate::world::World;

const MINUTES: Duration = Duration::from_secs(600);
const MEGABYTE: usize = 1 << 20;

/// The addresses of host `number` on a network, which is a subnet of each family.
fn addresses(network: u16, number: u16) -> [IpAddr; 2] {
    let [_, third] = network.to_be_bytes();
    let [_, fourth] = number.to_be_bytes();
    [Ipv4Addr::new(10, 0, third, fourth).into(), Ipv6Addr::new(0xfd00, 0, 0, network, 0, 0, 0, number).into()]
}

fn network(id: u16, mode: GatewayMode) -> Network {
    let nets = addresses(id, 0).map(|address| if address.is_ipv4() { (address, 24) } else { (address, 64) });
    let subnet = |(address, length)| ipnet::IpNet::new(address, length).expect("a subnet");
    let [_, low] = id.to_be_bytes();
    let gateway =
        Gateway { mac: Mac([2, 0xff, 0, 0, 0, low]), addresses: addresses(id, 1).to_vec(), isolated: false };
    let mtu = u16::try_from(MTU).expect("small");
    Network {
        subnets: nets.map(subnet).to_vec(),
        gateway: Some(gateway),
        mode_v4: mode,
        mode_v6: mode,
        mtu,
        ..Network::default()
    }
}

/// Two networks in a mode, with a host each, whose number is 2.
fn two_networks(mode: GatewayMode, faults: Faults) -> World {
    let mut world = World::of([network(0, mode), network(1, mode)], faults);
    for id in 0..2 {
        let own =
            addresses(id, 2).map(|address| if address.is_ipv4() { (address, 24) } else { (address, 64) });
        let cidrs = own.map(|(address, length)| IpCidr::new(address.into(), length));
        let [_, low] = id.to_be_bytes();
        let mut host = Host::new(10 + low, &cidrs);
        host.route_by(addresses(id, 1).map(Into::into));
        let nets = own.map(|(address, length)| ipnet::IpNet::new(address, length).expect("a net"));
        let endpoint =
            Endpoint { addresses: nets.to_vec(), gateways: addresses(id, 1).to_vec(), ..Endpoint::default() };
        world.plug_known(host, id, Station::Container(endpoint));
    }
    world
}

fn all_done(world: &World) -> bool {
    world.hosts.iter().all(Host::is_done)
}

#[test]
fn transfers_cross_networks_whole_over_bad_cables() {
    let bad = Faults { lost: 10, doubled: 10, swapped: 20, corrupted: 5 };
    for faults in [Faults::default(), bad] {
        for target in addresses(1, 2) {
            let mut world = two_networks(GatewayMode::NatUnprotected, faults);
            world.hosts[0].send(target.into(), 5, MEGABYTE);
            world.hosts[1].expect(5, MEGABYTE);
            assert!(world.run(MINUTES, all_done), "{target}");
            let (account, dropped) = (&world.account, world.account.dropped.iter().sum::<usize>());
            let fates = account.forwarded + account.flooded + dropped;
            assert_eq!(account.received + account.made, fates, "{account:?}");
            if faults.lost == 0 {
                assert!(
                    account.merged > account.forwarded / 4,
                    "routed segments are merged, too: {account:?}"
                );
            }
        }
    }
}

#[test]
fn networks_behind_translation_do_not_hear_of_each_other() {
    let mut world = two_networks(GatewayMode::Nat, Faults::default());
    for target in addresses(1, 2) {
        world.hosts[0].send(target.into(), 5, 10);
    }
    world.hosts[1].expect(5, 10);
    assert!(!world.run(Duration::from_secs(60), |world| world.hosts[1].is_done()));
    assert!(world.account.dropped[DropReason::Protected.index()] > 0);
    assert_eq!(world.account.made, 0, "and are not told why");
}
