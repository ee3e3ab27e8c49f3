//! Frames for the tests of the engine, sketched by what the switch looks at.

use vswitch_engine::Verdicts;
use vswitch_frame::{Checksum, DropReason, Frame, Gso, GsoKind, Mac, Offload, Pool, PortId};

/// A frame as the switch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sketch {
    /// Its source address.
    pub(crate) source: Mac,
    /// Its destination address.
    pub(crate) destination: Mac,
    /// The content behind the addresses.
    pub(crate) load: Load,
}

/// The content behind a frame's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many bytes that are not IP.
    Plain(usize),
    /// UDP over IPv4: `payload` bytes to be split into datagrams of `size`.
    Super { payload: usize, size: u16 },
    /// IPv4 whose header is cut short.
    BrokenIpv4,
    /// Cut off within the Ethernet header.
    Runt,
}

impl Load {
    /// Bytes it takes up of an MTU, or why it is malformed.
    pub(crate) fn mtu_bytes(self) -> Result<usize, DropReason> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Super { payload, size } => Ok(20 + 8 + payload.min(usize::from(size))),
            Self::BrokenIpv4 => Err(DropReason::MalformedIpv4),
            Self::Runt => Err(DropReason::Runt),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Plain(bytes) => [&[0x88, 0xb5][..], &vec![0; bytes]].concat(),
            Self::Super { payload, .. } => super_datagram(payload),
            Self::BrokenIpv4 => vec![0x08, 0x00, 0x45, 0, 0],
            Self::Runt => vec![0x08],
        }
    }
}

/// EtherType, IPv4 and UDP headers, and a payload of zeros.
fn super_datagram(payload: usize) -> Vec<u8> {
    let [total, datagram] = [28 + payload, 8 + payload].map(|length| u16::try_from(length).expect("fits IP"));
    let mut bytes = vec![0x08, 0x00, 0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0, 7, 0, 7]);
    bytes.extend(datagram.to_be_bytes());
    bytes.extend(vec![0; 2 + payload]);
    bytes
}

impl Sketch {
    /// The bytes of the frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.destination.0[..], &self.source.0, &self.load.bytes()].concat()
    }

    /// The frame, in a slot of the pool.
    pub(crate) fn frame(&self, pool: &mut Pool) -> Frame {
        let mut frame = pool.take().expect("a free slot");
        frame.fill(&self.bytes());
        if let Load::Super { size, .. } = self.load {
            let gso = Gso { kind: GsoKind::Udp, size, ecn: false, same_id: false };
            frame.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Some(gso) };
        }
        frame
    }
}

/// Frames by fate, as bytes: what verdicts are compared as.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) forward: Vec<(PortId, Vec<u8>)>,
    pub(crate) flood: Vec<Vec<u8>>,
    pub(crate) drop: Vec<(DropReason, PortId, Vec<u8>)>,
}

/// Reads verdicts out, and gives their frames back to the pool.
pub(crate) fn drain(verdicts: &mut Verdicts, pool: &mut Pool) -> Fates {
    let mut bytes = |frame: Frame| {
        let bytes = frame.bytes().to_vec();
        pool.free(frame);
        bytes
    };
    Fates {
        forward: verdicts.forward.drain(..).map(|(port, frame)| (port, bytes(frame))).collect(),
        flood: verdicts.flood.drain(..).map(&mut bytes).collect(),
        drop: verdicts.drop.drain(..).map(|(reason, port, frame)| (reason, port, bytes(frame))).collect(),
    }
}
