//! The frame around a question, and around its answer.

use std::net::{IpAddr, Ipv4Addr};

use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_frame::headers::{ETHERNET_BYTES, Transport, be16, ethertype};
use vswitch_frame::{Checksum, DropReason, Frame, Mac};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const HOP_LIMIT: u8 = 64;
const DO_NOT_FRAGMENT: u16 = 0x4000;

/// The port questions are asked at.
pub const DNS_PORT: u16 = 53;

/// The two ends of a question: all that the answer's headers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The MAC address of the client.
    pub client_mac: Mac,
    /// The MAC address it asked.
    pub gateway_mac: Mac,
    /// The address of the client.
    pub client: IpAddr,
    /// The address it asked, which is of the same family.
    pub gateway: IpAddr,
    /// The client's port.
    pub client_port: u16,
}

impl Asked {
    /// The two ends of a question that came as a datagram to the DNS port. The frame must have been parsed.
    ///
    /// # Errors
    /// [`DropReason::NotServed`] when it is none, or has a VLAN tag; [`DropReason::BadChecksum`].
    pub fn parse(frame: &Frame) -> Result<Self, DropReason> {
        let (headers, bytes) = (&frame.headers, frame.bytes());
        let at = headers.transport_offset();
        let is_question = headers.network_offset() == ETHERNET_BYTES
            && headers.transport() == Transport::Udp
            && be16(bytes, at + 2) == DNS_PORT;
        if !is_question {
            return Err(DropReason::NotServed);
        }
        if !is_right(frame) {
            return Err(DropReason::BadChecksum);
        }
        let address = |v4: usize, v6: usize| {
            let packet = &bytes[ETHERNET_BYTES..];
            if headers.is_ipv4() {
                IpAddr::from(octets::<4>(packet, v4))
            } else {
                IpAddr::from(octets::<16>(packet, v6))
            }
        };
        Ok(Self {
            client_mac: frame.source(),
            gateway_mac: frame.destination(),
            client: address(12, 8),
            gateway: address(16, 24),
            client_port: be16(bytes, at),
        })
    }

    /// Bytes of headers in front of an answer.
    pub fn header_bytes(&self) -> usize {
        let network = if self.client.is_ipv4() { IPV4_HEADER } else { 40 };
        ETHERNET_BYTES + network + UDP_HEADER
    }

