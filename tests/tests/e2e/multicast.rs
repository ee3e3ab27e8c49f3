//! Multicast reaches the containers that have joined, and no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use vswitch_frame::DropReason;
use vswitch_tests::raw::Wire;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World};

use super::world;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x123);
const PORT: u16 = 5007;

/// A socket that has joined a group inside a container.
fn member(container: &Container, group: IpAddr) -> UdpSocket {
    container.inside(|| {
        let any: SocketAddr = if group.is_ipv4() { ([0; 4], PORT).into() } else { ([0; 16], PORT).into() };
        let socket = UdpSocket::bind(any).expect("bound");
        match group {
            IpAddr::V4(group) => {
                let IpAddr::V4(own) = container.ipv4() else { panic!("IPv4") };
                socket.join_multicast_v4(&group, &own).expect("joined");
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, index(container)).expect("joined"),
        }
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        socket
    })
}

/// The number of its first interface.
fn index(container: &Container) -> u32 {
    container.interface()["ifindex"].as_u64().and_then(|index| index.try_into().ok()).expect("a number")
}

/// A way to send to a group from inside a container.
fn sender(container: &Container, group: IpAddr) -> impl FnMut() {
    let scope = index(container);
    let (any, target): (&str, SocketAddr) = match group {
        IpAddr::V4(group) => ("0.0.0.0:0", (group, PORT).into()),
        IpAddr::V6(group) => ("[::]:0", std::net::SocketAddrV6::new(group, PORT, 0, scope).into()),
    };
    let socket = container.inside(|| UdpSocket::bind(any)).expect("bound");
    move || {
        socket.send_to(b"hello", target).expect("sent");
    }
}

/// Sends until the switch knows that nobody is a member but those who said so.
fn settle(world: &World, from: &Container, other_group: IpAddr) {
    let mut send = sender(from, other_group);
    wait::until("an empty group is nobody's", || {
        send();
        (world.drops(from, DropReason::NoMember) > 0).then_some(())
    });
}

fn group_is_for_members(group: IpAddr, nobodys: IpAddr) {
    let world = world();
    world.network("net1", &["--subnet", "10.69.0.0/24", "--subnet", "fd69::/64"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| world.sandbox(name, &["--network", "net1"]));
    let joined = member(&b, group);
    settle(&world, &a, nobodys);
    let mut at_c = Wire::open(&c.path, &c.ifname());
    let mut send = sender(&a, group);
    wait::until("a datagram at the member", || {
        send();
        joined.recv(&mut [0; 16]).ok()
    });
    let datagram = |frame: &[u8]| {
        let port = PORT.to_be_bytes();
        frame[0] & 1 == 1 && frame.windows(2).skip(34).take(24).any(|word| word == port)
    };
    assert_eq!(at_c.receive(datagram), None, "it is for members");
    let late = member(&c, group);
    wait::until("a datagram at the new member", || {
        send();
        late.recv(&mut [0; 16]).ok()
    });
    // When the last has left, nobody hears it.
    drop((joined, late));
    let before = world.drops(&a, DropReason::NoMember);
    wait::until("the group is empty", || {
        send();
        (world.drops(&a, DropReason::NoMember) > before).then_some(())
    });
}

#[test]
fn ipv4_multicast_is_for_members() {
    group_is_for_members(GROUP.into(), Ipv4Addr::new(239, 9, 9, 9).into());
}

#[test]
fn ipv6_multicast_is_for_members() {
    group_is_for_members(GROUP_V6.into(), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 9, 9).into());
}

#[test]
fn members_are_found_again_when_the_datapath_was_started_anew() {
    let world = world();
    world.network("net1", &["--subnet", "10.69.0.0/24"]);
    let [a, b] = ["a", "b"].map(|name| world.sandbox(name, &["--network", "net1"]));
    let joined = member(&b, GROUP.into());
    let restarts = world.restarts();
    vswitch_tests::world::send_signal(world.datapath_pid(), nix::sys::signal::Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    settle(&world, &a, Ipv4Addr::new(239, 9, 9, 9).into());
    let mut send = sender(&a, GROUP.into());
    wait::until("a datagram at the member", || {
        send();
        joined.recv(&mut [0; 16]).ok()
    });
}

#[test]
fn icc_off_holds_for_multicast() {
    let world = world();
    world.network("quiet", &["-o", "com.docker.network.bridge.enable_icc=false"]);
    let [a, b] = ["a", "b"].map(|name| world.sandbox(name, &["--network", "quiet"]));
    let joined = member(&b, GROUP.into());
    let mut at_b = Wire::open(&b.path, &b.ifname());
    settle(&world, &a, Ipv4Addr::new(239, 9, 9, 9).into());
    let before = world.drops(&a, DropReason::NoMember);
    let mut send = sender(&a, GROUP.into());
    let mut local = sender(&a, Ipv4Addr::new(224, 0, 0, 251).into());
    (0..3).for_each(|_| send());
    local();
    wait::until("the drops", || (world.drops(&a, DropReason::NoMember) >= before + 3).then_some(()));
    assert!(joined.recv(&mut [0; 16]).is_err());
    let mac = a.mac().0;
    assert_eq!(at_b.receive(|frame| frame[6..12] == mac), None);
}
