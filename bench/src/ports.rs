//! A large range of published ports: how long publishing it takes, and what memory it costs both processes.

use serde_json::json;
use vswitch_sys::clock;
use vswitch_traffic::enter_stage;

use crate::attach::{Usage, attach, processes};
use crate::contender::switch::Switch;
use crate::error::BenchError;
use crate::http::post;
use crate::machine::{self, Machine};
use crate::summary::Spread;
use crate::table::Table;

/// The first port of the range, on the host and in the container.
const FIRST: usize = 20_000;

/// Publishes `count` ports of TCP and as many of UDP on all addresses of the host in one request, and ends
/// that, `rounds` times. Prints how long either took, and the memory of both processes before and after the
/// first.
///
/// # Errors
/// When the switch cannot be started or refuses.
pub fn run(count: usize, rounds: usize) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    let switch = Switch::start("ports")?;
    let (_containers, _) = attach(&switch, 1)?;
    let range = format!("{FIRST}-{}", FIRST + count - 1);
    let specs = ["tcp", "udp"].map(|protocol| format!("{range}:{range}/{protocol}"));
    let before = memory(&switch);
    let (mut memories, mut published, mut unpublished) = (None, Vec::new(), Vec::new());
    for _ in 0..rounds {
        published.push(millis(&switch, "publish", &specs)?);
        memories.get_or_insert_with(|| (before, memory(&switch)));
        unpublished.push(millis(&switch, "unpublish", &specs)?);
    }
    println!("{}; commit {}; {}\n", Machine::this(), machine::commit(), machine::date());
    println!("{count} ports of TCP and of UDP on all addresses, {rounds} rounds\n");
    let mut times = Table::new(["ms", "median", "min", "max"]);
    for (name, millis) in [("publish", published), ("unpublish", unpublished)] {
        if let Some(spread) = Spread::of(millis) {
            let cells = [spread.median, spread.min, spread.max].map(|value| format!("{value:.0}"));
            times.row(std::iter::once(name.to_owned()).chain(cells));
        }
    }
    let mut table = Table::new(["memory of both, MB", "before", "published"]);
    if let Some((before, after)) = memories {
        let row = |name: &str, of: fn(&Usage) -> u64| {
            let megabytes = |usage| format!("{:.1}", of(usage) as f64 * 1024e-6);
            [name.to_owned(), megabytes(&before), megabytes(&after)]
        };
        table.row(row("resident", |usage| usage.resident_kib));
        table.row(row("their share of it", |usage| usage.share_kib));
    }
    println!("{}\n{}", times.text(), table.text());
    println!("at least: 1,000 ms and 100 MB, aim 300 ms and 40 MB");
    Ok(())
}

fn millis(switch: &Switch, what: &str, specs: &[String]) -> Result<f64, BenchError> {
    let from = clock::now();
    post(&switch.socket, &format!("/sandboxes/c0/{what}"), &json!({ "Specs": specs }))?;
    Ok(clock::now().since(from).as_secs_f64() * 1000.0)
}

/// Memory and processor time that both processes take together.
fn memory(switch: &Switch) -> Usage {
    let family = processes(switch.process.child.id());
    family.values().fold(Usage::default(), |sum, (_, usage)| Usage {
        resident_kib: sum.resident_kib + usage.resident_kib,
        share_kib: sum.share_kib + usage.share_kib,
        busy_seconds: sum.busy_seconds + usage.busy_seconds,
    })
}
