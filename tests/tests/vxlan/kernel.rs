//! Real sockets and real stacks: a tunnel's other end is the kernel's own VXLAN, or ours.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::talk;
use vswitch_tests::tunnels::vni;

use crate::pump::{Done, Pump, Stop, address, underlay};

const V4: [&str; 2] = ["192.0.2.1/24", "192.0.2.2/24"];
const V6: [&str; 2] = ["2001:db8::1/64", "2001:db8::2/64"];
const OVERLAY: [[&str; 2]; 2] = [["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"]];
const MEGABYTE: usize = 1 << 20;

/// Pings, transfers and datagrams both ways, over both versions of IP.
fn talk_both_ways(one: &Path, other: &Path) {
    let [a, b] = OVERLAY.map(|addresses| addresses.map(address));
    for (initiator, target, to) in [(one, other, b), (other, one, a)] {
        for to in to {
            assert!(talk::answers(initiator, to), "{to} does not answer");
            talk::transfer(initiator, target, to, 4 * MEGABYTE);
            talk::datagrams(initiator, target, to, &[100; 40]);
            talk::datagrams(initiator, target, to, &[1, 1300, 0, 5, 1300, 1300, 9000]);
        }
    }
}

/// Makes the kernel's VXLAN device in a host, with the container's addresses.
fn kernel_end(host: &Namespace, [local, remote]: [IpAddr; 2]) {
    let [id, local, remote] = [vni().to_string(), local.to_string(), remote.to_string()];
    let device =
        ["link", "add", "vxlan0", "type", "vxlan", "id", &id, "dstport", "4789", "udpcsum", "dev", "wan0"];
    host.ip(&[&device[..], &["local", &local, "remote", &remote]].concat());
    for address in OVERLAY[1] {
        host.ip(&["address", "add", address, "dev", "vxlan0", "nodad"]);
    }
    host.ip(&["link", "set", "vxlan0", "up"]);
    // A veth pair hands over what a NIC would finish: inner checksums, and inner segments not yet cut.
    let off = ["-K", "wan0", "tx", "off", "tso", "off", "gso", "off"];
    host.inside(|| must(Command::new("ethtool").args(off)));
}

#[test]
fn the_kernels_vxlan_understands_us_and_we_understand_it() {
    for ends in [V4, V6] {
        let [host, peer] = underlay(ends);
        let container = Namespace::new();
        let [local, remote] = ends.map(address);
        kernel_end(&peer, [remote, local]);
        let pump = Pump::new(&host, &container, &OVERLAY[0], local, remote);
        let stop = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let pump = scope.spawn(|| pump.run(&stop));
            let guard = Stop(&stop);
            talk_both_ways(&container.path(), &peer.path());
            drop(guard);
            pump.join().expect("no panic")
        });
        assert!(done.batched > 0, "{done:?}");
    }
}

#[test]
fn two_of_ours_carry_everything_in_few_pieces() {
    for ends in [V4, V6] {
        let hosts = underlay(ends);
        let containers = [Namespace::new(), Namespace::new()];
        let [a, b] = ends.map(address);
        let one = Pump::new(&hosts[0], &containers[0], &OVERLAY[0], a, b);
        let other = Pump::new(&hosts[1], &containers[1], &OVERLAY[1], b, a);
        let stop = AtomicBool::new(false);
        let done: Vec<Done> = std::thread::scope(|scope| {
            let pumps = [one, other].map(|pump| scope.spawn(|| pump.run(&stop)));
            let guard = Stop(&stop);
            talk_both_ways(&containers[0].path(), &containers[1].path());
            drop(guard);
            pumps.map(|pump| pump.join().expect("no panic")).into()
        });
        assert!(done.iter().all(|done| done.batched > 0 && done.merged > 0), "{done:?}");
    }
}
