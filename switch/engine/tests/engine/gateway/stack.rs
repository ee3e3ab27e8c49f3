//! A host with a stack of its own (smoltcp) that knows nothing but its MAC address, and DHCP messages one by
//! one.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::time::Instant as HostInstant;
use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, HardwareAddress, Icmpv4Packet,
    Icmpv4Repr, IpCidr,
};
use vswitch_frame::{Checksum, DropReason};

use super::craft::{self, Link};
use super::*;

/// The host's queues.
#[derive(Debug, Default)]
struct Nic {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let answer = work(&mut frame);
        self.0.push(frame);
        answer
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: HostInstant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: HostInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(MTU) + 14;
        capabilities
    }
}

/// The configuration that its DHCP client was told.
type Told = (IpCidr, Option<Ipv4Addr>, Vec<Ipv4Addr>);

fn told(event: Option<dhcpv4::Event<'_>>) -> Option<Told> {
    match event? {
        dhcpv4::Event::Configured(config) => {
            Some((IpCidr::Ipv4(config.address), config.router, config.dns_servers.iter().copied().collect()))
        }
        dhcpv4::Event::Deconfigured => None,
    }
}

#[test]
fn a_host_gets_its_address_and_pings_the_gateway() {
    let mut bench = Bench::new();
    let mut nic = Nic::default();
    let hardware = HardwareAddress::Ethernet(EthernetAddress(mac(ALICE).0));
    let mut interface = Interface::new(Config::new(hardware), &mut nic, HostInstant::ZERO);
    let mut sockets = SocketSet::new(Vec::new());
    let client = sockets.add(dhcpv4::Socket::new());
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 1024]);
    let pinger = sockets.add(icmp::Socket::new(buffer(), buffer()));
    sockets.get_mut::<icmp::Socket<'_>>(pinger).bind(icmp::Endpoint::Ident(1)).expect("free");
    let mut answers = Vec::new();
    let mut lease = None;
    for millis in (0..4000).step_by(10) {
        let now = HostInstant::from_millis(millis);
        interface.poll(now, &mut nic, &mut sockets);
        if let Some(found) = told(sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll()) {
            interface.update_ip_addrs(|own| own.push(found.0).expect("room"));
            let router = found.1.expect("a router");
            interface.routes_mut().add_default_ipv4_route(router).expect("room");
            let socket = sockets.get_mut::<icmp::Socket<'_>>(pinger);
            let echo = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 9, data: b"hello" };
            let room = socket.send(echo.buffer_len(), router.into()).expect("room");
            echo.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
            lease = Some(found);
        }
        let socket = sockets.get_mut::<icmp::Socket<'_>>(pinger);
        while let Ok((payload, from)) = socket.recv() {
            answers.push((from, craft::read_icmp(payload).buffer_len(), payload[0]));
        }
        for frame in std::mem::take(&mut nic.sent) {
            let fates = bench.send(ALICE, &frame);
            nic.received.extend(fates.forward.into_iter().map(|(port, frame)| {
                assert_eq!(port, ALICE);
                frame
            }));
        }
    }
    let gateway = Ipv4Addr::new(10, 1, 0, 1);
    let address = IpCidr::new(ip("10.1.0.5").into(), 24);
    assert_eq!(lease, Some((address, Some(gateway), vec![gateway])));
    assert_eq!(answers, [(gateway.into(), 13, 0)]);
}

/// A client's message to all, before it is Alice's own address that it sends from.
fn say(message: &DhcpRepr<'_>, source: &str) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).expect("room");
    let link = Link { source: mac(ALICE), target: Mac::BROADCAST };
    craft::udp(link, (source, 68), ("255.255.255.255", 67), &bytes)
}

fn message(message_type: DhcpMessageType) -> DhcpRepr<'static> {
    let none = Ipv4Addr::UNSPECIFIED;
    DhcpRepr {
        message_type,
        transaction_id: 0x0102_0304,
        secs: 3,
        client_hardware_address: EthernetAddress(mac(ALICE).0),
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
    }
}

