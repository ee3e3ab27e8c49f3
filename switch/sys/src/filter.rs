//! Socket filters: programs of classic BPF that say which packets a socket gets.
//!
//! # Kernel facts
//! * A filter that returns 0 makes the packet as if it had never come to this socket; a listening TCP socket
//!   and a bound UDP socket then answer nothing, and neither does the stack on their behalf.
//! * `SO_ATTACH_FILTER` puts the new program in the place of the old one at once.
//! * A program sees a packet socket's frame from its Ethernet header on; a TCP or UDP socket's from the
//!   transport header on. Loads beyond the end return 0.
//! * Offsets at `SKF_AD_OFF` read what the kernel knows beside the bytes (`net/core/filter.c`).
//! * Conditional jumps reach 255 instructions, unconditional ones any number: each branch here is one of
//!   either.

#![expect(clippy::cast_sign_loss, reason = "SKF_AD_OFF is a negative offset in an unsigned field")]

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use vswitch_frame::headers::ethertype;

const AUXILIARY: u32 = libc::SKF_AD_OFF as u32;
/// `SKF_AD_PROTOCOL`: the type of what the frame carries.
const PROTOCOL: u32 = AUXILIARY;
/// `SKF_AD_PKTTYPE`: whom a frame is for.
const KIND: u32 = AUXILIARY + 4;
/// `SKF_AD_IFINDEX`: the interface it came in at.
const INTERFACE: u32 = AUXILIARY + 8;
/// `SKF_AD_VLAN_TAG_PRESENT`: whether a VLAN tag was taken off it.
const TAGGED: u32 = AUXILIARY + 48;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// Half word at X and an offset.
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_BYTE_INDEXED: u16 = 0x50;
/// X becomes the length of the IPv4 header at an offset.
const LOAD_IPV4_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Returned for a packet that is admitted: all its bytes.
const EVERYTHING: u32 = u32::MAX;

/// Addresses of the host that a program compares one by one; of more, every target may be one.
const OWN_MAX: usize = 128;
/// Ranges of ports a program compares one by one; more are merged into ranges that admit more.
const RANGES_MAX: usize = 128;

const ETHERNET: u32 = 14;
const TCP: u32 = 6;
const UDP: u32 = 17;
const SCTP: u32 = 132;

/// The frames on the uplink that are the switch's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The host's addresses at which ports are the switch's.
    pub own: Vec<IpAddr>,
    /// The switch's ports of TCP there.
    pub tcp: Vec<RangeInclusive<u16>>,
    /// The switch's ports of UDP there.
    pub udp: Vec<RangeInclusive<u16>>,
    /// Subnets whose addresses are the switch's with all that is sent to them.
    pub subnets: Vec<IpNet>,
    /// Whether the uplink has no link layer, so that frames begin with the IP header.
    pub bare: bool,
}

impl Admission {
    /// Addresses of the host that are compared one by one: none if there are too many for that.
    fn compared(&self) -> &[IpAddr] {
        if self.own.len() > OWN_MAX { &[] } else { &self.own }
    }

    /// Where the IP header begins.
    fn network(&self) -> u32 {
        if self.bare { 0 } else { ETHERNET }
    }
}

/// Families of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Both.
    pub const BOTH: Self = Self { v4: true, v6: true };
}

/// A program of classic BPF.
#[derive(Clone, PartialEq, Eq)]
pub struct Program(Vec<libc::sock_filter>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("instructions", &self.0.len()).finish()
    }
}

impl Program {
    /// Drops what came in at one of these interfaces, for a TCP or UDP socket: what is of these families.
    pub fn deaf_to(interfaces: &[u32], families: Families) -> Self {
        let mut code = Assembler::default();
        let [look, drop] = std::array::from_fn(|_| code.label());
        let types = [(families.v4, ethertype::IPV4), (families.v6, ethertype::IPV6)];
        code.load(LOAD_WORD, PROTOCOL);
        for (_, ether_type) in types.into_iter().filter(|(chosen, _)| *chosen) {
            code.branch(IF_EQUAL, u32::from(ether_type), look);
        }
        code.give(EVERYTHING);
        code.place(look);
        code.load(LOAD_WORD, INTERFACE);
        for index in interfaces {
            code.branch(IF_EQUAL, *index, drop);
        }
        code.give(EVERYTHING);
        code.place(drop);
        code.give(0);
        code.finish()
    }

