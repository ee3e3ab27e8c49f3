//! A datapath that somebody else turns, with a clock of theirs: the whole road of a frame, unconfined and in
//! the caller's process, so that frames of an attacker's can be followed from descriptor to descriptor.
//!
//! Its ports are descriptors like any other's: one end of a pair of sockets that keep messages apart stands
//! for a TAP, or for the packet socket of an uplink.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use vswitch_contract::counters::Counters;
use vswitch_contract::fact::{Fact, Key};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::{Options, Order, Step};
use vswitch_frame::Instant;
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, Listener};

use crate::desk::line::Line;
use crate::desk::memory::Desk;
use crate::turn::Datapath;

/// Descriptors that it reckons with.
const DESCRIPTORS: usize = 1024;

/// See the [module](self).
#[derive(Debug)]
pub struct Stepped {
    datapath: Datapath,
    /// Control's end of the channel, on which nothing is said.
    _control: Channel,
}

impl Stepped {
    /// A datapath that has nothing yet.
    ///
    /// # Errors
    /// The kernel's, for want of memory or descriptors.
    pub fn new(seed: u64) -> io::Result<Self> {
        let listener = nobodys_listener()?;
        let (near, far) = Channel::pair()?;
        let poller = Poller::new()?;
        let desk = Desk::new(Line::new(far, listener, &poller)?, Options { seed });
        let (counters, mirror) = (Counters::new()?, Mirror::new()?);
        let datapath = Datapath::new(desk, seed, counters, mirror, poller, DESCRIPTORS);
        Ok(Self { datapath, _control: near })
    }

    /// Says facts, each with its descriptors, as control does.
    ///
    /// # Errors
    /// The line in which the first that is refused is refused.
    pub fn tell(&mut self, facts: impl IntoIterator<Item = (Fact, Vec<OwnedFd>)>) -> Result<(), String> {
        facts.into_iter().try_for_each(|(fact, fds)| {
            let step = Step::Set(fact, fds.len());
            self.datapath.take(step, &mut fds.into_iter())
        })
    }

    /// Takes a fact back.
    ///
    /// # Errors
    /// The line in which that is refused.
    pub fn take_back(&mut self, key: Key) -> Result<(), String> {
        self.datapath.take(Step::Remove(key), &mut std::iter::empty())
    }

    /// Begins to move frames.
    pub fn begin(&mut self) {
        self.datapath.carry_out(Order::Begin, Vec::new());
    }

    /// Looks which descriptors are ready and does all there is to do, however many turns it takes. `now` is
    /// no earlier than at the step before.
    ///
    /// # Errors
    /// The poller's.
    pub fn step(&mut self, now: Instant) -> io::Result<()> {
        loop {
            let found = self.datapath.look_at_once(now)?;
            let worked = self.datapath.work(now);
            if !found && !worked {
                return Ok(());
            }
        }
    }

    /// The counters of its ports.
    pub fn counters(&self) -> &Counters {
        &self.datapath.counters
    }
}

/// A listener that nobody finds.
fn nobodys_listener() -> io::Result<Listener> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("vswitch-stepped-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path: PathBuf = std::env::temp_dir().join(name);
    let listener = Listener::bind(&path)?;
    std::fs::remove_file(&path)?;
    listener.listen()?;
    Ok(listener)
}
