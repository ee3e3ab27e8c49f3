//! The order in which ports are served: an equal share of the loop's time for each that wants it.
//!
//! # Theory of operation
//! Each port has an account of the time that its bursts took, whatever for: frames that are no frames, copies
//! to a thousand receivers, new flows, errors to be told. Of the ports that are ready the one with the least
//! on its account is served next (start-time fair queueing). One that has been quiet begins where the others
//! are, and has saved nothing. So a port that is ready all the time has the time that others leave, and never
//! more than they while they want any; alone it has all.
//!
//! A burst is not interrupted, so it must be short while others come: a port is asked for as many frames as
//! took [`SHARED`] lately, or [`ALONE`] if no other was served for [`QUIET`]. Long bursts coalesce better,
//! and of super-frames even a short one has enough.
//!
//! * **The time** of a burst may be another process's, to which the kernel gave the core meanwhile: it hits
//!   all in proportion, and no burst is charged more than [`CHARGE_MAX`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use vswitch_frame::{Instant, PortId};

/// The time that a burst should take at most while other ports come.
const SHARED: Duration = Duration::from_micros(200);
/// The time that a burst should take at most of a port that is alone.
const ALONE: Duration = Duration::from_millis(2);
/// How long no other port was served where one is alone.
const QUIET: Duration = Duration::from_millis(5);
/// The most that one burst is charged.
const CHARGE_MAX: Duration = Duration::from_millis(2);
/// The frames that a burst may be in any case.
const FRAMES_MIN: u64 = 16;

/// The account of a port.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Nanoseconds that were charged, or given away by being quiet.
    charged: u64,
    is_ready: bool,
    /// Nanoseconds and frames of late, the older the less.
    lately: (u64, u64),
}