    /// Admits what is the switch's, for a packet socket on the uplink; and what it must hear to find
    /// neighbours. It may admit more than that: who gets it must look.
    pub fn admitting(admission: &Admission) -> Self {
        let mut code = Assembler::default();
        let [drop, ipv4, ipv6, arp, tcp, udp, accept] = std::array::from_fn(|_| code.label());
        code.load(LOAD_BYTE, KIND);
        code.branch(IF_GREATER, 0, drop);
        code.load(LOAD_BYTE, TAGGED);
        code.branch(IF_GREATER, 0, drop);
        let (load, at) = if admission.bare { (LOAD_WORD, PROTOCOL) } else { (LOAD_HALF, 12) };
        code.load(load, at);
        code.branch(IF_EQUAL, u32::from(ethertype::IPV4), ipv4);
        code.branch(IF_EQUAL, u32::from(ethertype::IPV6), ipv6);
        code.branch(IF_EQUAL, u32::from(ethertype::ARP), arp);
        code.jump(drop);
        code.place(arp);
        code.only_if_one_of(LOAD_HALF, 20, &[2], accept);
        let transports = Transports { tcp, udp, accept };
        code.place(ipv4);
        code.ipv4(admission, transports);
        code.place(ipv6);
        code.ipv6(admission, transports);
        code.place(tcp);
        code.ports(&admission.tcp, accept);
        code.place(udp);
        code.ports(&admission.udp, accept);
        code.place(drop);
        code.give(0);
        code.place(accept);
        code.give(EVERYTHING);
        code.finish()
    }

    /// Makes this the filter of a socket.
    ///
    /// # Errors
    /// The error of `setsockopt`.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut code = self.0.clone();
        let length = u16::try_from(code.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
        let bytes = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
        // SAFETY: the option reads one `sock_fprog`, whose filter points at as many instructions as it says;
        // both outlive the call, which copies them.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                bytes,
            )
        };
        Errno::result(done).map(drop).map_err(io::Error::from)
    }
}

/// The label where a program goes on with a packet for one of the host's addresses.
#[derive(Clone, Copy)]
struct Transports {
    tcp: Label,
    udp: Label,
    accept: Label,
}

#[derive(Clone, Copy)]
struct Label(usize);

