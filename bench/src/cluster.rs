//! A cluster of many hosts: what gossip costs, and how long things take.
//!
//! # Theory of operation
//! Hosts are simulated in this process, with a time of their own ([`World`](vswitch_cluster::gossip::world)):
//! each packet takes a millisecond, and bytes are counted as on the wire. Processor time is that of this
//! process, which does the work of all hosts, and the simulation's, but seals nothing. Memory is what this
//! process grows by when it takes in the records of one host as control and gossip do.
//!
//! Twenty hosts are also asked with sockets, see [`membership`](crate::membership).

pub mod layout;
pub mod simulation;

use std::sync::Arc;
use std::time::Duration;

use vswitch_cluster::gossip::world::{BEGINNING, World};
use vswitch_cluster::ledger::Ledger;
use vswitch_cluster::record::Record;

use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::membership::{self, Source};
use layout::Layout;
use simulation::Found;

/// Hosts up to which they are asked with sockets, too.
const REAL_MAX: usize = 20;
/// Records that all hosts of a simulated cluster may know together: they are in one memory.
const KNOWN_MAX: usize = 20_000_000;
/// Changes that are made with sockets.
const REAL_CHANGES: u32 = 200;

/// Simulates clusters of these sizes, with so many endpoints a host, and prints what they need.
///
/// # Errors
/// When something does not happen in time.
pub fn run(sizes: &[u16], endpoints: u16) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    let (record, host) = memory(usize::from(endpoints));
    println!(
        "memory, in the ledgers of gossip and control together: {record} bytes a record of an endpoint;"
    );
    println!("{:.1} MiB for a host of a thousand, with all its records\n", mib(host));
    for spans in [false, true] {
        let what = if spans {
            "one network on all hosts (where they are many, with fewer endpoints each)"
        } else {
            "as many networks as hosts, each host on ten"
        };
        println!("{what}, {endpoints} endpoints a host:\n");
        println!(
            "| hosts | records a host | at rest, B/s | 10 changes/s, B/s | heard: half, 99 %, all | join | MiB | heal: seen, agreed | MiB | µs/s a host: rest, changes |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for hosts in sizes {
            let most = if spans { KNOWN_MAX / usize::from(*hosts).pow(2).max(1) } else { usize::MAX };
            let endpoints = usize::from(endpoints).min(most);
            let layout = Layout { hosts: (*hosts).into(), endpoints, spans };
            print(layout, &simulation::run(layout)?);
        }
        println!();
    }
    println!(
        "bytes are those a host sends; it receives as many. Held to, with 1,000 hosts: 2,000 B/s at rest,"
    );
    println!("99 % of changes heard within 2 s, a join within 10 s, 600 bytes a record\n");
    for hosts in sizes.iter().filter(|hosts| usize::from(**hosts) <= REAL_MAX) {
        for source in [Source::Gossip, Source::Etcd] {
            membership::run(source, u8::try_from(*hosts).unwrap_or(u8::MAX), REAL_CHANGES)?;
        }
    }
    Ok(())
}

fn print(layout: Layout, found: &Found) {
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let s = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    println!(
        "| {} | {} of {} | {:.0} | {:.0} | {}, {}, {} | {}, with {} of processors | {:.1} | {}, {} | {:.2} | {:.0}, {:.0} |",
        layout.hosts,
        found.records,
        found.records_in_all,
        found.rest.sent,
        found.changes.sent,
        ms(found.heard[0]),
        ms(found.heard[1]),
        ms(found.heard[2]),
        s(found.join.0),
        s(found.join.1),
        mib(found.join_bytes),
        s(found.heal.0),
        s(found.heal.1),
        mib(found.heal_bytes),
        found.rest.processor_us,
        found.changes.processor_us,
    );
}

fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// The bytes that a record of an endpoint takes in both ledgers of a process, and those that all records of
/// one host of a thousand take.
fn memory(endpoints: usize) -> (u64, u64) {
    const RECORDS: usize = 100_000;
    let many = Layout { hosts: 1, endpoints: RECORDS.min(65_536), spans: true };
    let (bytes, count) = grown_by(many.endpoints(0).into_iter().map(|(_, record)| record));
    let layout = Layout { hosts: 1_000, endpoints, spans: false };
    let networks = layout.networks_of(0);
    let endpoints = (0..layout.hosts).flat_map(|host| layout.endpoints(host)).map(|(_, record)| record);
    let endpoints = endpoints.filter(|record| simulation::is_had(record, &networks));
    let all = layout.global().into_iter().map(Arc::unwrap_or_clone).chain(endpoints);
    let (host, _) = grown_by(all);
    (bytes / count.max(1), host)
}

/// The bytes by which this process grows when it takes records in as they come from other hosts, and their
/// number.
fn grown_by(records: impl Iterator<Item = Record>) -> (u64, u64) {
    let texts: Vec<Vec<u8>> = records.filter_map(|record| serde_json::to_vec(&record).ok()).collect();
    let before = resident();
    let (mut gossip, mut control) = (Ledger::of(World::id(0)), Ledger::of(World::id(0)));
    for text in &texts {
        if let Ok(record) = serde_json::from_slice::<Record>(text) {
            let record = Arc::new(record.fit());
            gossip.merge(Arc::clone(&record), BEGINNING);
            control.merge(record, BEGINNING);
        }
    }
    let bytes = resident().saturating_sub(before);
    (bytes, u64::try_from(control.len()).unwrap_or(u64::MAX))
}

/// Bytes of this process's memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
