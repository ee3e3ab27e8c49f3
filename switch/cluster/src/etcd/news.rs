//! News for control, gathered from the changes of one message. Pure.

use std::sync::Arc;

use super::super::record::{HostId, Record};
use super::super::view::{Event, Presence};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) hosts: Vec<(HostId, Presence)>,
}

impl News {
    /// The events, records first: a host that is up is known then, and so is what it has.
    pub(super) fn into_events(self) -> Vec<Event> {
        let records = (!self.records.is_empty()).then_some(Event::Records(self.records));
        let hosts = self.hosts.into_iter().map(|(host, presence)| Event::Host(host, presence));
        records.into_iter().chain(hosts).collect()
    }
}