/// The gateway's answer: to which MAC and IP address, and the message.
fn heard(frame: &[u8]) -> (Mac, IpAddr, Vec<u8>) {
    let (link, packet, datagram) = craft::read_ip(frame);
    assert_eq!((link.source, packet.source), (gateway_mac(RED), ip("10.1.0.1")));
    let udp = smoltcp::wire::UdpPacket::new_checked(datagram).expect("UDP");
    assert!(udp.verify_checksum(&packet.source.into(), &packet.target.into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
    (link.target, packet.target, udp.payload().to_vec())
}

fn option(message: &[u8], number: u8) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(message).expect("DHCP");
    packet.options().find(|option| option.kind == number).map(|option| option.data.to_vec())
}

#[test]
fn messages_and_their_answers() {
    use DhcpMessageType::{Ack, Discover, Inform, Nak, Offer, Request};
    let (own, other) = (Ipv4Addr::new(10, 1, 0, 5), Ipv4Addr::new(10, 1, 0, 9));
    let server = Some(Ipv4Addr::new(10, 1, 0, 1));
    let request = message(Request);
    let mut bench = Bench::new();
    for (what, said, source, kind, target) in [
        ("discover", message(Discover), "0.0.0.0", Offer, "10.1.0.5"),
        (
            "asks for another",
            DhcpRepr { requested_ip: Some(other), ..message(Discover) },
            "0.0.0.0",
            Offer,
            "10.1.0.5",
        ),
        (
            "hears only all",
            DhcpRepr { broadcast: true, ..message(Discover) },
            "0.0.0.0",
            Offer,
            "255.255.255.255",
        ),
        (
            "select",
            DhcpRepr { requested_ip: Some(own), server_identifier: server, ..request.clone() },
            "0.0.0.0",
            Ack,
            "10.1.0.5",
        ),
        ("restart", DhcpRepr { requested_ip: Some(own), ..request.clone() }, "0.0.0.0", Ack, "10.1.0.5"),
        ("renew", DhcpRepr { client_ip: own, ..request.clone() }, "10.1.0.5", Ack, "10.1.0.5"),
        (
            "wrong",
            DhcpRepr { requested_ip: Some(other), ..request.clone() },
            "0.0.0.0",
            Nak,
            "255.255.255.255",
        ),
        ("renew wrong", DhcpRepr { client_ip: other, ..request.clone() }, "10.1.0.9", Nak, "255.255.255.255"),
        ("nothing", request.clone(), "0.0.0.0", Nak, "255.255.255.255"),
        ("inform", DhcpRepr { client_ip: own, ..message(Inform) }, "10.1.0.5", Ack, "10.1.0.5"),
    ] {
        let answer = bench.send(ALICE, &say(&said, source)).only(ALICE);
        let (link, to, bytes) = heard(&answer);
        let packet = DhcpPacket::new_checked(&bytes[..]).expect("DHCP");
        let told = DhcpRepr::parse(&packet).expect("right");
        assert_eq!((told.message_type, to), (kind, ip(target)), "{what}");
        assert_eq!(link, if to == ip("255.255.255.255") { Mac::BROADCAST } else { mac(ALICE) }, "{what}");
        assert_eq!((told.transaction_id, told.server_identifier), (said.transaction_id, server), "{what}");
        assert_eq!(told.client_hardware_address, said.client_hardware_address, "{what}");
        let gives = kind != Nak && said.message_type != Inform;
        assert_eq!(told.your_ip, if gives { own } else { Ipv4Addr::UNSPECIFIED }, "{what}");
        assert_eq!(told.lease_duration, gives.then_some(3600), "{what}");
        let informs = kind != Nak;
        assert_eq!(told.subnet_mask, informs.then_some(Ipv4Addr::new(255, 255, 255, 0)), "{what}");
        assert_eq!(told.router, server.filter(|_| informs), "{what}");
        assert_eq!(option(&bytes, 6), informs.then(|| vec![10, 1, 0, 1]), "{what}");
        assert_eq!(option(&bytes, 26), informs.then(|| MTU.to_be_bytes().to_vec()), "{what}");
        assert_eq!(option(&bytes, 12), informs.then(|| b"web".to_vec()), "{what}");
    }
}

#[test]
fn messages_without_an_answer() {
    use DhcpMessageType::{Decline, Discover, Offer, Release, Request};
    let other_server = Some(Ipv4Addr::new(10, 1, 0, 9));
    let mut bench = Bench::new();
    bench.port(PortId(7), Port { station: Station::Unknown, ..container(RED, PortId(7)) });
    let discover = say(&message(Discover), "0.0.0.0");
    let mut corrupt = discover.clone();
    corrupt[100] ^= 1;
    let mut no_magic = message(Discover);
    no_magic.message_type = Offer;
    for (what, frame, reason) in [
        ("release", say(&message(Release), "10.1.0.5"), DropReason::Consumed),
        ("decline", say(&message(Decline), "0.0.0.0"), DropReason::Consumed),
        (
            "another server's",
            say(&DhcpRepr { server_identifier: other_server, ..message(Request) }, "0.0.0.0"),
            DropReason::NotServed,
        ),
        (
            "a relay's",
            say(&DhcpRepr { relay_agent_ip: Ipv4Addr::new(10, 1, 0, 9), ..message(Discover) }, "0.0.0.0"),
            DropReason::NotServed,
        ),
        ("a server's", say(&no_magic, "0.0.0.0"), DropReason::MalformedDhcp),
        ("corrupt", corrupt, DropReason::BadChecksum),
    ] {
        assert_eq!(bench.send(ALICE, &frame), dropped(reason, ALICE), "{what}");
    }
    let mut unknown = discover;
    unknown[11] = 7;
    assert_eq!(bench.send(PortId(7), &unknown), dropped(DropReason::NotServed, PortId(7)));
}

#[test]
fn a_renewal_goes_to_the_gateway_alone_and_may_have_its_checksum_left_to_us() {
    let mut bench = Bench::new();
    let own = Ipv4Addr::new(10, 1, 0, 5);
    let renew = DhcpRepr { client_ip: own, ..message(DhcpMessageType::Request) };
    let mut bytes = vec![0; renew.buffer_len()];
    renew.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).expect("room");
    let link = Link { source: mac(ALICE), target: gateway_mac(RED) };
    let mut frame = craft::udp(link, ("10.1.0.5", 68), ("10.1.0.1", 67), &bytes);
    frame[40..42].fill(7);
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::BadChecksum, ALICE));
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: None };
    let answer = bench.send_with(ALICE, &frame, offload).only(ALICE);
    assert_eq!(heard(&answer).1, ip("10.1.0.5"));
}

#[test]
fn the_clients_identifier_comes_back_whatever_it_is() {
    let mut bench = Bench::new();
    let id = [&[0xff][..], &[7; 18]].concat();
    let options = [DhcpOption { kind: 61, data: &id }];
    let discover = DhcpRepr { additional_options: &options, ..message(DhcpMessageType::Discover) };
    let answer = bench.send(ALICE, &say(&discover, "0.0.0.0")).only(ALICE);
    assert_eq!(option(&heard(&answer).2, 61), Some(id));
}