/// Instructions with labels for the targets of jumps.
#[derive(Default)]
struct Assembler {
    code: Vec<libc::sock_filter>,
    /// The place of each label.
    labels: Vec<usize>,
    /// Jumps, and the label each leads to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = self.code.len();
    }

    fn put(&mut self, code: u16, k: u32) {
        self.code.push(libc::sock_filter { code, jt: 0, jf: 0, k });
    }

    fn load(&mut self, code: u16, at: u32) {
        self.put(code, at);
    }

    fn give(&mut self, bytes: u32) {
        self.put(RETURN, bytes);
    }

    /// Goes to a label if the comparison holds. The label must come behind, as all jumps of classic BPF lead
    /// forward.
    fn branch(&mut self, comparison: u16, k: u32, label: Label) {
        self.code.push(libc::sock_filter { code: comparison, jt: 0, jf: 1, k });
        self.jump(label);
    }

    fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(JUMP, 0);
    }

    /// Loads and returns nothing unless it is one of these values.
    fn only_if_one_of(&mut self, load: u16, at: u32, values: &[u32], accept: Label) {
        self.load(load, at);
        for value in values {
            self.branch(IF_EQUAL, *value, accept);
        }
        self.give(0);
    }

    /// The end for a target that is neither compared with success nor reachable inside.
    fn unless_own(&mut self, admission: &Admission, own: Label) {
        if admission.own.len() > OWN_MAX {
            self.jump(own);
        } else {
            self.give(0);
        }
        self.place(own);
    }

    fn ipv4(&mut self, admission: &Admission, to: Transports) {
        const FRAGMENT: u32 = 0x3fff;
        let at = admission.network();
        let (own, icmp) = (self.label(), self.label());
        let v4 = |address: &IpAddr| if let IpAddr::V4(address) = address { Some(*address) } else { None };
        self.load(LOAD_WORD, at + 16);
        for address in admission.compared().iter().filter_map(v4) {
            self.branch(IF_EQUAL, address.into(), own);
        }
        for net in &admission.subnets {
            if let IpNet::V4(net) = net {
                self.load(LOAD_WORD, at + 16);
                self.put(AND, net.netmask().into());
                self.branch(IF_EQUAL, net.network().into(), to.accept);
            }
        }
        self.unless_own(admission, own);
        self.load(LOAD_HALF, at + 6);
        // Fragments have no ports, or their datagram's others have none.
        self.branch(IF_ANY_BIT, FRAGMENT, to.accept);
        self.put(LOAD_IPV4_LENGTH, at);
        self.load(LOAD_BYTE, at + 9);
        self.branch(IF_EQUAL, 1, icmp);
        self.branch(IF_EQUAL, SCTP, to.accept);
        let udp = self.label();
        self.branch(IF_EQUAL, UDP, udp);
        let tcp = self.label();
        self.branch(IF_EQUAL, TCP, tcp);
        self.give(0);
        for (label, next) in [(udp, to.udp), (tcp, to.tcp)] {
            self.place(label);
            self.load(LOAD_HALF_INDEXED, at + 2);
            self.jump(next);
        }
        self.place(icmp);
        // Answers to queries, and errors.
        self.only_if_one_of(LOAD_BYTE_INDEXED, at, &[0, 3, 4, 11, 12, 14], to.accept);
    }

    fn ipv6(&mut self, admission: &Admission, to: Transports) {
        let (at, payload) = (admission.network(), admission.network() + 40);
        let (own, icmp) = (self.label(), self.label());
        for address in admission.compared() {
            if let IpAddr::V6(address) = address {
                self.prefix(u128::from(*address), u128::MAX, at + 24, own);
            }
        }
        for net in &admission.subnets {
            if let IpNet::V6(net) = net {
                self.prefix(net.network().into(), net.netmask().into(), at + 24, to.accept);
            }
        }
        self.unless_own(admission, own);
        self.load(LOAD_BYTE, at + 6);
        self.branch(IF_EQUAL, 58, icmp);
        let (tcp, udp) = (self.label(), self.label());
        self.branch(IF_EQUAL, TCP, tcp);
        self.branch(IF_EQUAL, UDP, udp);
        // Fragments and whatever is behind other extension headers.
        self.jump(to.accept);
        for (label, next) in [(udp, to.udp), (tcp, to.tcp)] {
            self.place(label);
            self.load(LOAD_HALF, payload + 2);
            self.jump(next);
        }
        self.place(icmp);
        // Errors, echo replies and neighbour advertisements.
        self.only_if_one_of(LOAD_BYTE, payload, &[1, 2, 3, 4, 129, 136], to.accept);
    }

    /// Goes to a label if the 16 bytes at an offset are in a prefix.
    fn prefix(&mut self, network: u128, mask: u128, at: u32, then: Label) {
        let other = self.label();
        let words = |value: u128| {
            let bytes = value.to_be_bytes();
            [0, 4, 8, 12].map(|from| {
                u32::from_be_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]])
            })
        };
        for ((offset, word), mask) in [0, 4, 8, 12].into_iter().zip(words(network)).zip(words(mask)) {
            if mask == 0 {
                continue;
            }
            self.load(LOAD_WORD, at + offset);
            self.put(AND, mask);
            let same = self.label();
            self.branch(IF_EQUAL, word, same);
            self.jump(other);
            self.place(same);
        }
        self.jump(then);
        self.place(other);
    }

    /// Accepts the port that was loaded if it is in one of the ranges, and returns nothing otherwise.
    fn ports(&mut self, ranges: &[RangeInclusive<u16>], accept: Label) {
        for range in merged(ranges) {
            let above = self.label();
            self.branch(IF_GREATER, (*range.end()).into(), above);
            self.branch(IF_AT_LEAST, (*range.start()).into(), accept);
            self.place(above);
        }
        self.give(0);
    }

    fn finish(mut self) -> Program {
        for (at, label) in self.jumps {
            let forward = self.labels[label.0].checked_sub(at + 1).and_then(|by| u32::try_from(by).ok());
            debug_assert!(forward.is_some(), "the jump at {at} leads back");
            self.code[at].k = forward.unwrap_or(0);
        }
        Program(self.code)
    }
}

