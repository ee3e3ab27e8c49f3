//! The kinds of frame that micro-benchmarks use, defined once. Pure.

use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_frame::headers::Headers;
use vswitch_frame::{Checksum, Frame, Gso, GsoKind, Offload, Pool};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// TCP with timestamps at an MTU of 1500, as Linux sends it.
const MSS: u16 = 1448;
const TCP_CHECKSUM_AT: u16 = 16;

/// A kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// ARP, which is not IP.
    Arp,
    /// 18 bytes of UDP over IPv4: the smallest Ethernet frame.
    SmallUdp4,
    /// 18 bytes of UDP over IPv6.
    SmallUdp6,
    /// A full-sized TCP segment over IPv4, with timestamps.
    Tcp4,
    /// A full-sized TCP segment over IPv4, with timestamps, behind a VLAN tag.
    TaggedTcp4,
    /// A full-sized TCP segment over IPv6, with timestamps.
    Tcp6,
    /// A TCP super-frame of 44 full-sized segments over IPv4, its checksum partial.
    SuperTcp4,
}

impl Class {
    /// Every kind.
    pub const ALL: [Class; 7] = [
        Class::Arp,
        Class::SmallUdp4,
        Class::SmallUdp6,
        Class::Tcp4,
        Class::TaggedTcp4,
        Class::Tcp6,
        Class::SuperTcp4,
    ];

    /// Fills `frame` with one of this kind, parsed. `flow` tells flows apart; in TCP `number` counts the
    /// segments of a flow, so that consecutive numbers may be coalesced.
    pub fn fill(self, frame: &mut Frame, flow: u16, number: u32) {
        frame.fill(&self.bytes(flow, number));
        if self == Class::SuperTcp4 {
            let gso = Gso { kind: GsoKind::Tcp4, size: MSS, ecn: false, same_id: false };
            frame.offload = Offload {
                checksum: Checksum::Partial { start: 34, offset: TCP_CHECKSUM_AT },
                gso: Some(gso),
            };
        }
        let parsed = frame.parse();
        assert!(parsed.is_ok(), "{self:?} is well-formed: {parsed:?}");
    }

    /// A frame of this kind out of a pool, as by [`fill`](Self::fill); `None` when the pool is empty.
    pub fn frame(self, pool: &mut Pool, flow: u16, number: u32) -> Option<Frame> {
        let mut frame = pool.take()?;
        self.fill(&mut frame, flow, number);
        Some(frame)
    }

    /// The bytes of a frame of this kind, checksums right; that of a super-frame is partial.
    pub fn bytes(self, flow: u16, number: u32) -> Vec<u8> {
        match self {
            Class::Arp => [ethernet(0x0806, false), vec![0; 46]].concat(),
            Class::SmallUdp4 => ip4(UDP, number, &udp(flow, number), false),
            Class::SmallUdp6 => ip6(UDP, &udp(flow, number)),
            Class::Tcp4 => ip4(TCP, number, &tcp(flow, number, 1), false),
            Class::TaggedTcp4 => ip4(TCP, number, &tcp(flow, number, 1), true),
            Class::Tcp6 => ip6(TCP, &tcp(flow, number, 1)),
            Class::SuperTcp4 => {
                let mut frame = ip4(TCP, number, &tcp(flow, number, 44), false);
                let at = 34 + usize::from(TCP_CHECKSUM_AT);
                frame[at..at + 2].fill(0);
                let partial = headers(&frame).map_or(0, |headers| {
                    pseudo_header(&frame, &headers, frame.len() - headers.transport_offset()).folded()
                });
                frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
                frame
            }
        }
    }
}

fn headers(frame: &[u8]) -> Option<Headers> {
    Headers::parse(frame).ok()
}

fn ethernet(ether_type: u16, tagged: bool) -> Vec<u8> {
    let mut bytes = vec![0x02, 0x42, 0x0a, 0x09, 0, 3, 0x02, 0x42, 0x0a, 0x09, 0, 2];
    if tagged {
        bytes.extend([0x81, 0x00, 0x00, 0x0a]);
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes
}

fn udp(flow: u16, number: u32) -> Vec<u8> {
    let mut segment = [40_000 + flow, 9, 26, 0].map(u16::to_be_bytes).concat();
    segment.extend([0; 14]);
    segment.extend(number.to_be_bytes());
    segment
}

fn tcp(flow: u16, number: u32, segments: u16) -> Vec<u8> {
    let payload = MSS * segments;
    let mut segment = [40_000 + flow, 9].map(u16::to_be_bytes).concat();
    segment.extend(number.wrapping_mul(u32::from(payload)).to_be_bytes());
    segment.extend([0, 0, 0, 1]);
    // Eight words of header, ACK, a window, no checksum yet; then NOP, NOP, timestamps.
    segment.extend([0x80, 0x10, 0x01, 0xf6, 0, 0, 0, 0]);
    segment.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]);
    segment.extend((0..payload).map(|at| at.to_le_bytes()[0]));
    segment
}

fn ip4(protocol: u8, number: u32, segment: &[u8], tagged: bool) -> Vec<u8> {
    let mut frame = ethernet(0x0800, tagged);
    let at = frame.len();
    let [_, _, id @ ..] = number.to_be_bytes();
    frame.extend([0x45, 0]);
    frame.extend(length(20 + segment.len()));
    frame.extend(id);
    frame.extend([0x40, 0, 64, protocol, 0, 0, 10, 9, 0, 2, 10, 9, 0, 3]);
    let checksum = Sum::ZERO.add_bytes(&frame[at..]).checksum();
    frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(segment);
    finish(frame, protocol)
}

fn ip6(protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(0x86dd, false);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length(segment.len()));
    frame.extend([protocol, 64]);
    for last in [2, 3] {
        frame.extend([0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    frame.extend(segment);
    finish(frame, protocol)
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// Fills the transport checksum in.
fn finish(mut frame: Vec<u8>, protocol: u8) -> Vec<u8> {
    let Some(headers) = headers(&frame) else { return frame };
    let segment = headers.transport_offset();
    let at = segment + if protocol == UDP { 6 } else { usize::from(TCP_CHECKSUM_AT) };
    let sum = pseudo_header(&frame, &headers, frame.len() - segment);
    let checksum = sum.add_bytes(&frame[segment..]).checksum();
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_frame::headers::Transport;

    #[test]
    fn every_class_is_what_it_says() {
        let mut pool = Pool::new(1);
        for class in Class::ALL {
            let frame = class.frame(&mut pool, 3, 5).expect("room");
            let transport = match class {
                Class::Arp => Transport::Other,
                Class::SmallUdp4 | Class::SmallUdp6 => Transport::Udp,
                Class::Tcp4 | Class::TaggedTcp4 | Class::Tcp6 | Class::SuperTcp4 => Transport::Tcp,
            };
            assert_eq!(frame.headers.transport(), transport, "{class:?}");
            assert_eq!(frame.offload.gso.is_some(), class == Class::SuperTcp4);
            pool.free(frame);
        }
    }

    #[test]
    fn checksums_are_right() {
        for class in [Class::SmallUdp4, Class::SmallUdp6, Class::Tcp4, Class::TaggedTcp4, Class::Tcp6] {
            let bytes = class.bytes(1, 2);
            let headers = Headers::parse(&bytes).expect("well-formed");
            let segment = headers.transport_offset();
            let sum = pseudo_header(&bytes, &headers, bytes.len() - segment);
            assert_eq!(sum.add_bytes(&bytes[segment..]).checksum(), 0, "{class:?}");
        }
    }
}
