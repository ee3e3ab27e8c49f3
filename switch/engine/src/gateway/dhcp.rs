//! The DHCP server of a network (RFC 2131, RFC 2132): it tells each endpoint what control gave it.
//!
//! # Theory of operation
//!
//! There is nothing to lease and nothing to remember. Who asks is known by the port, whatever the client says
//! of itself, and has the addresses it has: the server offers the first IPv4 one, confirms it, or refuses any
//! other. Who is on a port of which nothing is known, or has no IPv4 address, is not answered.
//!
//! An answer goes to the port that asked and nowhere else, on the link to who asked; it is sent to all only
//! when the client wants it so, or must be told that it is wrong (RFC 2131, 4.1).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use smoltcp::wire::{DhcpOption, DhcpOptionWriter, DhcpPacket};
use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_frame::headers::{Transport, be16};
use vswitch_frame::{Checksum, DropReason, Frame, Mac};

use super::fate::Fate;
use super::packet::{self, Link, protocol, put16};
use super::site::Site;
use crate::network::{Endpoint, Station};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Seconds a client may go without asking again; it asks after half of them, and of anybody after 7/8.
const LEASE_SECS: u32 = 3600;
const RENEW_SECS: u32 = 1800;
const REBIND_SECS: u32 = 3150;

const UDP_BYTES: usize = 8;
/// Bytes before the options, the magic number included.
const FIXED: usize = 240;
/// Bytes of every message the server sends: the most a client has to take (RFC 2131, 2), and more than the
/// 300 that old clients insist on.
const MESSAGE: usize = 576 - packet::IPV4_BYTES - UDP_BYTES;

/// Option numbers (RFC 2132).
mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVER: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const RENEW: u8 = 58;
    pub(super) const REBIND: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
}

/// Message types (RFC 2132, 9.6).
mod kind {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const DECLINE: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const RELEASE: u8 = 7;
    pub(super) const INFORM: u8 = 8;
}

/// A client's message, as far as it matters.
struct Request {
    kind: u8,
    client_ip: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    /// Wants to be answered by broadcast.
    broadcast: bool,
    /// Came through a relay.
    relayed: bool,
}

/// The configuration that the client of a port is to have.
struct Lease<'a> {
    address: Ipv4Net,
    server: Ipv4Addr,
    router: Option<Ipv4Addr>,
    mtu: u16,
    host_name: &'a str,
}

/// Whether a frame is from a DHCP client to a server, on a network whose gateway has an IPv4 address.
pub(super) fn is_request(site: &Site<'_>, frame: &Frame) -> bool {
    let headers = &frame.headers;
    let ports = || &packet::payload(frame)[..4];
    headers.is_ipv4()
        && headers.transport() == Transport::Udp
        && (be16(ports(), 0), be16(ports(), 2)) == (CLIENT_PORT, SERVER_PORT)
        && site.gateway.addresses.iter().any(IpAddr::is_ipv4)
}

/// Turns a client's message into the answer.
pub(super) fn answer(site: &Site<'_>, frame: &mut Frame) -> Result<Fate, DropReason> {
    packet::check_ipv4_header(frame)?;
    check_udp(frame)?;
    let message = message(frame).ok_or(DropReason::MalformedDhcp)?;
    let request = Request::parse(message).ok_or(DropReason::MalformedDhcp)?;
    let lease = Lease::of(site).ok_or(DropReason::NotServed)?;
    if request.relayed || request.server.is_some_and(|server| server != lease.server) {
        return Err(DropReason::NotServed);
    }
    let kind = match request.kind {
        kind::DISCOVER => kind::OFFER,
        kind::REQUEST if request.wants() == Some(lease.address.addr()) => kind::ACK,
        kind::REQUEST => kind::NAK,
        kind::INFORM => kind::ACK,
        kind::RELEASE | kind::DECLINE => return Err(DropReason::Consumed),
        _ => return Err(DropReason::NotServed),
    };
    let mut datagram = [0; UDP_BYTES + MESSAGE];
    write(&mut datagram[UDP_BYTES..], message, kind, &request, &lease).ok_or(DropReason::MalformedDhcp)?;
    send(site, frame, kind, &request, &lease, &mut datagram);
    Ok(Fate::Answer)
}

/// Checks the UDP checksum, if there is one that is finished.
fn check_udp(frame: &Frame) -> Result<(), DropReason> {
    const CHECKSUM_AT: usize = 6;
    let datagram = packet::payload(frame);
    if frame.offload.gso.is_some() {
        return Err(DropReason::NotServed);
    }
    if frame.offload.checksum != Checksum::Complete || be16(datagram, CHECKSUM_AT) == 0 {
        return Ok(());
    }
    let length = usize::from(be16(datagram, 4));
    let sum = pseudo_header(frame.bytes(), &frame.headers, length).add_bytes(&datagram[..length]);
    if sum.checksum() == 0 { Ok(()) } else { Err(DropReason::BadChecksum) }
}

/// The DHCP message in a UDP datagram, whose length the parser has checked.
fn message(frame: &Frame) -> Option<&[u8]> {
    let datagram = packet::payload(frame);
    let length = usize::from(be16(datagram, 4));
    datagram.get(UDP_BYTES..length).filter(|message| message.len() >= FIXED)
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
}