/// The ports that are ready, and every port's account.
#[derive(Debug)]
pub(crate) struct Shares {
    accounts: Vec<Account>,
    ready: BinaryHeap<Reverse<(u64, u64, PortId)>>,
    /// The account of the port that was served last, at that time.
    floor: u64,
    /// Ports that became ready, ever: the first of those with equal accounts is served first.
    count: u64,
    /// The port that was served last, and since when it alone.
    alone: (PortId, Instant),
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self {
            accounts: vec![Account::default(); PortId::LIMIT],
            ready: BinaryHeap::with_capacity(PortId::LIMIT),
            floor: 0,
            count: 0,
            alone: (PortId(0), Instant::ZERO),
        }
    }

    /// Lets a port wait for its turn, unless it does already.
    pub(crate) fn set_ready(&mut self, id: PortId) {
        let Some(account) = self.accounts.get_mut(id.index()) else { return };
        if !std::mem::replace(&mut account.is_ready, true) {
            account.charged = account.charged.max(self.floor);
            self.count += 1;
            self.ready.push(Reverse((account.charged, self.count, id)));
        }
    }

    /// How many ports are ready.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// The port that is to be served next. It is ready no more.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<PortId> {
        let Reverse((charged, _, id)) = self.ready.pop()?;
        self.floor = charged;
        self.accounts[id.index()].is_ready = false;
        if self.alone.0 != id {
            self.alone = (id, now);
        }
        Some(id)
    }

    /// The most frames that the next burst of the port may be that is being served.
    pub(crate) fn frames(&self, id: PortId, now: Instant, most: usize) -> usize {
        let is_alone = self.ready.is_empty() && now.since(self.alone.1) >= QUIET;
        let time = if is_alone { ALONE } else { SHARED };
        let Some(Account { lately: (nanos @ 1.., frames), .. }) = self.accounts.get(id.index()) else {
            return most;
        };
        let affordable = nanos_of(time).saturating_mul(*frames) / nanos;
        usize::try_from(affordable.max(FRAMES_MIN)).unwrap_or(most).min(most)
    }

    /// Charges a port the time that a burst took, or the copies left from one, and the frames that it
    /// received.
    pub(crate) fn charge(&mut self, id: PortId, time: Duration, frames: usize) {
        let Some(account) = self.accounts.get_mut(id.index()) else { return };
        let nanos = nanos_of(time.min(CHARGE_MAX));
        account.charged += nanos;
        let lately = &mut account.lately;
        if frames > 0 {
            *lately = (lately.0 - lately.0 / 8, lately.1 - lately.1 / 8);
        }
        *lately = (lately.0 + nanos, lately.1 + frames as u64);
    }

    /// Closes the account of a port that is no more.
    pub(crate) fn remove(&mut self, id: PortId) {
        self.ready.retain(|Reverse((_, _, ready))| *ready != id);
        if let Some(account) = self.accounts.get_mut(id.index()) {
            *account = Account::default();
        }
    }
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: PortId = PortId(1);
    const MODEST: PortId = PortId(2);
    const BURST: Duration = Duration::from_micros(300);

    /// Serves ports for a while of which each is ready again at once, and takes so long a burst; says how
    /// much time each had.
    fn serve(shares: &mut Shares, ports: &[(PortId, Duration)], bursts: usize) -> Vec<Duration> {
        let mut had = vec![Duration::ZERO; ports.len()];
        ports.iter().for_each(|(id, _)| shares.set_ready(*id));
        for _ in 0..bursts {
            let id = shares.next_ready(Instant::ZERO).expect("one is ready");
            let place = ports.iter().position(|(port, _)| *port == id).expect("of these");
            shares.charge(id, ports[place].1, 1);
            had[place] += ports[place].1;
            shares.set_ready(id);
        }
        had
    }

    #[test]
    fn time_is_shared_and_not_bursts() {
        let mut shares = Shares::new();
        let had = serve(&mut shares, &[(GREEDY, BURST), (MODEST, BURST / 10)], 1000);
        assert!(had[0].abs_diff(had[1]) <= BURST, "{had:?}");
    }

    #[test]
    fn who_was_quiet_is_next_but_has_saved_nothing() {
        let mut shares = Shares::new();
        serve(&mut shares, &[(GREEDY, BURST)], 1000);
        let had = serve(&mut shares, &[(GREEDY, BURST), (MODEST, BURST)], 100);
        assert!(had[0].abs_diff(had[1]) <= BURST, "{had:?}");
    }

    #[test]
    fn a_port_is_served_once_however_often_it_is_ready() {
        let mut shares = Shares::new();
        (0..3).for_each(|_| shares.set_ready(MODEST));
        shares.set_ready(GREEDY);
        shares.set_ready(PortId(3));
        shares.remove(PortId(3));
        assert_eq!(shares.ready_count(), 2);
        let served: Vec<_> = std::iter::from_fn(|| shares.next_ready(Instant::ZERO)).collect();
        assert_eq!(served, [MODEST, GREEDY], "in the order in which they became ready");
    }

    #[test]
    fn bursts_are_short_while_others_come() {
        let mut shares = Shares::new();
        assert_eq!(shares.frames(GREEDY, Instant::ZERO, 1024), 1024, "nothing is known");
        (0..50).for_each(|_| shares.charge(GREEDY, Duration::from_micros(100), 100));
        shares.set_ready(GREEDY);
        shares.next_ready(Instant::ZERO);
        assert_eq!(shares.frames(GREEDY, Instant::ZERO, 1024), 200, "SHARED");
        assert_eq!(shares.frames(GREEDY, Instant::ZERO + QUIET, 1024), 1024, "alone");
        shares.set_ready(MODEST);
        assert_eq!(shares.frames(GREEDY, Instant::ZERO + QUIET, 1024), 200, "another waits");
        // Each frame is copied to many: a burst, and what is left of it.
        (0..50).for_each(|turn| shares.charge(GREEDY, Duration::from_millis(1), turn % 2));
        assert_eq!(shares.frames(GREEDY, Instant::ZERO, 1024), 16, "FRAMES_MIN");
    }
}
