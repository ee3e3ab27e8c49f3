//! Checksums after a rewrite, without reading what was not rewritten (RFC 1624).
//!
//! # Theory of operation
//!
//! The Internet checksum is the complement of a one's-complement sum, so replacing a field `m` by `m'`
//! changes the sum by `~m + m'` (RFC 1624, equation 3), wherever in the packet the field is, as long as
//! it starts on a 16-bit boundary of what is summed. Changes add up: those of an address and a port make
//! one [`Change`].
//!
//! A wrong checksum stays wrong by as much: corruption is passed on to be found, never laundered.
//!
//! One's complement has two zeros. Over data that is not all zero, as no IP header and no pseudo-header
//! is, the result is the same as computing anew.
//!
//! | checksum | covers of a rewrite | apply with |
//! |---|---|---|
//! | IPv4 header | addresses | [`Change::apply`] |
//! | TCP; ICMPv6 | addresses (pseudo-header), ports or identifier | [`Change::apply`] |
//! | UDP | addresses (pseudo-header), ports | [`Change::apply_udp`] |
//! | ICMP | identifier; not the addresses | [`Change::apply`] |
//! | partial, left to an offload | addresses; not the ports | [`Change::apply_partial`] |

use vswitch_frame::checksum::Sum;

/// The change that rewriting fields makes to the sum of all that contains them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(Sum);

impl Change {
    /// Nothing was rewritten.
    pub const NONE: Change = Change(Sum::ZERO);

    /// A 16-bit field, such as a port, is rewritten.
    #[inline]
    #[must_use]
    pub fn field_16(self, old: u16, new: u16) -> Self {
        Self(self.0.add_word(!old).add_word(new))
    }

    /// A 32-bit field, such as an IPv4 address, is rewritten.
    #[inline]
    #[must_use]
    pub fn field_32(self, old: u32, new: u32) -> Self {
        Self(self.0.add_bytes(&(!old).to_be_bytes()).add_bytes(&new.to_be_bytes()))
    }

    /// A 128-bit field, such as an IPv6 address, is rewritten.
    #[inline]
    #[must_use]
    pub fn field_128(self, old: u128, new: u128) -> Self {
        Self(self.0.add_bytes(&(!old).to_be_bytes()).add_bytes(&new.to_be_bytes()))
    }

    /// Bytes of which the sum was this and is another now are rewritten. They begin at a whole word.
    #[must_use]
    pub fn sums(self, old: Sum, new: Sum) -> Self {
        self.field_16(old.folded(), new.folded())
    }

    /// Both changes.
    #[inline]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.add_word(other.0.folded()))
    }

    /// The checksum after the rewrite, of one that is always there.
    #[inline]
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        self.0.add_word(!checksum).checksum()
    }

    /// The UDP checksum after the rewrite. Zero means that the sender computed none, and stays; a
    /// checksum that comes out as zero is sent as its other form, all ones (RFC 768).
    #[inline]
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        match checksum {
            0 => 0,
            _ => match self.apply(checksum) {
                0 => 0xffff,
                computed => computed,
            },
        }
    }

    /// The content, after the rewrite, of a checksum field that holds the sum of the pseudo-header, for
    /// an offload to add the rest. Only changes of what is in the pseudo-header may be in it.
    #[inline]
    #[must_use]
    pub fn apply_partial(self, field: u16) -> u16 {
        self.0.add_word(field).folded()
    }
}
