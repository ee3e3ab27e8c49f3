//! Frames made by the book, field by field, independently of the code under test.
//!
//! A [`Packet`] is a description; [`Packet::bytes`] writes it out and [`Packet::layout`] says where each
//! header then is. [`packets`] describes random ones for property tests.

use std::iter;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A TCP or UDP packet over IPv4 or IPv6 over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// VLAN tags from the outside in: tag protocol and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// 32-bit words of IPv4 options.
    pub ip_options: usize,
    /// IPv6 extension headers: number, and length in units of 8 bytes beyond the first.
    pub extensions: Vec<(u8, u8)>,
    /// Fragment offset in units of 8 bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// The two hosts, of a few, that it comes from and goes to, and the two ports.
    pub flow: (u8, u8, u16, u16),
    /// Its transport header.
    pub transport: Transport,
    /// The payload.
    pub payload: Vec<u8>,
    /// Zero bytes behind the packet, as short frames have.
    pub padding: usize,
}

/// A transport header, but for ports, lengths and checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp {
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// Flags, CWR first.
        flags: u8,
        /// Window.
        window: u16,
        /// 32-bit words of options.
        options: usize,
    },
}

/// Offsets of a packet's headers in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The start of the IP header.
    pub network: usize,
    /// The start of the transport header.
    pub transport: usize,
    /// The start of the payload.
    pub payload: usize,
    /// The end of the IP packet.
    pub end: usize,
}

