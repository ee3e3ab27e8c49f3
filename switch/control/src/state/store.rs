//! The store: what was committed survives any end of any process, and a power cut.
//!
//! # Theory of operation
//! ```text
//!   actor ── changes, promises, records ──► thread ── one line, fdatasync ──► journal
//!   answers ◄── kept or broken promises ────┘   └──► committed state, records to the cluster
//! ```
//! Writing waits for a disk, which may stall, so a thread does it, and nobody else waits but who was promised
//! something. Changes that come meanwhile are merged, and go into the next line together. Once they are on
//! the disk, they are part of the committed state, which is what clients see; the cluster is told, and
//! promises are kept.
//!
//! *Trouble* is a disk that takes no more ([`Journal::prepare`]): changes are refused before they are begun
//! ([`Gate::pass`]), with the reason, until the thread finds it gone; it looks when somebody asks, and every
//! [`LOOK_EVERY`]. What control finds out by itself meanwhile (a container that is gone, what other hosts
//! say) is owed: it is written down when it can be.
//!
//! A change that was promised and is not taken by the disk after all is undone with all that came after it:
//! the store has *failed*, takes nothing until control has [gone back](Store::go_back) to what was committed.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{Notify, oneshot, watch};
use vswitch_cluster::record::{HostId, Record};
use vswitch_cluster::view::View;

use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::state::State;
use crate::state::change::Change;
use crate::state::journal::{Disk, Journal, ROOM_MIN, Real};
use crate::state::rules::Rules;

/// Time between two looks at a disk that takes no more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that the end of a store may take: a disk that stalls is not waited for.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Records that the cluster is told once a change is on the disk.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The way to the cluster.
    pub view: View,
    /// The records.
    pub records: Vec<Record>,
}

/// Changes that are to be written in one line, and all that waits for it.
#[derive(Debug, Default)]
struct Group {
    change: Change,
    parcels: Vec<Parcel>,
    promises: Vec<oneshot::Sender<Result<()>>>,
}

impl Group {
    fn then(&mut self, next: Group) {
        self.change.then(next.change);
        self.parcels.extend(next.parcels);
        self.promises.extend(next.promises);
    }

    fn is_empty(&self) -> bool {
        self.change.is_empty() && self.parcels.is_empty()
    }
}

/// Changes on their way to the thread.
#[derive(Debug, Default)]
struct Desk {
    pending: Option<Group>,
    is_writing: bool,
    /// The reason why the store has failed, if it has, and records that were not sent because of that.
    failed: Option<Error>,
    unsent: Vec<Record>,
    /// How often somebody wanted to know whether there is still trouble.
    asked: u64,
    is_ending: bool,
}

/// The trouble there is, as somebody found who looked after so many had asked.
#[derive(Clone, Debug, Default)]
struct Trouble {
    why: Option<Error>,
    asked: u64,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    wake: Condvar,
    trouble: watch::Sender<Trouble>,
    failed: Notify,
    committed: Mutex<State>,
    /// The change that is owed. It has happened whether it is written down or not, so it is shown.
    owed: Mutex<Change>,
    /// How often these have changed.
    number: AtomicU64,
}

/// The journal of a state directory, which is ours as long as the value lives.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// The rules and this host's identifier as they were handed over last.
    rules: Rules,
    host: Option<HostId>,
    /// The thread's end; `None` of a store that only looks on.
    ended: Option<Mutex<mpsc::Receiver<()>>>,
}

/// A view of the store for those who ask for changes, and those who look.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// A promise that what changed so far is on the disk.
#[derive(Debug)]
pub(crate) struct Promise(oneshot::Receiver<Result<()>>);

impl Promise {
    /// Waits until it is kept.
    ///
    /// # Errors
    /// When the disk did not take it: then it is undone.
    pub(crate) async fn kept(self) -> Result<()> {
        let stopping = |_| Error::new(Code::Internal, "the daemon is stopping: nobody knows what was done");
        self.0.await.map_err(stopping)?
    }
}

impl Store {
    /// Opens a state directory, and makes it if it is not there. Gives back what was committed to it.
    ///
    /// # Errors
    /// One line that names the directory or file: when another daemon has it, when the journal is damaged,
    /// of a newer format, or not ours. The journal is left as it is then.
    pub fn open(directory: &Path) -> Result<(Self, State)> {
        Self::open_on(directory, Box::new(Real))
    }

