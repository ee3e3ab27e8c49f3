//! Changes of facts: in the table here, and in the datapath.

use std::io;
use std::ops::RangeInclusive;
use std::sync::PoisonError;

use vswitch_contract::fact::{Change, Facts, Held, Key};
use vswitch_contract::parts::TEXT_BYTES_MAX;
use vswitch_frame::PortId;

use super::shared::{Dropped, Link, LinkError, State};
use super::talk::tell;
use super::told;

impl Link {
    /// Sets a fact; a fact that is there keeps its descriptors, if the new one has none of its own.
    ///
    /// # Errors
    /// [`LinkError`]; then all is as it was.
    pub async fn set(&self, fact: impl Into<Held>) -> Result<(), LinkError> {
        self.change(vec![Change::Set(fact.into())]).await
    }

    /// Takes a fact back.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove(&self, key: Key) -> Result<(), LinkError> {
        self.change(vec![Change::Remove(key)]).await
    }

    /// Takes back every fact whose key is asked for, the last one first.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have them.
    pub async fn remove_where(&self, asked_for: impl Fn(&Key) -> bool) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let keys = state.facts.range(..).rev().map(|held| held.fact.key()).filter(asked_for);
        let changes = keys.map(Change::Remove).collect();
        self.change_in(&mut state, changes).await
    }

    /// Changes facts, all of them or none.
    ///
    /// # Errors
    /// [`LinkError`]; then all is as it was, but that facts taken back stay so where the datapath does not
    /// run.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        self.change_in(&mut state, changes).await
    }

    async fn change_in(&self, state: &mut State, changes: Vec<Change>) -> Result<(), LinkError> {
        let Done { keys, mut undo, refused } = self.carry_out(state, changes).await?;
        let Some((_, why)) = refused.first() else { return Ok(()) };
        for (place, _) in &refused {
            let undo = std::mem::replace(&mut undo[*place], Change::Remove(Key::Poll));
            state.facts.change(undo);
        }
        let is_done = |place: &usize| !refused.iter().any(|(refused, _)| refused == place);
        let undo: Vec<Change> =
            (0..undo.len()).rev().filter(is_done).map(|place| undo[place].clone()).collect();
        undo.iter().for_each(|change| drop(state.facts.change(change.clone())));
        self.note(&state.facts, &keys);
        if let Some(running) = &state.running
            && let Err(error) = tell(&running.channel, &undo).await
        {
            tracing::warn!("the datapath has more than it is to have until it is replaced: {error}");
        }
        Err(LinkError::Refused(why.clone()))
    }

    /// Has the wanted facts within ranges of keys, and no others, as far as the datapath takes them. Returns
    /// those that it refused, and why.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have others.
    pub async fn agree(
        &self,
        ranges: &[RangeInclusive<Key>],
        wanted: impl IntoIterator<Item = Held>,
    ) -> Result<Vec<Dropped>, LinkError> {
        let mut state = self.shared.state.lock().await;
        let changes = state.facts.towards(ranges, wanted);
        self.offer_in(&mut state, changes).await
    }

    /// Changes facts as far as the datapath takes them. Returns those that it refused, and why.
    ///
    /// # Errors
    /// [`LinkError::Down`].
    pub async fn offer(&self, changes: Vec<Change>) -> Result<Vec<Dropped>, LinkError> {
        let mut state = self.shared.state.lock().await;
        self.offer_in(&mut state, changes).await
    }

    async fn offer_in(&self, state: &mut State, changes: Vec<Change>) -> Result<Vec<Dropped>, LinkError> {
        let Done { keys, undo, refused } = self.carry_out(state, changes).await?;
        for (place, _) in &refused {
            state.facts.change(undo[*place].clone());
        }
        if !refused.is_empty() {
            self.note(&state.facts, &keys);
        }
        Ok(refused.into_iter().map(|(place, why)| (keys[place], why)).collect())
    }

    /// Changes the table and tells the datapath. Refused changes are still in the table.
    async fn carry_out(&self, state: &mut State, mut changes: Vec<Change>) -> Result<Done, LinkError> {
        changes.retain(|change| !state.facts.has(change));
        refuse_longest(&changes)?;
        let new = changes.iter().filter(|change| state.facts.get(&change.key()).is_none());
        for port in new.filter_map(counted_port) {
            self.shared.counters.reset(port);
        }
        let keys: Vec<Key> = changes.iter().map(Change::key).collect();
        // The table first: a datapath that dies over it is replaced by one that is told.
        let undo: Vec<Change> = changes.iter().map(|change| state.facts.change(change.clone())).collect();
        self.note(&state.facts, &keys);
        match self.tell_or_relaunch(state, &changes).await {
            Ok(refused) => Ok(Done { keys, undo, refused }),
            Err(error) => {
                // The next datapath is not told again of facts that were taken back.
                let undo = undo.into_iter().zip(&changes).rev();
                let undo = undo.filter(|(_, change)| matches!(change, Change::Set(_)));
                undo.for_each(|(change, _)| drop(state.facts.change(change)));
                self.note(&state.facts, &keys);
                Err(error.into())
            }
        }
    }

    /// Tells of changes that the table has already; says which were refused, by their places, and why.
    async fn tell_or_relaunch(
        &self,
        state: &mut State,
        changes: &[Change],
    ) -> io::Result<Vec<(usize, String)>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(running) = &state.running {
            match self.unless_given_up(tell(&running.channel, changes)).await {
                Ok(refused) => return Ok(refused),
                Err(error) => {
                    tracing::warn!(pid = state.latest, "the datapath is taken for dead: {error}");
                }
            }
        }
        let dropped = self.relaunch(state).await?;
        let place = |key: &Key| changes.iter().position(|change| change.key() == *key);
        Ok(dropped.into_iter().filter_map(|(key, why)| Some((place(&key)?, why))).collect())
    }

    pub(super) async fn unless_given_up<T>(
        &self,
        asked: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut given_up = self.shared.given_up.subscribe();
        tokio::select! {
            answer = asked => answer,
            _ = given_up.wait_for(|given_up| *given_up) => Err(io::Error::other("the daemon is stopping")),
        }
    }

    /// Has nobody wait any more for the datapath, which is about to be stopped.
    pub fn give_up(&self) {
        self.shared.given_up.send_replace(true);
    }

    /// Follows what the table says now under these keys.
    pub(super) fn note(&self, facts: &Facts, keys: &[Key]) {
        if keys.iter().any(Key::decides_admission) {
            self.shared.admission.notify_one();
        }
        if keys.iter().any(|key| matches!(key, Key::Uplink(_))) {
            let names = told::uplinks(facts).map(|(place, spec, _)| (place, spec.interface.clone()));
            *self.shared.uplink_names.lock().unwrap_or_else(PoisonError::into_inner) = names.collect();
        }
    }
}

/// Changes that were told.
struct Done {
    keys: Vec<Key>,
    /// Changes that undo them, by the same places.
    undo: Vec<Change>,
    /// Places of changes that the datapath refused, and why.
    refused: Vec<(usize, String)>,
}

fn counted_port(change: &Change) -> Option<PortId> {
    if let Change::Set(held) = change { held.fact.counted_port() } else { None }
}

/// Refuses changes longer than a message may be.
fn refuse_longest(changes: &[Change]) -> Result<(), LinkError> {
    for change in changes {
        let Change::Set(held) = change else { continue };
        let bytes = serde_json::to_vec(&held.fact).map_err(io::Error::from)?.len();
        if bytes > TEXT_BYTES_MAX / 2 {
            let key = held.fact.key();
            return Err(LinkError::Refused(format!("{key:?} takes {bytes} bytes: say less at once")));
        }
    }
    Ok(())
}
