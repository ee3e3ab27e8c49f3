//! Jobs, one at a time: every request becomes one, and it has the whole of control to itself.
//!
//! Handlers of the API run as tasks of their own and vanish when their client does. A job does not: it
//! runs to its end in the one place that owns [`Control`], so nothing is ever left half-made, and no
//! lock is needed anywhere.
//!
//! Changes of a job are committed before its answer is sent: what a client was told survives everything. The
//! next jobs are done meanwhile ([`store`](crate::state::store)). What cannot be committed is not begun, or
//! [undone](crate::undo).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::seen::Seen;
use crate::state::store::{Gate, Promise};

/// Jobs that wait; at the limit clients wait to be heard.
const JOBS_MAX: usize = 64;
/// Time that the last job has to end when the daemon is told to stop, whatever it waits for.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

type Job = Box<dyn for<'a> FnOnce(&'a mut Control) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The end at which handlers bring their jobs.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
    gate: Gate,
    seen: Seen,
}

/// The end at which jobs arrive.
pub struct Jobs {
    jobs: mpsc::Receiver<Job>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

/// Makes both ends of the queue of jobs on this control.
pub fn channel(control: &Control) -> (Handle, Jobs) {
    let (sender, receiver) = mpsc::channel(JOBS_MAX);
    let handle = Handle { jobs: sender, gate: control.store.gate(), seen: Seen::of(control) };
    (handle, Jobs { jobs: receiver })
}

impl Handle {
    /// Has a job done that a client waits for: a change, which is refused while nothing can be written down.
    ///
    /// # Errors
    /// Errors of the job; why it cannot be written down; while the daemon stops, one that says so.
    pub async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Control) -> Result<T> + Send + 'static,
    {
        self.gate.pass().await?;
        let seen = self.seen.clone();
        let done = self.put(async move |control| {
            if let Some(trouble) = control.store.trouble() {
                return Err(trouble);
            }
            let outcome = job(control).await;
            let promise: Promise = control.end_of_job(Control::promise).await;
            seen.follow(control);
            outcome.map(|answer| (answer, promise))
        });
        let (answer, promise) = done.await??;
        if let Err(broken) = promise.kept().await {
            // Undoing comes before somebody hears of it.
            self.look(|_| ()).await?;
            return Err(broken);
        }
        Ok(answer)
    }

    /// Has a job done that only begins what a client waits for: nobody is told of it, so nobody waits for
    /// it to be on the disk.
    ///
    /// # Errors
    /// Errors of [`run`](Self::run).
    pub async fn begin<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Control) -> Result<T> + Send + 'static,
    {
        self.gate.pass().await?;
        let done = self.put(async move |control| {
            let outcome = job(control).await;
            control.end_of_job(Control::owe).await;
            outcome
        });
        done.await?
    }

    /// Has a job done that follows what has happened anyway; it is written down when that can be.
    ///
    /// # Errors
    /// While the daemon stops.
    pub async fn note<F>(&self, job: F) -> Result<()>
    where
        F: AsyncFnOnce(&mut Control) + Send + 'static,
    {
        let seen = self.seen.clone();
        let done = self.put(async move |control| {
            job(control).await;
            control.end_of_job(Control::owe).await;
            seen.follow(control);
        });
        done.await
    }

    /// Has a look at control, between two jobs; what it sees is no change to be committed.
    ///
    /// # Errors
    /// While the daemon stops.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Control) -> T + Send + 'static,
    ) -> Result<T> {
        self.put(async move |control| look(control)).await
    }

    /// Control as it was committed. Nobody waits for a job to see it.
    pub(crate) fn seen(&self) -> Arc<Control> {
        self.seen.now()
    }

    /// The store, as clients see it.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Puts a job in the queue and awaits its outcome.
    async fn put<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Control) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            Box::pin(async move {
                // A client that has gone wants no answer.
                let _ = sender.send(job(control).await);
            })
        });
        self.jobs.send(job).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())
    }
}

impl Control {
    /// Has all follow that depends on what a job changed, which is then committed in one way or another.
    async fn end_of_job<T>(&mut self, commit: impl FnOnce(&mut Self) -> T) -> T {
        self.settle_cluster().await;
        self.files.follow(&self.state);
        let committed = commit(self);
        self.steer().await;
        committed
    }
}

impl Jobs {
    /// Does jobs, each to its end, until `stop`.
    pub async fn work(mut self, control: &mut Control, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let job = tokio::select! {
                biased;
                () = &mut stop => return,
                _ = control.store.failed() => None,
                job = self.jobs.recv() => match job {
                    Some(job) => Some(job),
                    None => return,
                },
            };
            let link = control.link.clone();
            let mut done = match job {
                Some(job) => job(control),
                None => Box::pin(control.undo()),
            };
            tokio::select! {
                () = &mut done => {}
                () = &mut stop => {
                    // The job need not wait for the datapath, which is stopped next.
                    link.give_up();
                    if timeout(LAST_PATIENCE, done).await.is_err() {
                        tracing::warn!("a change is left as it is: it does not end, and the daemon is to stop");
                    }
                    return;
                }
            }
        }
    }
}

fn stopping() -> Error {
    Error::new(Code::Internal, "the daemon is stopping: start it again with \"vswitch run\"")
}
