//! Network address translation, pure.
//!
//! # Scope
//!
//! This crate knows how a translated packet keeps its checksums right: [`checksum`] turns the rewriting of
//! addresses and ports into one [`Change`](checksum::Change), which a flow can work out once and apply to
//! each of its packets. Which packets are translated, and into what, is not here.
#![forbid(unsafe_code)]

pub mod checksum;
