//! The gateway as containers see it.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use nix::sys::signal::Signal;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscRepr, UdpPacket,
    UdpRepr,
};
use vswitch_frame::{DropReason, Mac};
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::world::{Container, World, send_signal};
use vswitch_tests::{talk, wait};

use super::world;

const GATEWAY_V4: &str = "10.77.0.1";
const GATEWAY_V6: &str = "fd77::1";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A network with a subnet of each family.
fn both_families(world: &World) {
    world.network("net1", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
}

#[test]
fn the_gateway_answers_pings() {
    let world = world();
    both_families(&world);
    for port_type in ["tap", "veth"] {
        let container = world.attach(port_type, &["--network", "net1", "--port-type", port_type]);
        container.pings(address(GATEWAY_V4));
        container.pings(address(GATEWAY_V6));
    }
}

/// The complaint of `ping`, with these arguments, about an address that it cannot reach.
fn complaint(container: &Container, arguments: &[&str]) -> String {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-c", "1", "-w", "10"]).args(arguments);
    let output = container.inside(|| ping.output()).expect("ping is installed");
    assert!(!output.status.success(), "{arguments:?} answers");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn containers_are_told_what_cannot_be_reached() {
    let world = world();
    both_families(&world);
    let container = world.attach("a", &["--network", "net1"]);
    for (target, words) in
        [("192.0.2.1", "From 10.77.0.1 icmp_seq=1 Destination Net Unreachable"), ("2001:db8::1", "No route")]
    {
        let said = complaint(&container, &[target]);
        assert!(said.contains(words), "{target}: {said}");
    }
    assert!(world.drops(&container, DropReason::NoRoute) >= 2);
}

#[test]
fn networks_behind_translation_are_silent_to_each_other() {
    let world = world();
    both_families(&world);
    world.network("net2", &["--subnet", "10.78.0.0/24"]);
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net2"]);
    a.cannot_ping(b.ipv4());
    assert!(world.drops(&a, DropReason::Protected) >= 1);
    a.pings(address("10.78.0.1"));
}

#[test]
fn networks_without_protection_reach_each_other() {
    let world = world();
    let modes = ["4", "6"]
        .map(|family| format!("com.docker.network.bridge.gateway_mode_ipv{family}=nat-unprotected"));
    let [v4, v6] = &modes;
    let subnets = |v4: &'static str, v6: &'static str| ["--ipv6", "--subnet", v4, "--subnet", v6];
    let open = ["-o", v4, "-o", v6, "-o", "com.docker.network.bridge.enable_ip_masquerade=false"];
    world.network("net1", &[&subnets("10.77.0.0/24", "fd77::/64")[..], &open].concat());
    let narrow = ["-o", "com.docker.network.driver.mtu=1300"];
    world.network("net2", &[&subnets("10.78.0.0/24", "fd78::/64")[..], &open, &narrow].concat());
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net2"]);
    for target in [b.ipv4(), b.ipv6()] {
        a.pings(target);
        a.transfers(&b, target, 4 << 20);
        a.datagrams(&b, target, &[0, 1, 1200]);
        let text = target.to_string();
        let said = complaint(&a, &["-t", "1", &text]);
        assert!(said.contains("Time to live exceeded") || said.contains("Hop limit"), "{target}: {said}");
        let said = complaint(&a, &["-M", "do", "-s", "1400", &text]);
        assert!(said.contains("mtu = 1300") || said.contains("mtu=1300"), "{target}: {said}");
    }
    for target in [a.ipv4(), a.ipv6()] {
        b.pings(target);
    }
}

#[test]
fn any_address_of_the_host_is_the_host() {
    let world = world();
    both_families(&world);
    world.network("net2", &["--internal", "--subnet", "10.78.0.0/24"]);
    let container = world.attach("a", &["--network", "net1"]);
    let inside = world.attach("b", &["--network", "net2"]);
    inside.ip(&["route", "add", "default", "via", "10.78.0.1"]);
    for (own, length) in [("198.51.100.7", "32"), ("2001:db8:7::1", "128")] {
        assert!(!talk::answers(&container.path, address(own)), "{own} is nobody's");
        world.host().ip(&["address", "add", &format!("{own}/{length}"), "dev", "lo"]);
        wait::until("the host answers", || talk::answers(&container.path, address(own)).then_some(()));
        talk::transfer(&container.path, &world.host().path(), address(own), 1 << 20);
    }
    inside.cannot_ping(address("198.51.100.7"));
    inside.pings(address("10.78.0.1"));
    let restarts = world.restarts();
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    container.pings(address("198.51.100.7"));
}

/// A discovery, from the MAC address of a container.
fn discover(mac: Mac) -> Vec<u8> {
    let (none, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let message = DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: 77,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: none,
        your_ip: none,
        server_ip: none,
        router: None,
        subnet_mask: None,
        relay_agent_ip: none,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let (checksums, length) = (ChecksumCapabilities::default(), message.buffer_len());
    let ip = Ipv4Repr {
        src_addr: none,
        dst_addr: all,
        next_header: IpProtocol::Udp,
        payload_len: 8 + length,
        hop_limit: 64,
    };
    let mut packet = Ipv4Packet::new_unchecked(vec![0; 28 + length]);
    ip.emit(&mut packet, &checksums);
    let write = |room: &mut [u8]| message.emit(&mut DhcpPacket::new_unchecked(room)).expect("room");
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let ports = UdpRepr { src_port: 68, dst_port: 67 };
    ports.emit(&mut datagram, &none.into(), &all.into(), length, write, &checksums);
    ethernet([0xff; 6], mac.0, 0x0800, &packet.into_inner())
}

/// The DHCP message in a frame from a server.
fn offer(frame: &[u8]) -> Option<Vec<u8>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let ipv4_udp = frame.ethertype() == EthernetProtocol::Ipv4 && packet.next_header() == IpProtocol::Udp;
    let datagram = ipv4_udp.then(|| UdpPacket::new_checked(packet.payload()).ok())??;
    (datagram.src_port() == 67).then(|| datagram.payload().to_vec())
}

#[test]
fn a_container_is_offered_what_it_has() {
    let world = world();
    both_families(&world);
    let container = world.attach("a", &["--network", "net1"]);
    let other = world.attach("b", &["--network", "net1"]);
    let mut bystander = Wire::open(&other.path, &other.ifname());
    let mut wire = Wire::open(&container.path, &container.ifname());
    let message = wait::until("an offer", || {
        wire.send(&discover(container.mac()));
        wire.receive(|frame| offer(frame).is_some()).and_then(|frame| offer(&frame))
    });
    let packet = DhcpPacket::new_checked(&message[..]).expect("DHCP");
    let told = DhcpRepr::parse(&packet).expect("well-formed");
    assert_eq!(told.message_type, DhcpMessageType::Offer);
    assert_eq!(
        (IpAddr::from(told.your_ip), told.subnet_mask),
        (container.ipv4(), Some([255, 255, 255, 0].into()))
    );
    assert_eq!(told.router.map(IpAddr::from), Some(address(GATEWAY_V4)));
    let from_client = |frame: &[u8]| frame.get(36..38) == Some(&[0, 67]);
    assert_eq!(bystander.receive(from_client), None, "only the gateway hears clients");
}

/// The router advertisement in a frame.
fn advertisement(frame: &[u8]) -> Option<(Ipv6Address, u64)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
    let ip = Ipv6Repr::parse(&packet).ok()?;
    let icmp = (ip.next_header == IpProtocol::Icmpv6)
        .then(|| Icmpv6Packet::new_checked(packet.payload()).ok())??;
    let message =
        Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &icmp, &ChecksumCapabilities::default()).ok()?;
    if let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { router_lifetime, prefix_info, .. }) = message {
        return Some((prefix_info?.prefix, router_lifetime.secs()));
    }
    None
}

#[test]
fn who_asks_for_routers_hears_of_the_gateway() {
    let world = world();
    both_families(&world);
    let container = world.attach("a", &["--network", "net1"]);
    let mac = container.mac().0;
    let (source, target) = ("fd77::5".parse().expect("IPv6"), Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
    let ask = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    let length = ask.buffer_len();
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmpv6,
        payload_len: length,
        hop_limit: 255,
    };
    let mut packet = Ipv6Packet::new_unchecked(vec![0; 40 + length]);
    ip.emit(&mut packet);
    let mut message = Icmpv6Packet::new_unchecked(packet.payload_mut());
    ask.emit(&source, &target, &mut message, &ChecksumCapabilities::default());
    let question = ethernet([0x33, 0x33, 0, 0, 0, 2], mac, 0x86dd, &packet.into_inner());
    let mut wire = Wire::open(&container.path, &container.ifname());
    let (prefix, lifetime) = wait::until("an advertisement", || {
        wire.send(&question);
        wire.receive(|frame| advertisement(frame).is_some()).and_then(|frame| advertisement(&frame))
    });
    assert_eq!((IpAddr::from(prefix), lifetime), (address("fd77::"), 1800));
}