    fn open_on(directory: &Path, disk: Box<dyn Disk>) -> Result<(Self, State)> {
        let (journal, committed) = Journal::open(directory, disk)?;
        let state = committed.again();
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            wake: Condvar::new(),
            trouble: watch::Sender::new(Trouble::default()),
            failed: Notify::new(),
            committed: Mutex::new(committed),
            owed: Mutex::default(),
            number: AtomicU64::new(0),
        });
        let (end, ended) = mpsc::channel();
        let mut writer = Writer { journal, shared: shared.clone(), owed: None, asked: 0 };
        writer.look();
        let work = move || {
            writer.work();
            // The directory is free when somebody hears of it.
            drop(writer);
            let _ = end.send(());
        };
        let started = thread::Builder::new().name("journal".to_owned()).spawn(work);
        started.map_err(|error| failed("start the journal's thread", &error))?;
        let (rules, host) = (state.rules.clone(), state.host);
        Ok((Self { shared, rules, host, ended: Some(Mutex::new(ended)) }, state))
    }

    /// The store, for those who ask and those who look.
    pub fn gate(&self) -> Gate {
        Gate { shared: self.shared.clone() }
    }

    /// Has what changed written down as soon as it can be; nobody waits for it.
    pub fn hand_over(&mut self, state: &mut State) {
        self.add(state, None, None);
    }

    /// Has what changed written down, and the cluster told.
    pub(crate) fn owe(&mut self, state: &mut State, parcel: Option<Parcel>) {
        self.add(state, parcel, None);
    }

    /// Has what changed written down, and the cluster told: the promise is kept once that, and all before it,
    /// is on the disk.
    pub(crate) fn promise(&mut self, state: &mut State, parcel: Option<Parcel>) -> Promise {
        let (promise, promised) = oneshot::channel();
        self.add(state, parcel, Some(promise));
        Promise(promised)
    }

    fn add(
        &mut self,
        state: &mut State,
        parcel: Option<Parcel>,
        promise: Option<oneshot::Sender<Result<()>>>,
    ) {
        let change = Change::take(state, &mut self.rules, &mut self.host);
        let parcels = parcel.into_iter().collect();
        let mut group = Group { change, parcels, promises: promise.into_iter().collect() };
        let mut desk = self.shared.desk();
        if let Some(why) = desk.failed.clone() {
            desk.unsent.extend(group.parcels.drain(..).flat_map(|parcel| parcel.records));
            return answer(group.promises, &Err(why));
        }
        // An answer from changes that are not on the disk waits with theirs.
        let is_behind = desk.pending.is_some() || desk.is_writing;
        if group.is_empty() && (group.promises.is_empty() || !is_behind) {
            return answer(group.promises, &Ok(()));
        }
        desk.pending.get_or_insert_default().then(group);
        self.shared.wake.notify_one();
    }

    /// The reason why nothing can be written down, if there is one.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.shared.trouble.borrow().why.clone()
    }

    /// Waits until the store has failed.
    pub(crate) async fn failed(&self) -> Error {
        loop {
            if let Some(why) = self.shared.desk().failed.clone() {
                return why;
            }
            self.shared.failed.notified().await;
        }
    }

    /// The committed state, to go on with in place of what came after it, and the records that the cluster
    /// was not told.
    pub(crate) fn go_back(&mut self) -> (State, Vec<Record>) {
        let state = self.shared.committed().again();
        let mut desk = self.shared.desk();
        desk.failed = None;
        (self.rules, self.host) = (state.rules.clone(), state.host);
        (state, std::mem::take(&mut desk.unsent))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(ended) = &self.ended else { return };
        self.shared.desk().is_ending = true;
        self.shared.wake.notify_one();
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(END_PATIENCE);
    }
}

impl Gate {
    /// Lets a change begin if it can be written down.
    ///
    /// # Errors
    /// One line why not, and what to do about it.
    pub async fn pass(&self) -> Result<()> {
        let mut trouble = self.shared.trouble.subscribe();
        if trouble.borrow().why.is_none() {
            return Ok(());
        }
        let asked = {
            let mut desk = self.shared.desk();
            desk.asked += 1;
            desk.asked
        };
        self.shared.wake.notify_one();
        let found = trouble.wait_for(|now| now.asked >= asked).await.map(|now| now.why.clone());
        found.ok().flatten().map_or(Ok(()), Err)
    }

    /// The reason why nothing can be written down, if there is one.
    pub fn trouble(&self) -> Option<Error> {
        self.shared.trouble.borrow().why.clone()
    }

    /// The state that clients see, which is what is committed or owed, and its number: another one for
    /// another state.
    pub(crate) fn committed(&self) -> (u64, State) {
        let (number, mut state) = (self.number(), self.shared.committed().again());
        self.shared.owed().clone().apply(&mut state);
        (number, state)
    }

    /// The number of the committed state.
    pub(crate) fn number(&self) -> u64 {
        self.shared.number.load(Acquire)
    }

