//! The leases that this host writes with.
//!
//! # Theory of operation
//! A lease is asked for under a number that is known before: so one whose grant failed, or whose answer was
//! lost, is asked for again and is still one, and none is left behind.
//!
//! * The one of this host's life is drawn when the source starts, and again when it has ended.
//! * The one of tombstones is another one each hour, the same for every start of the host within it, and is
//!   asked for when there is a tombstone to write.

use std::time::Duration;

use vswitch_sys::wallclock;

use super::super::ledger::TOMBSTONE_AGE;
use super::super::record::{Fnv, HostId, Version};
use super::client::Client;
use super::error::{Error, Result};
use super::mirror::Leases;
use super::wire::LeaseId;

/// The time after which tombstones go with another lease, so that none goes much after its time.
const GRAVES: Duration = Duration::from_secs(3600);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The lease of this host's life that is asked for, and whether there is one.
    life: Option<(LeaseId, bool)>,
    /// The lease of tombstones that there is.
    graves: Option<LeaseId>,
}

impl Held {
    /// The lease of this host's life, if there is one.
    pub(super) fn life(&self) -> Option<LeaseId> {
        self.life.filter(|(_, is_granted)| *is_granted).map(|(life, _)| life)
    }

    /// The leases to write with, if this host may be heard.
    pub(super) fn leases(&self, me: HostId) -> Option<Leases> {
        let hour = wallclock::since_epoch().as_secs() / GRAVES.as_secs();
        Some(Leases { life: self.life()?, graves: number(me, "graves", hour) })
    }

    /// Notes that some lease is not there any more: the one of tombstones is asked for again, and the other
    /// looked after.
    pub(super) fn doubt(&mut self) {
        self.graves = None;
    }

    /// Keeps the lease of this host's life alive, or gets another one; says whether it is another one. No
    /// start of this host has had the version.
    pub(super) async fn keep(
        &mut self,
        client: &Client,
        me: HostId,
        seconds: u32,
        version: Version,
    ) -> Result<bool> {
        if let Some(life) = self.life() {
            match client.keep_alive(life).await {
                Err(Error::LeaseEnded) => *self = Self::default(),
                kept => return kept.map(|()| false),
            }
        }
        let life = self.life.map_or_else(|| number(me, "life", version.0), |(life, _)| life);
        self.life = Some((life, false));
        client.grant(life, seconds).await?;
        self.life = Some((life, true));
        Ok(true)
    }

    /// Has the lease of tombstones.
    pub(super) async fn dig(&mut self, client: &Client, graves: LeaseId) -> Result<()> {
        if self.graves != Some(graves) {
            let seconds = (TOMBSTONE_AGE + GRAVES).as_secs();
            client.grant(graves, u32::try_from(seconds).unwrap_or(u32::MAX)).await?;
            self.graves = Some(graves);
        }
        Ok(())
    }
}

/// The number of a lease that is for one thing of one host.
fn number(me: HostId, what: &str, which: u64) -> LeaseId {
    let hash = Fnv::default().feed(me.bytes()).feed(what.as_bytes()).feed(&which.to_be_bytes()).finish();
    // Zero and negative ones are not to be had.
    LeaseId((hash >> 1).max(1).try_into().unwrap_or(i64::MAX))
}