    /// Makes `frame` the answer with this message, at most 65,000 bytes long.
    pub fn answer(&self, message: &[u8], scratch: &mut Vec<u8>, frame: &mut Frame) {
        scratch.clear();
        scratch.extend(self.client_mac.0);
        scratch.extend(self.gateway_mac.0);
        let length = u16::try_from(UDP_HEADER + message.len()).unwrap_or(u16::MAX);
        match (self.gateway, self.client) {
            (IpAddr::V4(gateway), IpAddr::V4(client)) => {
                scratch.extend(ethertype::IPV4.to_be_bytes());
                scratch.extend(ipv4_header(gateway, client, length));
            }
            (gateway, client) => {
                scratch.extend(ethertype::IPV6.to_be_bytes());
                scratch.extend([0x60, 0, 0, 0]);
                scratch.extend(length.to_be_bytes());
                scratch.extend([UDP, HOP_LIMIT]);
                scratch.extend(octets_v6(gateway));
                scratch.extend(octets_v6(client));
            }
        }
        let at = scratch.len();
        scratch.extend(DNS_PORT.to_be_bytes());
        scratch.extend(self.client_port.to_be_bytes());
        scratch.extend(length.to_be_bytes());
        scratch.extend([0, 0]);
        scratch.extend(message);
        frame.fill(scratch);
        // Our own headers, which are right: there is nothing to refuse.
        if frame.parse().is_ok() {
            let bytes = frame.bytes_mut();
            let sum = Sum::ZERO.add_bytes(&bytes[at..]).folded();
            let sum =
                pseudo_header(frame.bytes(), &frame.headers, usize::from(length)).add_word(sum).checksum();
            let sum = if sum == 0 { 0xffff } else { sum };
            frame.bytes_mut()[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// The datagrams of a frame that [`Asked::parse`] took: several if it is a super-frame.
pub fn questions(frame: &Frame) -> std::slice::Chunks<'_, u8> {
    let at = frame.headers.transport_offset();
    let end = at + usize::from(be16(frame.bytes(), at + 4));
    let payload = &frame.bytes()[at + UDP_HEADER..end.max(at + UDP_HEADER)];
    let each = frame.offload.gso.map_or(payload.len(), |gso| usize::from(gso.size));
    payload.chunks(each.max(1))
}

/// Whether the checksums of an IP packet that carries UDP or TCP are right, as far as they are there: one
/// that is left to the receiver of an offload was never on a wire.
pub fn is_right(frame: &Frame) -> bool {
    let (headers, bytes) = (&frame.headers, frame.bytes());
    let (network, at, end) = (headers.network_offset(), headers.transport_offset(), headers.end_offset());
    if headers.is_ipv4() && Sum::ZERO.add_bytes(&bytes[network..at]).checksum() != 0 {
        return false;
    }
    match frame.offload.checksum {
        Checksum::Partial { .. } | Checksum::Valid => return true,
        Checksum::Complete => {}
    }
    let is_udp = headers.transport() == Transport::Udp;
    let end = if is_udp { at + usize::from(be16(bytes, at + 4)) } else { end };
    let without = is_udp && headers.is_ipv4() && be16(bytes, at + 6) == 0;
    without || pseudo_header(bytes, headers, end - at).add_bytes(&bytes[at..end]).checksum() == 0
}

/// The bytes of an address; the frame was parsed, so they are there.
fn octets<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(&packet[at..at + N]);
    octets
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, payload: u16) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&payload.saturating_add(20).to_be_bytes());
    header[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
    (header[8], header[9]) = (HOP_LIMIT, UDP);
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = Sum::ZERO.add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_frame::{Gso, GsoKind, Offload, Pool};

    const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn asked(client: &str, gateway: &str) -> Asked {
        let [client, gateway] = [client, gateway].map(|text| text.parse().expect("an address"));
        Asked { client_mac: CLIENT, gateway_mac: GATEWAY, client, gateway, client_port: 4000 }
    }

    /// Ports and addresses swapped: an answer becomes a question.
    fn turned(frame: &mut Frame) {
        let at = frame.headers.transport_offset();
        let is_ipv4 = frame.headers.is_ipv4();
        let bytes = frame.bytes_mut();
        let mut swap = |one: usize, other: usize, length: usize| {
            (0..length).for_each(|offset| bytes.swap(one + offset, other + offset));
        };
        swap(0, 6, 6);
        if is_ipv4 {
            swap(26, 30, 4)
        } else {
            swap(22, 38, 16)
        }
        swap(at, at + 2, 2);
    }

    #[test]
    fn an_answer_goes_back_the_way_the_question_came() {
        for (client, gateway) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
            let asked = asked(client, gateway);
            let mut frame = Pool::new(1).take().expect("a slot");
            for message in [&b"a message of odd size"[..], &[0; 1232], &[]] {
                asked.answer(message, &mut Vec::new(), &mut frame);
                assert_eq!(frame.len(), asked.header_bytes() + message.len());
                assert!(is_right(&frame));
                turned(&mut frame);
                assert_eq!(Asked::parse(&frame), Ok(asked));
                assert_eq!(questions(&frame).collect::<Vec<_>>().concat(), message);
            }
        }
    }

    #[test]
    fn what_is_wrong_or_not_for_the_resolver_is_not_taken() {
        // The byte that is changed: port, protocol, payload, time to live.
        let changes = [
            (DropReason::NotServed, 37),
            (DropReason::NotServed, 23),
            (DropReason::BadChecksum, 45),
            (DropReason::BadChecksum, 22),
        ];
        let mut frame = Pool::new(1).take().expect("a slot");
        for (reason, at) in changes {
            asked("10.0.0.2", "10.0.0.1").answer(b"question", &mut Vec::new(), &mut frame);
            turned(&mut frame);
            frame.bytes_mut()[at] ^= 1;
            frame.parse().expect("well-formed");
            assert_eq!(Asked::parse(&frame), Err(reason));
        }
    }

    #[test]
    fn a_super_frame_holds_several_questions() {
        let mut frame = Pool::new(1).take().expect("a slot");
        asked("10.0.0.2", "10.0.0.1").answer(b"onetwothree", &mut Vec::new(), &mut frame);
        turned(&mut frame);
        let gso = Gso { kind: GsoKind::Udp, size: 3, ecn: false, same_id: false };
        frame.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Some(gso) };
        frame.parse().expect("well-formed");
        assert!(Asked::parse(&frame).is_ok());
        assert_eq!(questions(&frame).collect::<Vec<_>>(), [&b"one"[..], b"two", b"thr", b"ee"]);
    }
}
