//! How fast names are answered through the socket of a container.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use vswitch_sys::clock;
use vswitch_traffic::{enter_stage, place, query};

use crate::attach::{attach, datapath_busy_seconds};
use crate::contender::switch::Switch;
use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::table::Table;

/// Containers on the network, each with its name.
const CONTAINERS: usize = 100;
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 9, 0, 1), 53);
/// The first container asks for the last one, whose address is the hundredth behind the gateway's.
const ASKED: (&str, Ipv4Addr) = ("c99", Ipv4Addr::new(10, 9, 0, 101));

/// Asks for a name from a container, several times over, and prints round trip and rate.
///
/// # Errors
/// When the switch cannot be started, or an answer is wrong.
pub fn run(rounds: usize, seconds: u64) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    let switch = Switch::start("names")?;
    let (containers, _) = attach(&switch, CONTAINERS)?;
    let from = place(&containers[0], Ipv4Addr::new(10, 9, 0, 2).into());
    let mut table =
        Table::new(["round", "p50, us", "p99, us", "answers/s", "datapath's core, %", "asked", "lost"]);
    for round in 1..=rounds {
        let (busy, start) = (datapath_busy_seconds(&switch), clock::now());
        let (name, address) = ASKED;
        let report = query(&from, SocketAddr::from(SERVER), name, address, Duration::from_secs(seconds))?;
        let wall = clock::now().since(start).as_secs_f64();
        let busy = (datapath_busy_seconds(&switch) - busy) / wall * 100.0;
        table.row([
            round.to_string(),
            format!("{:.1}", report.p50_us),
            format!("{:.1}", report.p99_us),
            format!("{:.0}", report.per_second),
            format!("{busy:.0}"),
            report.asked.to_string(),
            report.lost.to_string(),
        ]);
    }
    println!("{}; commit {}; {}\n\n{}", Machine::this(), machine::commit(), machine::date(), table.text());
    println!("at least: p50 under 300 us, 20,000 answers/s on one core, none lost");
    Ok(())
}
