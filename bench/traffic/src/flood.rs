//! Floods: a container that sends frames of one hostile kind, as many as its kernel takes.
//!
//! Frames go out by a packet socket with virtio-net headers, 64 a system call. Garbage is not only in frames:
//! the headers that describe their offloads are mutated, too. What its kernel refuses is left out and
//! counted.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_frame::checksum::Sum;
use vswitch_frame::offload::Offload;
use vswitch_frame::{Frame, Mac, Pool};
use vswitch_sys::clock;
use vswitch_sys::netlink::Netlink;
use vswitch_sys::packet::{self, BATCH, Framing, Vectors};
use vswitch_sys::tap;

use crate::pattern::mix;
use crate::source_end::source_end;

/// How long the gateway may take to say its MAC address.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kind of the frames of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flood {
    /// Frames of every protocol the switch looks into, some of their bytes and offloads random.
    Garbage,
    /// ARP requests for an address that nobody has.
    Broadcast,
    /// Frames from random MAC addresses to random MAC addresses.
    Macs,
    /// The first packets of flows through the gateway, each to another address and port.
    Flows,
}

impl Flood {
    /// Every kind.
    pub const ALL: [Flood; 4] = [Flood::Garbage, Flood::Broadcast, Flood::Macs, Flood::Flows];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Flood::Garbage => "garbage",
            Flood::Broadcast => "broadcast",
            Flood::Macs => "macs",
            Flood::Flows => "flows",
        }
    }
}

/// The frames that a flood was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloodReport {
    /// Frames that the sender's kernel took.
    pub sent: u64,
    /// Frames that it refused.
    pub refused: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Sends frames until the caller has heard enough. With `gateway` into `eth0`, which leads there; without
