//! The layout of a slot: headroom, then the largest frame.

/// Bytes before a received frame's first byte, for headers that a tunnel or the kernel wants in front.
///
/// Chosen so that the 10-byte virtio-net header starts on a cache line and an untagged IP header is
/// 4-byte aligned.
pub const HEADROOM: usize = 128 + 10;

/// The largest frame: a header of IPv6 and 65,535 bytes, behind an Ethernet header with two VLAN tags.
pub const FRAME_BYTES_MAX: usize = 65_535 + 40 + 14 + 8;

/// Bytes of one slot: 66 KiB and an odd number of cache lines, so that slots side by side start on different
/// cache sets.
pub const SLOT_BYTES: usize = 66 * 1024 + 64;

const _: () = assert!(HEADROOM + FRAME_BYTES_MAX <= SLOT_BYTES);

/// One slot's bytes. Lives as long as the process, like the pool's slab it is cut from.
pub(crate) type Slot = &'static mut [u8];
