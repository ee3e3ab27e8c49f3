//! The door: who may come in over TCP, and how many at once.
//!
//! # Theory of operation
//! Anybody can connect. Who has not proved within [`PROOF_PATIENCE`] to have the key is shown out. Of those
//! who still may, [`WAITING_MAX`] wait: if one more comes, the source with most of them loses its oldest. So
//! strangers only ever keep out themselves. Who has the key is served, [`SERVED_MAX`] at once, the others as
//! soon as there is room; one source has at most [`SERVED_PER_SOURCE_MAX`] of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// The time within which somebody proves to have the key.
pub(super) const PROOF_PATIENCE: Duration = Duration::from_secs(2);
/// The most connections that have not proved it yet.
const WAITING_MAX: usize = 256;
/// The most connections that are served at once.
const SERVED_MAX: usize = 64;
/// The most connections of one source that are served or wait to be.
const SERVED_PER_SOURCE_MAX: usize = 16;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Door {
    inside: Arc<Mutex<Inside>>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inside {
    arrivals: u64,
    waiting: BTreeMap<u64, (IpAddr, Option<AbortHandle>)>,
    served: BTreeMap<IpAddr, usize>,
}

/// The place of a connection that waits. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    inside: Arc<Mutex<Inside>>,
    number: u64,
}

/// The place of a connection that is served. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Served {
    inside: Arc<Mutex<Inside>>,
    source: IpAddr,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Door {
    /// A door that nobody came through.
    pub(super) fn new() -> Self {
        Self { inside: Arc::default(), room: Arc::new(Semaphore::new(SERVED_MAX)) }
    }

    /// A connection has come; its place, and how to show it out once its task has begun.
    pub(super) fn arrive(&self, from: SocketAddr) -> Waiting {
        let mut inside = lock(&self.inside);
        if inside.waiting.len() >= WAITING_MAX {
            inside.show_out();
        }
        let number = inside.arrivals;
        inside.arrivals += 1;
        inside.waiting.insert(number, (source(from.ip()), None));
        Waiting { inside: Arc::clone(&self.inside), number }
    }

    /// The task of a connection that waits: it is ended when the connection is shown out.
    pub(super) fn watch(&self, number: u64, task: AbortHandle) {
        if let Some((_, handle)) = lock(&self.inside).waiting.get_mut(&number) {
            *handle = Some(task);
        }
    }

    /// A connection has proved to have the key. Waits until there is room; `None` if its source has too many.
    pub(super) async fn come_in(&self, waiting: Waiting, from: SocketAddr) -> Option<Served> {
        let source = source(from.ip());
        drop(waiting);
        let mut served = {
            let mut inside = lock(&self.inside);
            let count = inside.served.entry(source).or_default();
            if *count >= SERVED_PER_SOURCE_MAX {
                return None;
            }
            *count += 1;
            Served { inside: Arc::clone(&self.inside), source, _permit: None }
        };
        served._permit = Arc::clone(&self.room).acquire_owned().await.ok();
        Some(served)
    }
}

impl Waiting {
    /// The number of the connection.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Inside {
    /// Ends the oldest connection of the source that has most.
    fn show_out(&mut self) {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for (source, _) in self.waiting.values() {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        let oldest = self.waiting.iter().find(|(_, (source, _))| Some(*source) == most);
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some((_, Some(task))) = self.waiting.remove(&number)
        {
            task.abort();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.inside).waiting.remove(&self.number);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut inside = lock(&self.inside);
        if let Some(count) = inside.served.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                inside.served.remove(&self.source);
            }
        }
    }
}

/// The source of connections from an address. Who has one IPv6 address has its network's.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

fn lock(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}