    /// A store for one who only looks on.
    pub(crate) fn onlooker(&self) -> Store {
        Store { shared: self.shared.clone(), rules: Rules::default(), host: None, ended: None }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committed(&self) -> MutexGuard<'_, State> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> MutexGuard<'_, Change> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, change: Change) {
        change.apply(&mut self.committed());
        self.show_owed(Change::default());
    }

    fn show_owed(&self, change: Change) {
        *self.owed() = change;
        self.number.fetch_add(1, Release);
    }
}

/// The thread's belongings.
struct Writer {
    journal: Journal,
    shared: Arc<Shared>,
    /// Changes that nobody was promised, and that the disk did not take yet.
    owed: Option<Group>,
    /// How many had asked when it looked last.
    asked: u64,
}

impl Writer {
    fn work(&mut self) {
        loop {
            let mut desk = self.shared.desk();
            desk.is_writing = false;
            let mut is_due = false;
            let group = loop {
                let group = desk.pending.take();
                if group.is_some() || desk.asked != self.asked || is_due {
                    desk.is_writing = group.is_some();
                    self.asked = desk.asked;
                    break group;
                }
                if desk.is_ending {
                    return;
                }
                let wait = self.shared.wake.wait_timeout(desk, LOOK_EVERY);
                desk = wait.unwrap_or_else(PoisonError::into_inner).0;
                is_due = self.shared.trouble.borrow().why.is_some();
            };
            drop(desk);
            if let Some(mut group) = group {
                if let Some(owed) = self.owed.take() {
                    let next = std::mem::replace(&mut group, owed);
                    group.then(next);
                }
                self.write(group);
            }
            self.look();
        }
    }

    /// Writes a group down.
    fn write(&mut self, group: Group) {
        let shared = self.shared.clone();
        let whole = || Change::whole(&shared.committed());
        let written =
            if group.change.is_empty() { Ok(()) } else { self.journal.append(&group.change, &whole) };
        let Err(error) = written else {
            self.shared.commit(group.change);
            group.parcels.into_iter().for_each(|Parcel { view, records }| view.publish(records));
            return answer(group.promises, &Ok(()));
        };
        if group.promises.is_empty() {
            self.shared.show_owed(group.change.clone());
            self.owed = Some(group);
            return;
        }
        let why = refusal(self.journal.directory(), "the change is undone", &error);
        tracing::error!("{why}");
        // No change begins before all is as it was.
        self.shared.trouble.send_modify(|trouble| trouble.why = Some(why.clone()));
        let mut desk = self.shared.desk();
        let mut all = group;
        desk.pending.take().into_iter().for_each(|next| all.then(next));
        desk.unsent.extend(all.parcels.into_iter().flat_map(|parcel| parcel.records));
        desk.failed = Some(why.clone());
        drop(desk);
        self.shared.show_owed(Change::default());
        answer(all.promises, &Err(why));
        self.shared.failed.notify_one();
    }

    /// Looks whether there is trouble, and writes down what is owed if there is none.
    fn look(&mut self) {
        let shared = self.shared.clone();
        let whole = || Change::whole(&shared.committed());
        let mut outcome = self.journal.prepare(&whole);
        if outcome.is_ok()
            && let Some(owed) = self.owed.take()
        {
            self.write(owed);
            outcome = self.journal.prepare(&whole);
        }
        let why = outcome.err().map(|error| refusal(self.journal.directory(), "no change is made", &error));
        match (&self.shared.trouble.borrow().why, &why) {
            (before, Some(why)) if before.as_ref() != Some(why) => tracing::error!("{why}; all else goes on"),
            (Some(_), None) => {
                tracing::warn!("{} can be written to again", self.journal.directory().display());
            }
            _ => {}
        }
        self.shared.trouble.send_replace(Trouble { why, asked: self.asked });
    }
}

fn answer(promises: Vec<oneshot::Sender<Result<()>>>, outcome: &Result<()>) {
    for promise in promises {
        // The client that was promised it may have gone.
        let _ = promise.send(outcome.clone());
    }
}

/// The refusal that a disk's failure is: `outcome`, why, and the mend.
fn refusal(directory: &Path, outcome: &str, error: &std::io::Error) -> Error {
    let shown = directory.display();
    let errno = error.raw_os_error().map(Errno::from_raw);
    let is_full = error.kind() == std::io::ErrorKind::StorageFull || errno == Some(Errno::EDQUOT);
    let why = if is_full {
        format!("{shown} is full: make room for {} KiB there", (ROOM_MIN * 2) >> 10)
    } else if errno == Some(Errno::EROFS) {
        format!("{shown} may only be read: make it writable (mount -o remount,rw)")
    } else {
        format!(
            "{shown} cannot be written to ({error}): mend its disk, or choose another one with --state-dir"
        )
    };
    Error::new(Code::StorageUnavailable, format!("{outcome}: {why}"))
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
