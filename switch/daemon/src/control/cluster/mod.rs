//! The cluster: hosts that share networks.
//!
//! # Theory of operation
//! Each host tells the others what is its own, as versioned [`record`]s: itself, its endpoints, the networks
//! that were made on it and the addresses it owns. What the others say arrives through the [`view`], whose
//! source is gossip, etcd, or a list of peers.
//!
//! | file | |
//! |---|---|
//! | [`record`] [`ledger`] | what is said, and of each thing the newest |
//! | [`view`] | how control and a source talk |
//! | [`gossip`] | a source without a server |
//! | [`etcd`] | a source whose records are kept in an etcd |
//! | [`space`] | whose the addresses of a network are |

pub mod etcd;
pub mod gossip;
pub mod ledger;
pub mod record;
pub mod space;
pub mod view;
