//! Changes of the host's links, routes and addresses, heard for as long as the daemon lives; and the times
//! at which what could not be made is tried again.
//!
//! # Theory of operation
//! Whoever follows the host settles with what it finds there, and then waits for what is
//! [`next`](Changes::next): a change, or where it could not settle, the time of another try. Tries are
//! [`SHORTEST`] apart at first, and twice as far each time up to [`LONGEST`]; a change is a try of its own,
//! since it may be what was waited for.
//!
//! The watch is opened again when it fails, and counts as a change then: whatever was missed is found by
//! looking. That is why nobody here is told what has changed.

use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};
use vswitch_sys::netlink::watch::AddressWatch;

/// Time until the first of the tries that follow each other.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time between two of the tries that follow each other, at most.
const LONGEST: Duration = Duration::from_secs(30);

/// Times between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BackOff(Duration);

impl BackOff {
    const START: Self = Self(SHORTEST);

    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST);
        now
    }
}

/// Changes of the calling thread's namespace; see the [module](self).
#[derive(Debug)]
pub struct Changes {
    watch: Option<AsyncFd<AddressWatch>>,
    watches: BackOff,
    tries: BackOff,
    /// The time of the next try.
    due: Option<Instant>,
}

impl Changes {
    /// Begins to listen. It comes before the first look, so that no change falls between the two.
    pub fn listen() -> Self {
        let mut changes = Self { watch: None, watches: BackOff::START, tries: BackOff::START, due: None };
        changes.open();
        changes
    }

    fn open(&mut self) {
        let watch = AddressWatch::open_with_routes().and_then(AddressWatch::into_async);
        match watch {
            Ok(watch) => (self.watch, self.watches) = (Some(watch), BackOff::START),
            Err(error) => self.say(&error),
        }
    }

    fn say(&self, error: &std::io::Error) {
        if self.watches == BackOff::START {
            tracing::warn!(
                "changes of the host's network are not heard, and looked for from time to time: {error}"
            );
        }
    }

    /// Waits until another look is due: something has changed, may have unheard, or, unless all is `settled`,
    /// it is time for another try.
    pub async fn next(&mut self, settled: bool) {
        if settled {
            (self.tries, self.due) = (BackOff::START, None);
            return self.changed().await;
        }
        // It stays due where this is dropped for something else, however often.
        let due = match self.due {
            Some(due) => due,
            None => Instant::now() + self.tries.next(),
        };
        self.due = Some(due);
        let _ = timeout_at(due, self.changed()).await;
        self.due = None;
    }

    /// Waits for a change. Nothing is lost when it is dropped.
    async fn changed(&mut self) {
        if let Some(watch) = &self.watch {
            match watch.async_io(Interest::READABLE, AddressWatch::heard).await {
                Ok(()) => return,
                Err(error) => {
                    self.say(&error);
                    self.watch = None;
                }
            }
        }
        sleep(self.watches.0).await;
        self.watches.next();
        self.open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_further_and_further_apart() {
        let mut tries = BackOff::START;
        let times: Vec<u64> = (0..7).map(|_| tries.next().as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watch_there_is_a_look_from_time_to_time_until_there_is_one() {
        let mut changes = Changes { watch: None, watches: BackOff::START, tries: BackOff::START, due: None };
        changes.next(true).await;
        assert!(changes.watch.is_some(), "it is opened again, and that is a change");
        let start = Instant::now();
        for _ in 0..3 {
            changes.next(false).await;
        }
        assert!(start.elapsed() <= SHORTEST * 7, "{:?}", start.elapsed());
    }
}
