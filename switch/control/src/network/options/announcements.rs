//! Announcements of new endpoints.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::network::options::values::Values;

pub(super) const ADVERTISE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
pub(super) const ADVERTISE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";

/// Announcements by which a new endpoint tells its network which MAC address has its addresses: gratuitous
/// ARP and unsolicited neighbour advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcements {
    /// Their number, at most 3.
    pub count: u8,
    /// Milliseconds between two of them, 100 to 2,000.
    pub interval_ms: u16,
}

impl Default for Announcements {
    fn default() -> Self {
        Self { count: 3, interval_ms: 1000 }
    }
}

impl Announcements {
    pub(super) fn changed_by(self, values: Values<'_>) -> Result<Self> {
        let count = values.number(ADVERTISE_COUNT, 0, 3)?;
        let interval_ms = values.number(ADVERTISE_INTERVAL, 100, 2000)?;
        Ok(Self {
            count: count.and_then(|count| u8::try_from(count).ok()).unwrap_or(self.count),
            interval_ms: interval_ms.unwrap_or(self.interval_ms),
        })
    }
}
