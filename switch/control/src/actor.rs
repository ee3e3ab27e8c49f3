//! Jobs, one at a time: every request becomes one, and it has the whole of control to itself.
//!
//! Handlers of the API run as tasks of their own and vanish when their client does. A job does not: it
//! runs to its end in the one place that owns [`Control`], so nothing is ever left half-made, and no
//! lock is needed anywhere.
//!
//! Changes of a job are committed before its answer is sent: what a client was told survives everything.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot};

use crate::control::Control;
use crate::error::{Code, Error, Result};

/// Jobs that wait; at the limit clients wait to be heard.
const JOBS_MAX: usize = 64;

type Job = Box<dyn for<'a> FnOnce(&'a mut Control) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The end at which handlers bring their jobs.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
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

/// Makes both ends of the queue of jobs.
pub fn channel() -> (Handle, Jobs) {
    let (sender, receiver) = mpsc::channel(JOBS_MAX);
    (Handle { jobs: sender }, Jobs { jobs: receiver })
}

impl Handle {
    /// Has a job done.
    ///
    /// # Errors
    /// Errors of the job; while the daemon stops, one that says so.
    pub async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut Control) -> Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            Box::pin(async move {
                let outcome = job(control).await;
                control.files.follow(&control.state);
                // A client that has gone wants no answer.
                let committed = control.commit();
                control.steer().await;
                let _ = sender.send(outcome.and_then(|answer| committed.map(|()| answer)));
            })
        });
        self.jobs.send(job).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }
}

impl Handle {
    /// Has a look at control, between two jobs; what it sees is no change to be committed.
    ///
    /// # Errors
    /// While the daemon stops.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Control) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            Box::pin(async move {
                let _ = sender.send(look(control));
            })
        });
        self.jobs.send(job).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())
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
                job = self.jobs.recv() => job,
            };
            let Some(job) = job else { return };
            let link = control.link.clone();
            let mut done = job(control);
            tokio::select! {
                () = &mut done => {}
                () = &mut stop => {
                    // The job need not wait for the datapath, which is stopped next.
                    link.give_up();
                    done.await;
                    return;
                }
            }
        }
    }
}

fn stopping() -> Error {
    Error::new(Code::Internal, "the daemon is stopping: start it again with \"vswitch run\"")
}
