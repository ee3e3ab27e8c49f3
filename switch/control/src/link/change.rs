//! Changes of facts: in the table here, and in the datapath.

use std::io;
use std::ops::RangeInclusive;
use std::sync::PoisonError;
use std::time::Duration;

use vswitch_contract::fact::{Change, Facts, Held, Key};
use vswitch_contract::parts::TEXT_BYTES_MAX;
use vswitch_frame::PortId;

use super::shared::{Dropped, Link, LinkError, State};
use super::talk::tell;
use super::told;

/// How long a living datapath may take for what it is still asked when control was told to stop.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

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
        let done = self.carry_out(state, changes).await?;
        let Some((_, why)) = done.refused.first() else { return Ok(()) };
        self.take_back(state, &done, |_| true).await;
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
        let done = self.carry_out(state, changes).await?;
        if !done.refused.is_empty() {
            self.take_back(state, &done, |place| done.has_refused(place)).await;
        }
        Ok(done.refused.into_iter().map(|(place, why)| (done.keys[place], why)).collect())
    }

    /// Changes the table and tells the datapath. Refused changes are still in the table, unless that is of
    /// another datapath than before.
    async fn carry_out(&self, state: &mut State, changes: Vec<Change>) -> Result<Done, LinkError> {
        refuse_longest(&changes)?;
        // The table first: a datapath that dies over it is replaced by one that is told.
        let (mut said, mut undo) = (Vec::new(), Vec::new());
        for change in changes {
            if state.facts.has(&change) {
                continue;
            }
            if let Some(port) = counted_port(&change).filter(|_| state.facts.get(&change.key()).is_none()) {
                self.shared.counters.reset(port);
            }
            undo.push(state.facts.change(change.clone()));
            said.push(change);
        }
        let keys: Vec<Key> = said.iter().map(Change::key).collect();
        self.note(&state.facts, &keys);
        let latest = state.latest;
        match self.tell_or_relaunch(state, &said).await {
            Ok(refused) => Ok(Done { keys, undo, refused, by_another: state.latest != latest }),
            Err(error) => {
                // The next datapath is not told again of facts that were taken back.
                let undo = undo.into_iter().zip(&said).rev();
                let undo = undo.filter(|(_, change)| matches!(change, Change::Set(_)));
                undo.for_each(|(change, _)| drop(state.facts.change(change)));
                self.note(&state.facts, &keys);
                Err(error.into())
            }
        }
    }

    /// Undoes those of the changes whose places are asked for, the last one first. A datapath that does not
    /// go back with us is replaced by one that is told all.
    async fn take_back(&self, state: &mut State, done: &Done, asked_for: impl Fn(usize) -> bool) {
        let mut said = Vec::new();
        for place in (0..done.undo.len()).rev().filter(|place| asked_for(*place)) {
            let undo = &done.undo[place];
            if state.facts.has(undo) {
                continue;
            }
            // A datapath that refused it has the fact of before; another has neither.
            if done.by_another || !done.has_refused(place) {
                said.push(state.facts.shortened(undo.clone()));
            }
            state.facts.change(undo.clone());
        }
        self.note(&state.facts, &done.keys);
        let Some(running) = state.running.as_ref().filter(|_| !said.is_empty()) else { return };
        let why = match self
            .unless_given_up(tell(&running.channel, &said))
            .await
            .map(|refused| refused.into_iter().next())
        {
            Ok(None) => return,
            Ok(Some((_, why))) => why,
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            pid = state.latest,
            "the datapath does not go back to what was, and is replaced: {why}"
        );
        if let Err(error) = self.relaunch(state).await {
            tracing::error!(%error, "the datapath cannot be started");
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
        let place = |key: &Key| changes.iter().rposition(|change| change.key() == *key);
        Ok(dropped.into_iter().filter_map(|(key, why)| Some((place(&key)?, why))).collect())
    }

    /// The outcome of something that is asked of the datapath; an error if control was told to stop and it
    /// takes long.
    pub(super) async fn unless_given_up<T>(
        &self,
        asked: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut given_up = self.shared.given_up.subscribe();
        let too_late = async {
            let _ = given_up.wait_for(|given_up| *given_up).await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = too_late => Err(stopping()),
        }
    }

    /// Nobody is to wait for long for the datapath any more, which is about to be stopped.
    pub fn give_up(&self) {
        self.shared.given_up.send_replace(true);
    }

    pub(super) fn has_given_up(&self) -> bool {
        *self.shared.given_up.borrow()
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
    /// By the same places: changes that undo them.
    undo: Vec<Change>,
    /// Places of those that the datapath refused, and why.
    refused: Vec<(usize, String)>,
    /// Whether the datapath before died over it, and this one was told all at once.
    by_another: bool,
}

impl Done {
    fn has_refused(&self, place: usize) -> bool {
        self.refused.iter().any(|(refused, _)| *refused == place)
    }
}

pub(super) fn stopping() -> io::Error {
    io::Error::other("the daemon is stopping")
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
