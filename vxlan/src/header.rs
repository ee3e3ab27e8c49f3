//! The header between the outer UDP header and the inner frame (RFC 7348, 5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Flag I says that the identifier is valid, and must be set. Everything reserved is sent as zero and
//! ignored on receipt, as the RFC wants it. A sender of an extension that gives those bits a meaning
//! (VXLAN-GPE, group policy) must be kept away by configuration, not here.

use std::fmt;

use crate::vni::Vni;

/// The UDP port assigned to VXLAN (RFC 7348, 8).
pub const UDP_PORT: u16 = 4789;

/// Length of the header.
pub const HEADER_BYTES: usize = 8;

/// The flag that says that there is an identifier.
const FLAG_I: u8 = 0x08;

/// A VXLAN header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network the inner frame belongs to.
    pub vni: Vni,
}

impl Header {
    /// Reads the header at the start of a UDP payload, and returns what is behind it: the inner frame,
    /// of which nothing has been looked at.
    ///
    /// # Errors
    /// There is no whole header, or it names no network.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (header, inner) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed::Short)?;
        let [flags, _, _, _, high, middle, low, _] = *header;
        if flags & FLAG_I == 0 {
            return Err(Malformed::NoIdentifier);
        }
        Ok((Self { vni: Vni::from_bytes([high, middle, low]) }, inner))
    }

    /// The header as it goes on the wire, in front of the inner frame.
    #[inline]
    pub fn emit(self) -> [u8; HEADER_BYTES] {
        let [high, middle, low] = self.vni.to_bytes();
        [FLAG_I, 0, 0, 0, high, middle, low, 0]
    }
}

/// Why a UDP payload is no VXLAN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than the header.
    Short,
    /// Flag I is not set.
    NoIdentifier,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than a VXLAN header",
            Self::NoIdentifier => "a VXLAN header without a network identifier: its I flag is not set",
        })
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identifier_survives_the_wire() {
        for number in 0..=Vni::MAX.get() {
            let header = Header { vni: Vni::new(number).expect("24 bits") };
            assert_eq!(Header::parse(&header.emit()), Ok((header, &[][..])));
        }
    }

    #[test]
    fn bytes_are_those_of_the_rfc() {
        let header = Header { vni: Vni::new(0x12_3456).expect("24 bits") };
        assert_eq!(header.emit(), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(Header::parse(b"\x08\0\0\0\x12\x34\x56\0inner"), Ok((header, &b"inner"[..])));
    }

    #[test]
    fn only_flag_and_identifier_matter_on_receipt() {
        let sent = Header { vni: Vni::new(5).expect("24 bits") };
        for bit in 0..64 {
            let received = (u64::from_be_bytes(sent.emit()) ^ 1 << bit).to_be_bytes();
            let result = Header::parse(&received).map(|(header, _)| header);
            match 63 - bit {
                4 => assert_eq!(result, Err(Malformed::NoIdentifier)),
                32..56 => assert_ne!(result, Ok(sent), "bit {bit} is of the identifier"),
                _ => assert_eq!(result, Ok(sent), "bit {bit} is reserved"),
            }
        }
    }

    #[test]
    fn a_cut_header_is_none() {
        let bytes = Header { vni: Vni::MAX }.emit();
        for length in 0..HEADER_BYTES {
            assert_eq!(Header::parse(&bytes[..length]), Err(Malformed::Short));
        }
    }
}
