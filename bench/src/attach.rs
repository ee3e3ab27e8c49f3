//! The time it takes to attach a container, the five-hundredth like the first; and the cost of many attached
//! containers while nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::json;
use vswitch_sys::clock;
use vswitch_sys::netns::NetNs;
use vswitch_sys::pidfd::Pidfd;
use vswitch_traffic::{enter_stage, netns_path};

use crate::contender::switch::Switch;
use crate::error::BenchError;
use crate::http::post;
use crate::machine::{self, Machine};
use crate::summary::Spread;
use crate::table::Table;

/// Containers at the beginning and at the end whose medians are set side by side.
const FEW: usize = 25;
/// New endpoints are announced three times in as many seconds, and the switch asks who has joined which
/// group: idle is what comes after that.
const ANNOUNCED: Duration = Duration::from_secs(5);

/// Attaches `count` containers, one after another, and prints how long each took through the socket. With
/// a `folder` the state is kept in a new directory there, which is removed again.
///
/// # Errors
/// When the switch cannot be started or refuses.
pub fn latency(count: usize, folder: Option<&Path>) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    let state = folder.map(|folder| folder.join(format!("vswitch-bench-{}", std::process::id())));
    let switch = match &state {
        Some(state) => Switch::start_with_state("attach", state)?,
        None => Switch::start("attach")?,
    };
    let (_containers, millis) = attach(&switch, count)?;
    drop(switch);
    state.map_or(Ok(()), fs::remove_dir_all)?;
    let few = FEW.min(count);
    let parts = [
        (format!("1st to {few}th"), &millis[..few]),
        (format!("{}th to {count}th", count - few + 1), &millis[count - few..]),
        ("all".to_owned(), &millis[..]),
    ];
    let mut table = Table::new(["attach, ms", "median", "min", "max"]);
    for (name, part) in parts {
        if let Some(spread) = Spread::of(part.to_vec()) {
            let cells = [spread.median, spread.min, spread.max].map(|value| format!("{value:.2}"));
            table.row(std::iter::once(name).chain(cells));
        }
    }
    println!("{}; commit {}; {}\n\n{}", Machine::this(), machine::commit(), machine::date(), table.text());
    println!("median: at least 10 ms, aim 5 ms; the last as fast as the first");
    Ok(())
}

/// Attaches `count` containers and prints the memory and processor time the switch takes while `seconds`
/// pass in which nothing happens.
///
/// # Errors
/// When the switch cannot be started, refuses, or ends.
pub fn footprint(count: usize, seconds: u64) -> Result<(), BenchError> {
    enter_stage()?;
    let switch = Switch::start("footprint")?;
    let (_containers, _) = attach(&switch, count)?;
    let control = switch.process.child.id();
    outlive(control, ANNOUNCED)?;
    let before = processes(control);
    let from = clock::now();
    outlive(control, Duration::from_secs(seconds))?;
    let after = processes(control);
    let wall = clock::now().since(from).as_secs_f64();

    let mut table = Table::new(["process", "resident, MB", "processor, %"]);
    let row = |name: String, process: Usage| {
        let resident = process.resident_kib as f64 * 1024e-6;
        [name, format!("{resident:.1}"), format!("{:.2}", process.busy_seconds / wall * 100.0)]
    };
    let mut total = Usage::default();
    for (id, (name, now)) in after {
        let earlier = before.get(&id).map_or(Usage::default(), |(_, usage)| *usage);
        let used = Usage { busy_seconds: now.busy_seconds - earlier.busy_seconds, ..now };
        total.resident_kib += used.resident_kib;
        total.busy_seconds += used.busy_seconds;
        table.row(row(format!("{name} ({id})"), used));
    }
    table.row(row("together".to_owned(), total));
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    println!("{count} attached containers, {seconds} s without traffic\n\n{}", table.text());
    println!("memory: at least 150 MB, aim 60 MB; processor: under 1 % of a core");
    Ok(())
}

/// Attaches containers through the socket. Answers with them and with how many milliseconds each took.
pub(crate) fn attach(switch: &Switch, count: usize) -> Result<(Vec<NetNs>, Vec<f64>), BenchError> {
    switch.tell(&["network", "create", "bench", "--subnet", "10.9.0.0/16"])?;
    let containers: Vec<NetNs> = (0..count).map(|_| NetNs::anonymous()).collect::<Result<_, _>>()?;
    let mut millis = Vec::with_capacity(count);
    for (number, container) in containers.iter().enumerate() {
        let netns = netns_path(container);
        let body = json!({ "Name": format!("c{number}"), "NetNS": netns, "Network": "bench" });
        let from = clock::now();
        post(&switch.socket, "/sandboxes/attach", &body)?;
        millis.push(clock::now().since(from).as_secs_f64() * 1000.0);
    }
    Ok((containers, millis))
}

/// Lets time pass, while a process must not end.
fn outlive(id: u32, time: Duration) -> Result<(), BenchError> {
    let process = Pidfd::open(id)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(std::io::Error::from)?;
    epoll.add(&process, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(std::io::Error::from)?;
    let wait = EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX);
    match epoll.wait(&mut [EpollEvent::empty()], wait) {
        Ok(0) => Ok(()),
        // A process that was stopped and goes on is interrupted, handler or none (signal(7)).
        Err(Errno::EINTR) => outlive(id, time),
        Err(errno) => Err(std::io::Error::from(errno).into()),
        Ok(_) => Err(BenchError::Fault("the switch has ended".to_owned())),
    }
}

/// Memory and processor time that a process takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    /// Resident memory, with what it shares with other processes divided among them (`Pss`).
    pub(crate) share_kib: u64,
    /// Processor time since it was started, of all its threads.
    pub(crate) busy_seconds: f64,
}

/// The control process and its children, by number.
pub(crate) fn processes(parent: u32) -> BTreeMap<u32, (&'static str, Usage)> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let family = ids.filter_map(|id| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let shares = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().chain(shares.lines()).find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next().map(str::to_owned)
        };
        let name = if id == parent { "control" } else { "datapath" };
        let related = id == parent || field("PPid:")?.parse() == Ok(parent);
        let kib = |name: &str| field(name).and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let (resident_kib, share_kib) = (kib("VmRSS:"), kib("Pss:"));
        let usage = Usage { resident_kib, share_kib, busy_seconds: busy_seconds(id) };
        related.then_some((id, (name, usage)))
    });
    family.collect()
}

/// Processor time the datapath of a switch has taken, in seconds.
pub(crate) fn datapath_busy_seconds(switch: &Switch) -> f64 {
    let family = processes(switch.process.child.id());
    family.values().filter(|(name, _)| *name == "datapath").map(|(_, usage)| usage.busy_seconds).sum()
}

/// `schedstat` opens with the nanoseconds a thread has run (Documentation/scheduler/sched-stats.rst).
fn busy_seconds(id: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let this = std::process::id();
        let (_, usage) = processes(this).remove(&this).expect("this process");
        assert!(usage.resident_kib > 100 && usage.busy_seconds > 0.0, "{usage:?}");
    }
}
