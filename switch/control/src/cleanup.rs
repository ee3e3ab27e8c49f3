//! Destruction of what was removed: it takes tens of milliseconds each, and goes on beside everything else.

use std::sync::LazyLock;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::publish::claims::Claim;
use crate::sandbox::interface::Remains;

/// Number of things that are being destroyed.
static UNDER_WAY: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Work that goes on after the answer is certain; clients are answered when it is done.
#[must_use]
#[derive(Debug, Default)]
pub struct Cleanup(Vec<JoinHandle<()>>);

impl Cleanup {
    /// Waits for the work.
    pub async fn done(self) {
        for task in self.0 {
            // It cannot be cancelled, and a panic of it was reported where it happened.
            let _ = task.await;
        }
    }

    /// Waits for all work that is under way, whoever waits for its end: then the names of what was removed
    /// are free.
    pub(crate) async fn all_done() {
        // The sender lives as long as the process.
        let _ = UNDER_WAY.subscribe().wait_for(|number| *number == 0).await;
    }

    /// Destroys what is left of an interface, beside whatever else goes on.
    pub fn destroy(&mut self, remains: Remains) {
        self.begin(|| remains.destroy());
    }

    /// Closes the sockets of published ports, which may be many, beside whatever else goes on.
    pub fn close(&mut self, claims: Vec<Claim>) {
        if !claims.is_empty() {
            self.begin(|| drop(claims));
        }
    }

    /// Waits for another's work, too.
    pub fn join(&mut self, other: Cleanup) {
        self.0.extend(other.0);
    }

    fn begin(&mut self, work: impl FnOnce() + Send + 'static) {
        UNDER_WAY.send_modify(|number| *number += 1);
        self.0.push(spawn_blocking(|| {
            let _under_way = UnderWay;
            work();
        }));
    }
}

/// A piece of work, until it is dropped.
struct UnderWay;

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.send_modify(|number| *number -= 1);
    }
}
