//! Faults: everything that happens to hosts while their clients work.

use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_sys::clock;

use super::chance::Chance;
use super::host::pause;
use super::stage::{HOSTS, Stage};
use super::tally::Tally;

/// Seconds by which a clock is wrong: some as summer time or a forgotten battery makes it.
const CLOCKS_S: [i64; 5] = [-7 * 24 * 3600, -3600, -5, 1800, 2 * 24 * 3600];
/// The time from the first fault of a round to the end of the last, in milliseconds.
const LASTS_MS: usize = 12_000;
/// The times between two kills of one kind, in milliseconds, at most.
const BETWEEN_KILLS_MS: usize = 1500;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Control is killed, again and again, on hosts at random.
    KillControl,
    /// The datapath is.
    KillDatapath,
    /// Both are at once.
    KillBoth,
    /// Control is stopped for a while.
    StopControl,
    /// The datapath is.
    StopDatapath,
    /// A host is cut off.
    Partition,
    /// A disk is full.
    FullDisk,
    /// A clock is wrong.
    Clock,
    /// etcd is killed, and started again.
    KillEtcd,
    /// etcd is stopped for a while.
    StopEtcd,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 10] = [
        Fault::KillControl,
        Fault::KillDatapath,
        Fault::KillBoth,
        Fault::StopControl,
        Fault::StopDatapath,
        Fault::Partition,
        Fault::FullDisk,
        Fault::Clock,
        Fault::KillEtcd,
        Fault::StopEtcd,
    ];
}

/// The faults of a round, each with the host it happens to.
pub fn choose(chance: &mut Chance, has_etcd: bool) -> Vec<(Fault, usize)> {
    let kinds = if has_etcd { &Fault::ALL[..] } else { &Fault::ALL[..Fault::ALL.len() - 2] };
    let mut faults: Vec<(Fault, usize)> = Vec::new();
    for _ in 0..=chance.below(3) {
        let fault = (*chance.choose(kinds), chance.below(HOSTS));
        if !faults.iter().any(|(kind, _)| *kind == fault.0) {
            faults.push(fault);
        }
    }
    faults
}

/// Lets faults happen, for as long as they last, and ends them.
pub fn happen(stage: &mut Stage, faults: &[(Fault, usize)], chance: &mut Chance, tally: &Tally) {
    for (fault, host) in faults {
        begin(stage, *fault, *host, chance, tally);
    }
    let lasts = Duration::from_millis(3000 + chance.below(LASTS_MS) as u64);
    let begun = clock::now();
    while clock::now().since(begun) < lasts {
        pause(Duration::from_millis(chance.below(BETWEEN_KILLS_MS) as u64));
        for (fault, _) in faults {
            again(stage, *fault, chance, tally);
        }
    }
    heal(stage, &faults.iter().map(|(fault, _)| *fault).collect::<Vec<_>>());
}

/// Begins a fault that lasts.
fn begin(stage: &mut Stage, fault: Fault, at: usize, chance: &mut Chance, tally: &Tally) {
    let host = &stage.hosts[at];
    match fault {
        Fault::KillControl | Fault::KillDatapath | Fault::KillBoth => return,
        Fault::StopControl => host.signal(Signal::SIGSTOP, true),
        Fault::StopDatapath => host.signal(Signal::SIGSTOP, false),
        Fault::Partition => stage.underlay.set(host.number, "down"),
        Fault::FullDisk => host.fill_disk(true),
        Fault::Clock => host.set_clock(*chance.choose(&CLOCKS_S)),
        Fault::KillEtcd => stage.etcd.iter_mut().for_each(crate::etcd::Etcd::stop),
        Fault::StopEtcd => stage.etcd.iter().for_each(|etcd| etcd.signal(Signal::SIGSTOP)),
    }
    tally.count(&format!("{fault:?}"));
}

/// Lets a fault of a moment happen to a host, with some chance.
fn again(stage: &mut Stage, fault: Fault, chance: &mut Chance, tally: &Tally) {
    let at = chance.below(stage.hosts.len());
    match fault {
        Fault::KillControl => {
            // One that was stopped would not be waited for in vain.
            stage.hosts[at].signal(Signal::SIGCONT, true);
            stage.hosts[at].kill(false, tally);
        }
        Fault::KillDatapath => stage.hosts[at].kill_datapath(),
        Fault::KillBoth => {
            stage.hosts[at].signal(Signal::SIGCONT, true);
            stage.hosts[at].kill(true, tally);
        }
        Fault::StopControl
        | Fault::StopDatapath
        | Fault::Partition
        | Fault::FullDisk
        | Fault::Clock
        | Fault::KillEtcd
        | Fault::StopEtcd => return,
    }
    tally.count(&format!("{fault:?}"));
}

/// Ends faults.
pub fn heal(stage: &mut Stage, faults: &[Fault]) {
    for fault in faults {
        for host in &stage.hosts {
            match fault {
                Fault::StopControl => host.signal(Signal::SIGCONT, true),
                Fault::StopDatapath => host.signal(Signal::SIGCONT, false),
                Fault::Partition => stage.underlay.set(host.number, "up"),
                Fault::FullDisk => host.fill_disk(false),
                Fault::Clock => host.set_clock(0),
                Fault::KillControl
                | Fault::KillDatapath
                | Fault::KillBoth
                | Fault::KillEtcd
                | Fault::StopEtcd => {}
            }
        }
    }
    let Some(etcd) = &mut stage.etcd else { return };
    if etcd.runs() {
        etcd.signal(Signal::SIGCONT);
    } else {
        etcd.start_again();
    }
}