/// The ranges in order, those that touch as one; the nearest ones are merged while there are too many.
fn merged(ranges: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| *range.start());
    let mut gap = 1;
    loop {
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in &sorted {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + gap => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => merged.push(range.clone()),
            }
        }
        if merged.len() <= RANGES_MAX {
            return merged;
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    /// Runs a program on a frame for this host that has no tag.
    fn admits(program: &Program, frame: &[u8]) -> bool {
        let word = |at: usize, size: usize| -> Option<u32> {
            let bytes = frame.get(at..at + size)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let step = program.0[at];
            let k = step.k;
            let offset = usize::try_from(k).expect("fits");
            let indexed = offset + usize::try_from(x).expect("fits");
            let loaded = match step.code {
                LOAD_BYTE if k >= AUXILIARY => Some(0),
                LOAD_WORD => word(offset, 4),
                LOAD_HALF => word(offset, 2),
                LOAD_BYTE => word(offset, 1),
                LOAD_HALF_INDEXED => word(indexed, 2),
                LOAD_BYTE_INDEXED => word(indexed, 1),
                AND => Some(a & k),
                LOAD_IPV4_LENGTH => {
                    x = 4 * (word(offset, 1).expect("a header") & 0xf);
                    Some(a)
                }
                RETURN => return k != 0,
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return false };
            a = loaded;
            let holds = match step.code {
                IF_EQUAL => a == k,
                IF_GREATER => a > k,
                IF_AT_LEAST => a >= k,
                IF_ANY_BIT => a & k != 0,
                _ => false,
            };
            at += 1;
            match step.code {
                JUMP => at += offset,
                IF_EQUAL | IF_GREATER | IF_AT_LEAST | IF_ANY_BIT => {
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
                _ => {}
            }
        }
    }

    fn frame(target: &str, protocol: u8, start: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        match target.parse().expect("an address") {
            IpAddr::V4(target) => {
                bytes.extend([8, 0, 0x46]);
                bytes.extend([0; 8]);
                bytes.extend([protocol, 0, 0, 1, 2, 3, 4]);
                bytes.extend(target.octets());
                bytes.extend([0; 4]);
            }
            IpAddr::V6(target) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
                bytes.extend([0; 16]);
                bytes.extend(target.octets());
            }
        }
        bytes.extend(start);
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn what_is_the_switchs_is_admitted() {
        let admission = Admission {
            own: ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("an address")).to_vec(),
            tcp: vec![80..=80, 61_000..=61_511],
            udp: vec![53..=54],
            subnets: ["10.9.0.0/16", "fd09::/64"].map(|text| text.parse().expect("a net")).to_vec(),
            bare: false,
        };
        let program = Program::admitting(&admission);
        let port = |port: u16| [0, 9, port.to_be_bytes()[0], port.to_be_bytes()[1]];
        for target in ["192.0.2.1", "2001:db8::1"] {
            for (protocol, start, expected) in [
                (6, port(79), false),
                (6, port(80), true),
                (6, port(81), false),
                (6, port(60_999), false),
                (6, port(61_000), true),
                (6, port(61_511), true),
                (6, port(61_512), false),
                (17, port(80), false),
                (17, port(54), true),
                (132, port(7), true),
                (47, port(80), target.contains(':')),
            ] {
                let admitted = admits(&program, &frame(target, protocol, start));
                assert_eq!(admitted, expected, "{target} {protocol} {start:?}");
            }
        }
        let fragment = |mut bytes: Vec<u8>| {
            bytes[20] = 0x20;
            bytes
        };
        for (bytes, expected) in [
            (frame("192.0.2.1", 1, [0, 0, 0, 0]), true),
            (frame("192.0.2.1", 1, [8, 0, 0, 0]), false),
            (frame("192.0.2.1", 1, [3, 0, 0, 0]), true),
            (fragment(frame("192.0.2.1", 6, port(79))), true),
            (frame("192.0.2.2", 6, port(80)), false),
            (frame("10.9.3.4", 6, port(9)), true),
            (frame("10.8.3.4", 6, port(9)), false),
            (frame("2001:db8::1", 58, [129, 0, 0, 0]), true),
            (frame("2001:db8::1", 58, [128, 0, 0, 0]), false),
            (frame("2001:db8::1", 58, [136, 0, 0, 0]), true),
            (frame("2001:db8::2", 58, [129, 0, 0, 0]), false),
            (frame("fd09::77", 6, port(9)), true),
            (frame("fd09:0:0:1::77", 6, port(9)), false),
        ] {
            assert_eq!(admits(&program, &bytes), expected, "{bytes:?}");
        }
        let arp = |operation| [&[0; 12][..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &[0; 20]].concat();
        assert_eq!((admits(&program, &arp(1)), admits(&program, &arp(2))), (false, true));
    }

    #[test]
    fn the_kernel_takes_programs_for_many_addresses_which_admit_no_fewer() {
        let own: Vec<IpAddr> =
            (0..5000).map(|last| std::net::Ipv4Addr::from_bits(0x0a09_0000 + last).into()).collect();
        let program = Program::admitting(&Admission {
            own,
            tcp: vec![9..=9],
            udp: Vec::new(),
            subnets: vec!["fd09::/64".parse().expect("a net")],
            bare: false,
        });
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        program.attach(socket.as_fd()).expect("the kernel takes it");
        let port = |port: u8| [0, 1, 0, port];
        for (target, last, expected) in
            [("10.9.0.0", 9, true), ("10.9.19.135", 9, true), ("10.9.0.0", 8, false), ("fd09::7", 8, true)]
        {
            assert_eq!(admits(&program, &frame(target, 6, port(last))), expected, "{target} {last}");
        }
    }

    #[test]
    fn the_kernel_takes_programs_with_many_ports() {
        let ranges: Vec<_> = (0..3000u16).map(|number| 20 * number..=20 * number + 1).collect();
        let program = Program::admitting(&Admission {
            own: vec![[192, 0, 2, 1].into(); 20],
            tcp: ranges.clone(),
            udp: ranges,
            subnets: vec!["fd09::/64".parse().expect("a net"); 20],
            bare: false,
        });
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        program.attach(socket.as_fd()).expect("the kernel takes it");
        Program::deaf_to(&[1, 2], Families::BOTH).attach(socket.as_fd()).expect("the kernel takes it");
    }
}
