//! The room there is for records of each kind, and who has how much of it.
//!
//! # Theory of operation
//! A writer gets at most half of what the others leave. So one host that says more than its part, by mistake
//! or with intent, never keeps another from saying something. At its limit a writer's oldest tombstones give
//! way first.

use std::collections::{BTreeMap, BTreeSet};

use super::super::record::{HostId, Key, Record, Scope, Version};

/// The most hosts, twice.
pub const HOSTS_MAX: usize = 2 * 4_096;
/// The most networks, twice: one host may make them all.
pub const NETWORKS_MAX: usize = 2 * 4_096;
/// The most ranges of addresses.
pub const SPACES_MAX: usize = 131_072;
/// The most subscriptions.
pub const SUBSCRIPTIONS_MAX: usize = 131_072;
/// The most endpoints that one host knows of.
pub const ENDPOINTS_MAX: usize = 262_144;
/// The most records of kinds that are not known here.
pub const OTHERS_MAX: usize = 8_192;

/// A tombstone: its version, scope and position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grave(pub(super) Version, pub(super) Scope, pub(super) u64);

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    held: BTreeMap<(Kind, HostId), Held>,
    totals: BTreeMap<Kind, usize>,
}

/// The records of one kind that one writer has.
#[derive(Clone, Debug, Default)]
struct Held {
    records: usize,
    graves: BTreeSet<Grave>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Host,
    Network,
    Vni,
    Space,
    Subscription,
    Endpoint,
    Other,
}

impl Kind {
    fn of(key: &Key) -> Self {
        match key {
            Key::Host(_) => Self::Host,
            Key::Network(_) => Self::Network,
            Key::Vni(_) => Self::Vni,
            Key::Space(..) => Self::Space,
            Key::Subscription(..) => Self::Subscription,
            Key::Endpoint(..) => Self::Endpoint,
            Key::Other(_) => Self::Other,
        }
    }

    fn max(self) -> usize {
        match self {
            Self::Host => HOSTS_MAX,
            Self::Network | Self::Vni => NETWORKS_MAX,
            Self::Space => SPACES_MAX,
            Self::Subscription => SUBSCRIPTIONS_MAX,
            Self::Endpoint => ENDPOINTS_MAX,
            Self::Other => OTHERS_MAX,
        }
    }
}

fn holder(record: &Record) -> (Kind, HostId) {
    (Kind::of(&record.key), record.host)
}

impl Shares {
    /// Whether the writer of a record may have one more of its kind.
    pub(super) fn has_room(&self, record: &Record) -> bool {
        let holder = holder(record);
        let held = self.held.get(&holder).map_or(0, |held| held.records);
        let others = self.totals.get(&holder.0).map_or(0, |total| total - held);
        2 * (held + 1) <= holder.0.max().saturating_sub(others)
    }

    /// The oldest tombstone of the writer of a record, among those of its kind.
    pub(super) fn oldest_grave(&self, record: &Record) -> Option<Grave> {
        self.held.get(&holder(record))?.graves.first().copied()
    }

    /// Tombstones that are older than a version.
    pub(super) fn graves_before(&self, version: Version) -> Vec<Grave> {
        let graves = self.held.values().flat_map(|held| &held.graves);
        graves.filter(|grave| grave.0 < version).copied().collect()
    }

    /// A record has come.
    pub(super) fn enter(&mut self, record: &Record, (scope, position): (Scope, u64)) {
        let holder = holder(record);
        *self.totals.entry(holder.0).or_default() += 1;
        let held = self.held.entry(holder).or_default();
        held.records += 1;
        if record.value.is_none() {
            held.graves.insert(Grave(record.version, scope, position));
        }
    }

    /// A record has gone.
    pub(super) fn leave(&mut self, record: &Record, (scope, position): (Scope, u64)) {
        let holder = holder(record);
        if let Some(total) = self.totals.get_mut(&holder.0) {
            *total -= 1;
        }
        if let Some(held) = self.held.get_mut(&holder) {
            held.records -= 1;
            held.graves.remove(&Grave(record.version, scope, position));
            if held.records == 0 {
                self.held.remove(&holder);
            }
        }
    }
}
