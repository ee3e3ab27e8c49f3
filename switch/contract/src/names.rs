//! Questions for names, which the datapath passes on to control.
//!
//! One message on their channel is a number of [`NUMBER_BYTES`] bytes, big-endian, and a DNS message: the
//! question there, the answer, with the same number, back.

pub use vswitch_engine::dns::message;

/// Bytes of the number in front of a message.
pub const NUMBER_BYTES: usize = 8;