/// into a TAP that nobody reads, which costs the sender the same and nobody else anything. `ready` is called
/// before the first.
pub(crate) fn flood(
    kind: Flood,
    gateway: Option<Ipv4Addr>,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<FloodReport> {
    let mut netlink = Netlink::open()?;
    let mut unread = None;
    let interface = if gateway.is_some() { "eth0" } else { "unread" };
    if gateway.is_none() {
        unread = Some(tap::create(interface)?);
        netlink.set_up(interface)?;
    }
    let link = netlink.find_link(interface)?.ok_or(io::ErrorKind::NotFound)?;
    let addresses = netlink.addresses()?;
    let own = addresses.iter().find_map(|one| {
        let std::net::IpAddr::V4(address) = one.net.addr() else { return None };
        (one.index == link.index).then_some(address)
    });
    let mut writer = FrameWriter {
        kind,
        macs: [link.mac.unwrap_or(Mac::BROADCAST), gateway.map_or(Ok(Mac::BROADCAST), mac_of)?],
        addresses: [own.unwrap_or(Ipv4Addr::LOCALHOST), gateway.unwrap_or(Ipv4Addr::LOCALHOST)],
        number: 0,
        bytes: Vec::new(),
    };
    let socket = packet::open(interface)?;
    let (mut pool, mut vectors) = (Pool::new(BATCH), Vectors::new());
    let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
    let ended = source_end();
    ready()?;
    let start = clock::now();
    let (mut sent, mut refused) = (0, 0);
    while !ended() {
        frames.iter_mut().for_each(|frame| writer.write(frame));
        let mut rest = frames.as_mut_slice();
        while !rest.is_empty() {
            let went = vectors.send(socket.as_fd(), Framing::VnetHeader, rest);
            let (past, took) = went.map_or((1, 0), |went| (went, went as u64));
            (sent, refused) = (sent + took, refused + past as u64 - took);
            rest = &mut rest[past..];
        }
    }
    drop(unread);
    Ok(FloodReport { sent, refused, seconds: clock::now().since(start).as_secs_f64() })
}

/// The MAC address of a neighbour, as the kernel learns it from a datagram to there.
fn mac_of(address: Ipv4Addr) -> io::Result<Mac> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    socket.connect((address, 9))?;
    let deadline = clock::now() + PATIENCE;
    let name = address.to_string();
    while clock::now() < deadline {
        // Nothing answers but an error; the question is the kernel's.
        let _ = socket.send(&[0]);
        let _ = socket.recv(&mut [0]);
        let neighbours = std::fs::read_to_string("/proc/self/net/arp")?;
        let line = neighbours.lines().find(|line| line.split_whitespace().next() == Some(name.as_str()));
        let mac = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
        if let Some(mac) = mac.filter(|mac: &Mac| mac.0 != [0; 6]) {
            return Ok(mac);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not say its MAC address")))
}

/// A writer of the frames of a flood, one after another.
struct FrameWriter {
    kind: Flood,
    /// Own, and the gateway's.
    macs: [Mac; 2],
    addresses: [Ipv4Addr; 2],
    number: u64,
    bytes: Vec<u8>,
}

impl FrameWriter {
    /// Makes `frame` the next one.
    fn write(&mut self, frame: &mut Frame) {
        self.number += 1;
        let random = mix(self.number);
        self.bytes.clear();
        match self.kind {
            Flood::Broadcast => self.arp(Mac::BROADCAST),
            Flood::Macs => {
                let [other, one] = [random, mix(!random)].map(|number| {
                    let [_, b, c, d, e, f, ..] = number.to_le_bytes();
                    Mac([2, b, c, d, e, f])
                });
                self.packet(one, other, 17, random);
            }
            Flood::Flows => {
                let [own, gateway] = self.macs;
                self.packet(own, gateway, if random & 1 == 0 { 17 } else { 6 }, random);
            }
            Flood::Garbage => {
                self.template(random);
                for part in 0..random >> 61 {
                    let place = mix(random.wrapping_add(part));
                    let at = (place >> 8) as usize % self.bytes.len();
                    self.bytes[at] = place.to_le_bytes()[0];
                }
            }
        }
        frame.fill(&self.bytes);
        frame.offload = Offload::NONE;
        // Most headers at random are refused by the kernel, and cost the switch nothing.
        if self.kind == Flood::Garbage && random & 0xf0 == 0 {
            let header = mix(random).to_le_bytes();
            let mut offload = [0; 10];
            offload[0] = header[0] & 1;
            offload[1] = [0, 1, 3, 4, 5][usize::from(header[1]) % 5];
            offload[2] = 54;
            offload[4] = header[2];
            offload[6] = 34;
            offload[8] = if header[3] & 1 == 0 { 16 } else { 6 };
            frame.offload = Offload::decode(offload);
        }
    }

    /// A frame of some protocol that the switch looks into.
    fn template(&mut self, random: u64) {
        let [own, gateway] = self.macs;
        match random % 8 {
            0 => self.arp(Mac::BROADCAST),
            1 => self.arp(gateway),
            2 => self.packet(own, gateway, 1, random),
            3 => self.packet(own, gateway, 6, random),
            4 => self.packet(own, Mac::BROADCAST, 17, random),
            5 => self.packet(own, gateway, 17, random),
            6 => self.neighbour_solicitation(),
            _ => self.packet(own, Mac([2, 0, 0, 0, 0, 9]), 6, random),
        }
    }

    /// A request for an address that nobody has.
    fn arp(&mut self, to: Mac) {
        let (own, address) = (self.macs[0], self.addresses[0].octets());
        let mut absent = address;
        absent[2] = 254;
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let parts: [&[u8]; 8] = [&to.0, &own.0, &[8, 6], &head, &own.0, &address, &[0; 6], &absent];
        self.bytes.extend(parts.iter().copied().flatten());
    }

    /// An IPv4 packet of this protocol to an address and ports by `random`, of 198.18.0.0/15 (RFC 2544).
    fn packet(&mut self, own: Mac, to: Mac, protocol: u8, random: u64) {
        let [_, _, c, d, e, f, g, h] = random.to_le_bytes();
        let target = [198, 18 | (h & 1), c, d];
        let mut ip = [0x45, 0, 0, 60, e, f, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ip[12..16].copy_from_slice(&self.addresses[0].octets());
        ip[16..20].copy_from_slice(&target);
        let sum = Sum::ZERO.add_bytes(&ip).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut upper = [0; 40];
        match protocol {
            // An echo request, its checksum right.
            1 => upper[..4].copy_from_slice(&[8, 0, 0xf7, 0xff]),
            // A SYN, its checksum for the gateway to complain about or for the world.
            6 => {
                upper[..4].copy_from_slice(&[e | 4, f, g, h | 1]);
                upper[12..16].copy_from_slice(&[0x50, 2, 0xff, 0xff]);
                self.complete(&ip, &mut upper, 16);
            }
            _ => {
                upper[..6].copy_from_slice(&[e | 4, f, g, h | 1, 0, 40]);
                self.complete(&ip, &mut upper, 6);
            }
        }
        let parts: [&[u8]; 5] = [&to.0, &own.0, &[8, 0], &ip, &upper];
        self.bytes.extend(parts.iter().copied().flatten());
    }

    /// Writes the checksum of an upper header, which is at `at`.
    fn complete(&self, ip: &[u8; 20], upper: &mut [u8; 40], at: usize) {
        let pseudo = Sum::ZERO.add_bytes(&ip[12..20]).add_bytes(&[0, ip[9], 0, 40]);
        let sum = pseudo.add_bytes(upper).checksum();
        upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// A neighbour solicitation to everybody, cut short.
    fn neighbour_solicitation(&mut self) {
        let own = self.macs[0];
        let mut ip = [0; 64];
        ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 24, 58, 255]);
        ip[8..10].copy_from_slice(&[0xfe, 0x80]);
        ip[24..26].copy_from_slice(&[0xff, 2]);
        ip[39..41].copy_from_slice(&[1, 135]);
        let parts: [&[u8]; 4] = [&[0x33, 0x33, 0, 0, 0, 1], &own.0, &[0x86, 0xdd], &ip];
        self.bytes.extend(parts.iter().copied().flatten());
    }
}
