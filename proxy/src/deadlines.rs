//! Deadlines: when to look at which relay, listener or session next.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_frame::Instant;

/// One deadline for each key, in order.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    order: BTreeSet<(Instant, K)>,
    of: BTreeMap<K, Instant>,
}

impl<K: Copy + Ord> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self { order: BTreeSet::new(), of: BTreeMap::new() }
    }

    /// Replaces the deadline of a key.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        if let Some(before) = self.of.remove(&key) {
            self.order.remove(&(before, key));
        }
        if let Some(at) = at {
            self.of.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// The next deadline.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The key whose deadline is the first.
    pub(crate) fn first_key(&self) -> Option<K> {
        self.order.first().map(|(_, key)| *key)
    }

    /// Takes the key whose deadline is the first and over.
    pub(crate) fn take(&mut self, now: Instant) -> Option<K> {
        let (_, key) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.set(key, None);
        Some(key)
    }
}
