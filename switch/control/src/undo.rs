//! Going back to what was committed, when the disk did not take what came after it.
//!
//! # Theory of operation
//! What was not written down is undone as a restart undoes it: the state is the committed one again, and
//! datapath and kernel are made to [agree](crate::reconcile) with it. What both have is left untouched. In
//! the cluster nobody was told; so here, too, all records are again what they were.

use std::collections::BTreeMap;

use vswitch_cluster::record::Record;

use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::publish::published::Published;
use crate::state::State;

impl Control {
    /// Undoes everything that was not committed.
    pub(crate) async fn undo(&mut self) {
        let (state, unsent) = self.store.go_back();
        let unsaid = std::mem::replace(&mut self.state, state);
        self.unsay(unsent);
        self.resume_networks();
        let mut cleanup = Cleanup::default();
        let kept: Vec<Published> = published(&self.state).collect();
        let closed = published(&unsaid).filter(|one| !kept.contains(one));
        cleanup.close(closed.filter_map(|one| self.claims.release(&one)).collect());
        let before = std::mem::take(&mut self.remains);
        Cleanup::all_done().await;
        if let Err(error) = self.reconcile().await {
            tracing::error!("what is undone may not be as it was: {error}");
        }
        // Interfaces that are still there have new descriptors.
        let gone = before.into_iter().filter(|(port, _)| !self.remains.contains_key(port));
        gone.for_each(|(_, remains)| cleanup.destroy(remains));
        self.settle_cluster().await;
        self.owe();
        self.steer().await;
        cleanup.done().await;
    }

    /// Forgets records that the cluster was not told.
    fn unsay(&mut self, mut unsent: Vec<Record>) {
        let Some(cluster) = &mut self.cluster else { return };
        unsent.append(&mut cluster.outbox);
        let said: BTreeMap<&String, &Record> = self.state.said.iter().collect();
        for Record { key, .. } in unsent {
            cluster.put_back(&key, said.get(&key.to_string()).map(|record| (*record).clone()));
        }
        // Others' records were heard all the same.
        let heard: Vec<Record> =
            cluster.known.iter().filter(|record| cluster.is_kept(record)).cloned().collect();
        for record in heard {
            let key = record.key.to_string();
            if self.state.said.get(&key).is_none_or(|said| said.version != record.version) {
                self.state.said.insert(key, record);
            }
        }
    }
}

/// All that is published, or is still held for flows that it has.
fn published(state: &State) -> impl Iterator<Item = Published> {
    state.sandboxes.values().flat_map(|sandbox| sandbox.published.iter().chain(&sandbox.draining).copied())
}