fn options(message: &[u8]) -> Option<DhcpPacket<&[u8]>> {
    const MAGIC: u32 = 0x6382_5363;
    const REQUEST: u8 = 1;
    const ETHERNET: [u8; 2] = [1, 6];
    let packet = DhcpPacket::new_checked(message).ok()?;
    let right = message[0] == REQUEST && message[1..3] == ETHERNET && packet.magic_number() == MAGIC;
    right.then_some(packet)
}

impl Request {
    fn parse(message: &[u8]) -> Option<Self> {
        const BROADCAST: u8 = 0x80;
        let packet = options(message)?;
        let find = |number| packet.options().find(|option| option.kind == number).map(|option| option.data);
        let &[kind] = find(option::TYPE)? else { return None };
        Some(Self {
            kind,
            client_ip: packet::v4_at(message, 12),
            requested: find(option::REQUESTED).and_then(address),
            server: find(option::SERVER).and_then(address),
            broadcast: message[10] & BROADCAST != 0,
            relayed: !packet::v4_at(message, 24).is_unspecified(),
        })
    }

    /// The address it wants to have: named as an option when it has none yet, else the one it sends from
    /// (RFC 2131, 4.3.2).
    fn wants(&self) -> Option<Ipv4Addr> {
        self.requested.or(Some(self.client_ip).filter(|address| !address.is_unspecified()))
    }
}

impl<'a> Lease<'a> {
    /// The lease of a container with an IPv4 address, seen from its port.
    fn of(site: &Site<'a>) -> Option<Self> {
        let endpoint: &Endpoint = match &site.from.station {
            Station::Container(endpoint) => endpoint,
            Station::Unknown | Station::Host | Station::Tunnel => return None,
        };
        let address = endpoint.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })?;
        let v4 = |address: IpAddr| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        Some(Self {
            address,
            server: site.own_address(address.addr().into()).and_then(v4)?,
            router: endpoint.gateways.iter().copied().find_map(v4),
            mtu: site.network.mtu,
            host_name: endpoint.names.first().map(String::as_str).unwrap_or_default(),
        })
    }
}

/// Writes the answer; `None` when it does not fit.
fn write(reply: &mut [u8], asked: &[u8], kind: u8, request: &Request, lease: &Lease<'_>) -> Option<()> {
    const REPLY: u8 = 2;
    // The client's transaction, flags, relay and hardware address come back as they were (RFC 2131, table 3).
    reply[..FIXED].copy_from_slice(&asked[..FIXED]);
    reply[0] = REPLY;
    reply[3] = 0;
    reply[8..10].fill(0);
    reply[12..24].fill(0);
    reply[44..236].fill(0);
    if kind == kind::ACK {
        reply[12..16].copy_from_slice(&request.client_ip.octets());
    }
    let gives = kind != kind::NAK && request.kind != kind::INFORM;
    if gives {
        reply[16..20].copy_from_slice(&lease.address.addr().octets());
    }
    let mut options = DhcpOptionWriter::new(&mut reply[FIXED..]);
    let mut put = |kind, data: &[u8]| options.emit(DhcpOption { kind, data }).ok();
    put(option::TYPE, &[kind])?;
    put(option::SERVER, &lease.server.octets())?;
    // RFC 6842: the client's identifier, as it was.
    if let Some(id) = self::options(asked)?.options().find(|found| found.kind == option::CLIENT) {
        put(option::CLIENT, id.data)?;
    }
    if gives {
        put(option::LEASE, &LEASE_SECS.to_be_bytes())?;
        put(option::RENEW, &RENEW_SECS.to_be_bytes())?;
        put(option::REBIND, &REBIND_SECS.to_be_bytes())?;
    }
    if kind != kind::NAK {
        put(option::MASK, &lease.address.netmask().octets())?;
        put(option::BROADCAST, &lease.address.broadcast().octets())?;
        put(option::NAME_SERVER, &lease.server.octets())?;
        put(option::MTU, &lease.mtu.to_be_bytes())?;
        if let Some(router) = lease.router {
            put(option::ROUTER, &router.octets())?;
        }
        if !lease.host_name.is_empty() {
            // A name that does not fit is left out: the rest matters more.
            let _ = (lease.host_name.len() <= 63).then(|| put(option::HOST_NAME, lease.host_name.as_bytes()));
        }
    }
    options.end().ok()
}

/// Makes the frame the datagram that carries the answer.
fn send(
    site: &Site<'_>,
    frame: &mut Frame,
    kind: u8,
    request: &Request,
    lease: &Lease<'_>,
    datagram: &mut [u8],
) {
    let to_all = kind == kind::NAK || request.broadcast && request.client_ip.is_unspecified();
    let target = if to_all {
        Ipv4Addr::BROADCAST
    } else if request.client_ip.is_unspecified() {
        lease.address.addr()
    } else {
        request.client_ip
    };
    let mac = if to_all { Mac::BROADCAST } else { frame.source() };
    put16(datagram, 0, SERVER_PORT);
    put16(datagram, 2, CLIENT_PORT);
    let length = packet::length(datagram.len());
    put16(datagram, 4, length);
    let addresses = [lease.server, target];
    let sum = Sum::ZERO
        .add_bytes(&addresses[0].octets())
        .add_bytes(&addresses[1].octets())
        .add_word(u16::from(protocol::UDP))
        .add_word(length)
        .add_bytes(datagram);
    // A checksum that comes out as zero is sent as its other form (RFC 768).
    put16(datagram, 6, if sum.checksum() == 0 { 0xffff } else { sum.checksum() });
    let link = Link { source: site.gateway.mac, target: mac };
    packet::fill_ipv4(frame, link, addresses, protocol::UDP, datagram);
}