/// The Internet checksum, word by word, as RFC 1071 defines it.
pub fn rfc1071(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

impl Packet {
    /// A UDP datagram over IPv4 without anything special.
    pub fn udp(payload: Vec<u8>) -> Self {
        Self {
            tags: vec![],
            ipv6: false,
            tos: 0,
            ttl: 64,
            id: 1,
            dont_fragment: true,
            ip_options: 0,
            extensions: vec![],
            fragment: None,
            flow: (1, 2, 1000, 2000),
            transport: Transport::Udp,
            payload,
            padding: 0,
        }
    }

    /// A TCP segment with the acknowledgement flag over IPv4 without anything special.
    pub fn tcp(sequence: u32, payload: Vec<u8>) -> Self {
        let transport = Transport::Tcp { sequence, acknowledgement: 9, flags: 0x10, window: 512, options: 3 };
        Self { transport, ..Self::udp(payload) }
    }

    /// The transport's protocol number.
    pub fn protocol(&self) -> u8 {
        if self.transport == Transport::Udp { 17 } else { 6 }
    }

    fn address(&self, host: u8) -> Vec<u8> {
        if self.ipv6 {
            [&[0xfd, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0, 0, host][..]].concat()
        } else {
            vec![10, 0, 0, host]
        }
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let fragment = self.fragment.filter(|_| self.ipv6).map(|_| (44, 0));
        let headers: Vec<(u8, u8)> = self.extensions.iter().copied().chain(fragment).collect();
        let next = headers.iter().skip(1).map(|(number, _)| *number).chain([self.protocol()]);
        let mut bytes = Vec::new();
        for ((number, units), next) in iter::zip(&headers, next) {
            let mut header = vec![0; (usize::from(*units) + 1) * 8];
            header[..2].copy_from_slice(&[next, *units]);
            if let (44, Some((offset, more))) = (*number, self.fragment) {
                header[1] = 0;
                header[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            }
            bytes.extend(header);
        }
        bytes
    }

    fn first_extension(&self) -> u8 {
        let fragment = self.fragment.map(|_| 44);
        self.extensions.first().map(|(number, _)| *number).or(fragment).unwrap_or(self.protocol())
    }

    /// The transport header and the payload, with the checksum.
    fn segment(&self) -> Vec<u8> {
        let (from, to, source_port, target_port) = self.flow;
        let mut segment = [source_port.to_be_bytes(), target_port.to_be_bytes()].concat();
        let checksum_at = match &self.transport {
            Transport::Udp => {
                segment.extend(u16::try_from(8 + self.payload.len()).expect("short").to_be_bytes());
                segment.extend([0, 0]);
                6
            }
            Transport::Tcp { sequence, acknowledgement, flags, window, options } => {
                segment.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
                segment.extend([u8::try_from(5 + options).expect("short") << 4, *flags]);
                segment.extend([window.to_be_bytes(), [0; 2], [0; 2]].concat());
                segment.extend(iter::repeat_n(1, options * 4));
                16
            }
        };
        segment.extend(&self.payload);
        let length = u32::try_from(segment.len()).expect("short").to_be_bytes();
        let number = [0, 0, 0, self.protocol()];
        let whole = [&self.address(from)[..], &self.address(to), &length, &number, &segment].concat();
        let checksum = match rfc1071(&whole) {
            0 if self.transport == Transport::Udp => 0xffff,
            checksum => checksum,
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    fn ipv4_header(&self, payload: usize) -> Vec<u8> {
        let length = 20 + self.ip_options * 4;
        let words = u8::try_from(length / 4).expect("short");
        let total = u16::try_from(length + payload).expect("short").to_be_bytes();
        let (offset, more) = self.fragment.unwrap_or_default();
        let fragment = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | offset;
        let mut header = [&[0x40 | words, self.tos][..], &total, &self.id.to_be_bytes()].concat();
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend([self.address(self.flow.0), self.address(self.flow.1)].concat());
        header.extend(iter::repeat_n(1, self.ip_options * 4));
        let checksum = rfc1071(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6_header(&self, payload: usize) -> Vec<u8> {
        let length = u16::try_from(payload).expect("short").to_be_bytes();
        let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0, length[0], length[1]];
        header.extend([self.first_extension(), self.ttl]);
        header.extend([self.address(self.flow.0), self.address(self.flow.1)].concat());
        header
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, self.flow.1, 2, 0, 0, 0, 0, self.flow.0];
        for (protocol, control) in &self.tags {
            frame.extend([protocol.to_be_bytes(), control.to_be_bytes()].concat());
        }
        let segment = self.segment();
        if self.ipv6 {
            let extensions = self.extension_bytes();
            frame.extend([0x86, 0xdd]);
            frame.extend(self.ipv6_header(extensions.len() + segment.len()));
            frame.extend(extensions);
        } else {
            frame.extend([0x08, 0x00]);
            frame.extend(self.ipv4_header(segment.len()));
        }
        frame.extend(segment);
        frame.extend(iter::repeat_n(0, self.padding));
        frame
    }

    /// The places of its headers.
    pub fn layout(&self) -> Layout {
        let network = 14 + 4 * self.tags.len();
        let ip = if self.ipv6 { 40 + self.extension_bytes().len() } else { 20 + self.ip_options * 4 };
        let header = match self.transport {
            Transport::Udp => 8,
            Transport::Tcp { options, .. } => 20 + options * 4,
        };
        let payload = network + ip + header;
        Layout { network, transport: network + ip, payload, end: payload + self.payload.len() }
    }
}

fn transports() -> impl Strategy<Value = Transport> {
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 0..=10usize).prop_map(
        |(sequence, acknowledgement, flags, window, options)| Transport::Tcp {
            sequence,
            acknowledgement,
            flags,
            window,
            options,
        },
    );
    prop_oneof![Just(Transport::Udp), tcp]
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    vec((select(vec![0x8100, 0x88a8]), any::<u16>()), 0..=2)
}

/// Random packets of every shape that a switch must understand.
pub fn packets() -> impl Strategy<Value = Packet> {
    let extensions = vec((select(vec![43, 60]), 0..=3u8), 0..=6);
    let fragment =
        prop_oneof![4 => Just(None), 2 => (select(vec![0, 1, 185, 0x1fff]), any::<bool>()).prop_map(Some)];
    let ip = (any::<bool>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>(), 0..=10usize);
    let rest = (transports(), vec(any::<u8>(), 0..200), 0..20usize);
    let flow = (1..=3u8, 1..=3u8, any::<u16>(), any::<u16>());
    (tags(), ip, extensions, fragment, flow, rest).prop_map(|(tags, ip, extensions, fragment, flow, rest)| {
        let (ipv6, tos, ttl, id, dont_fragment, ip_options) = ip;
        let (transport, payload, padding) = rest;
        Packet {
            tags,
            ipv6,
            tos,
            ttl,
            id,
            dont_fragment,
            ip_options,
            extensions,
            fragment,
            flow,
            transport,
            payload,
            padding,
        }
    })
}

/// Frames on the way to nonsense: packets with some bytes changed, then cut short or made longer.
pub fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let values = prop_oneof![0..=8u8, any::<u8>()];
    let changes = vec((any::<prop::sample::Index>(), values), 0..4);
    (packets(), changes, any::<prop::sample::Index>(), 0..8u8).prop_map(|(packet, changes, cut, how)| {
        let mut bytes = packet.bytes();
        let headers = packet.layout().payload;
        for (at, value) in changes {
            let at = at.index(headers);
            bytes[at] = value;
        }
        match how {
            0 => bytes.truncate(cut.index(bytes.len())),
            1 => bytes.truncate(cut.index(headers + 1)),
            2 => bytes.extend(iter::repeat_n(0xff, cut.index(100))),
            _ => {}
        }
        bytes
    })
}
