//! A large network: attaching its endpoints, reaching each of them, and showing it.

use std::net::Ipv4Addr;
use std::time::Duration;

use vswitch_sys::clock;
use vswitch_traffic::{Place, enter_stage, ping, place};

use crate::attach::attach;
use crate::contender::switch::Switch;
use crate::error::BenchError;
use crate::http::get;
use crate::machine::{self, Machine};
use crate::summary::Spread;
use crate::table::Table;

/// How often the network is shown.
const SHOWN: usize = 25;
const WAIT: Duration = Duration::from_secs(2);
/// How long every endpoint has to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Attaches `count` endpoints to one network, pings each from the first, and measures how long showing
/// the network takes.
///
/// # Errors
/// When the switch cannot be started or refuses, or an endpoint does not answer.
pub fn run(count: usize) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    let switch = Switch::start("endpoints")?;
    let (containers, attached) = attach(&switch, count)?;
    let from = place(&containers[0], address(0).into());
    let silent = silent(&from, (1..count).map(address).collect())?;
    if !silent.is_empty() {
        let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
        return Err(BenchError::Fault(format!("no answer from {}", silent.join(", "))));
    }
    let mut shown = Vec::with_capacity(SHOWN);
    let mut bytes = 0;
    for _ in 0..SHOWN {
        let start = clock::now();
        bytes = get(&switch.socket, "/networks/bench")?.len();
        shown.push(clock::now().since(start).as_secs_f64() * 1000.0);
    }
    let mut table = Table::new(["ms", "median", "min", "max"]);
    for (name, millis) in [("attach", attached), ("inspect", shown)] {
        if let Some(spread) = Spread::of(millis) {
            let cells = [spread.median, spread.min, spread.max].map(|value| format!("{value:.2}"));
            table.row(std::iter::once(name.to_owned()).chain(cells));
        }
    }
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    println!(
        "{count} endpoints on one network, each answered a ping; {bytes} bytes of inspect\n\n{}",
        table.text()
    );
    println!("at least: attach 10 ms, inspect of 1,000 endpoints 50 ms");
    Ok(())
}

/// Pings each target, and those that did not answer again and again until time is up. Answers with those
/// that stay silent.
///
/// One pass is not enough for many: the kernel resolves no address while it knows 1,024 in all namespaces
/// together (`gc_thresh3`), each ping makes it learn two, and it forgets none within five seconds.
fn silent(from: &Place, mut targets: Vec<Ipv4Addr>) -> Result<Vec<Ipv4Addr>, BenchError> {
    let deadline = clock::now() + PATIENCE;
    while !targets.is_empty() && clock::now() < deadline {
        let mut still = Vec::new();
        for target in targets {
            if ping(from, target.into(), 1, WAIT)?.answered == 0 {
                still.push(target);
            }
        }
        targets = still;
    }
    Ok(targets)
}

/// The address of the endpoint attached as number `number`: the next behind the gateway's, and so on.
fn address(number: usize) -> Ipv4Addr {
    const FIRST: u32 = 0x0a09_0002;
    Ipv4Addr::from_bits(FIRST + u32::try_from(number).unwrap_or(0))
}
