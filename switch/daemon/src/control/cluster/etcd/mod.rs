//! The cluster's view kept in an etcd.
//!
//! | file | |
//! |---|---|
//! | [`address`] [`tls`] | where it is, and how it is known to be the right one |
//! | [`transport`] [`wire`] [`watch`] [`client`] | how it is talked to |
//! | [`error`] | what can be wrong |

pub mod address;
pub mod client;
pub mod error;
pub mod tls;
mod transport;
pub mod watch;
pub mod wire;
