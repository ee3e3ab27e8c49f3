//! All that a host needs to take part, and that can be refused before it does.

use super::client::Client;
use super::identity::Memory;

/// See the [module](self).
#[derive(Debug)]
pub struct Prepared {
    pub(super) client: Client,
    pub(super) memory: Memory,
    /// The beginning of all keys of the cluster.
    pub(super) prefix: String,
    /// Seconds without a sign of life after which this host's records go.
    pub(super) lease_s: u32,
}
