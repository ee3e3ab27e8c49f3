//! Destruction of what was removed: it takes tens of milliseconds each, and goes on beside everything else.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::publish::claims::Claim;
use crate::sandbox::interface::Remains;

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

    /// Destroys what is left of an interface, beside whatever else goes on.
    pub fn destroy(&mut self, remains: Remains) {
        self.0.push(spawn_blocking(|| remains.destroy()));
    }

    /// Closes the sockets of published ports, which may be many, beside whatever else goes on.
    pub fn close(&mut self, claims: Vec<Claim>) {
        if !claims.is_empty() {
            self.0.push(spawn_blocking(|| drop(claims)));
        }
    }

    /// Waits for another's work, too.
    pub fn join(&mut self, other: Cleanup) {
        self.0.extend(other.0);
    }
}
