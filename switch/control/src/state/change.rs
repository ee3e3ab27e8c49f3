//! A change of the state, as it is committed: records that changed, whole, and those that are gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vswitch_cluster::record::{HostId, Record};

use crate::state::records::Records;
use crate::state::rules::Rules;
use crate::state::{Identity, Network, Sandbox, State};

/// Records of one kind by name: each as it is now, `None` if it is gone.
type Changed<T> = BTreeMap<String, Option<T>>;

/// A change. Of two, one behind the other, one is made by [`Change::then`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    networks: Changed<Network>,
    sandboxes: Changed<Sandbox>,
    namespaces: Changed<Identity>,
    /// The whole table, if one of the rules changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Rules>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    said: Changed<Record>,
    /// This host's identifier, once it is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostId>,
}

impl Change {
    /// All that changed since it was last asked; `rules` and `host` are as they were then, and are now as
    /// they are.
    pub(super) fn take(state: &mut State, rules: &mut Rules, host: &mut Option<HostId>) -> Self {
        let change = Self {
            networks: taken(&mut state.networks),
            sandboxes: taken(&mut state.sandboxes),
            namespaces: taken(&mut state.namespaces),
            rules: (state.rules != *rules).then(|| state.rules.clone()),
            said: taken(&mut state.said),
            host: state.host.filter(|_| state.host != *host),
        };
        change.rules.iter().for_each(|now| rules.clone_from(now));
        *host = state.host;
        change
    }

    /// Everything there is, as the change that makes it of nothing.
    pub(super) fn whole(state: &State) -> Self {
        Self {
            networks: all(&state.networks),
            sandboxes: all(&state.sandboxes),
            namespaces: all(&state.namespaces),
            rules: Some(state.rules.clone()),
            said: all(&state.said),
            host: state.host,
        }
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        let records = self.networks.len() + self.sandboxes.len() + self.namespaces.len() + self.said.len();
        records == 0 && self.rules.is_none() && self.host.is_none()
    }

    /// This change and the one behind it, as one.
    pub(super) fn then(&mut self, next: Self) {
        self.networks.extend(next.networks);
        self.sandboxes.extend(next.sandboxes);
        self.namespaces.extend(next.namespaces);
        self.rules = next.rules.or(self.rules.take());
        self.said.extend(next.said);
        self.host = next.host.or(self.host);
    }

    /// Makes the change; what there is then counts as committed.
    pub(super) fn apply(self, state: &mut State) {
        apply(&mut state.networks, self.networks);
        apply(&mut state.sandboxes, self.sandboxes);
        apply(&mut state.namespaces, self.namespaces);
        apply(&mut state.said, self.said);
        self.rules.into_iter().for_each(|rules| state.rules = rules);
        state.host = self.host.or(state.host);
    }
}

fn taken<T: Clone>(records: &mut Records<T>) -> Changed<T> {
    let changes = records.changes().into_iter();
    let changed = changes.map(|(name, record)| (name.to_owned(), record.cloned())).collect();
    records.settle();
    changed
}

fn all<T: Clone>(records: &Records<T>) -> Changed<T> {
    records.iter().map(|(name, record)| (name.clone(), Some(record.clone()))).collect()
}

fn apply<T>(records: &mut Records<T>, changes: Changed<T>) {
    for (name, change) in changes {
        match change {
            Some(record) => records.insert(name, record),
            None => drop(records.remove(&name)),
        }
    }
    records.settle();
}
