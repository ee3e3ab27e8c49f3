//! Fairness: what others keep while one container sends frames of a hostile kind as fast as it can.
//!
//! # Method
//! A crowd of containers, of which one floods, two have a TCP stream and two a ping. The switch and the
//! kernel (bridge, routing, the rules Docker installs) are measured in turn in one run. Twice each time:
//!
//! * **Idle**: the flood goes into a TAP that nobody reads. It takes the processor time that sending takes,
//!   but reaches nobody. What the stream moves now is all that it can have beside such a neighbour.
//! * **Flooded**: the same flood goes to the switch or bridge, which then has two senders. An *equal share*
//!   is half of what the stream moved idle; a *share* is what it moves divided by that.
//!
//! Broadcasts reach every container, whose kernels look into each: with a thousand that is the most work a
//! frame can make.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use vswitch_traffic::{Flood, ProbeReport, enter_stage, flood, ping, probe, tcp};

use crate::contender::outside::{self, Crowd};
use crate::contender::who::Who;
use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::summary::Spread;
use crate::table::Table;

/// The least number of containers: who floods, two with a stream, two with a ping.
const CONTAINERS_MIN: u16 = 5;
/// The bars: the share of a stream, and milliseconds that one ping in a hundred exceeds.
const SHARE_AT_LEAST: f64 = 0.7;
const P99_AT_MOST_MS: f64 = 5.0;

/// Floods to measure, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Containers on the network, as in 10,1000: all of it for each number
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000],
          value_parser = clap::value_parser!(u16).range(i64::from(CONTAINERS_MIN)..=1000))]
    ports: Vec<u16>,
    /// Only these floods: garbage, broadcast, macs, flows
    #[arg(long = "flood", value_delimiter = ',', value_parser = named)]
    floods: Vec<Flood>,
    /// How often to measure everything
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure the switch alone
    #[arg(long)]
    alone: bool,
    /// Print Markdown, for docs/benchmarks.md
    #[arg(long)]
    markdown: bool,
}

fn named(text: &str) -> Result<Flood, String> {
    let found = Flood::ALL.into_iter().find(|flood| flood.name() == text);
    found.ok_or_else(|| "write garbage, broadcast, macs or flows".to_owned())
}

/// One measurement.
#[derive(Debug)]
struct Sample {
    gigabits: f64,
    ping: ProbeReport,
    /// Frames a second, in thousands.
    flood: f64,
}

/// All samples of a contender under one flood, idle and flooded, a round each.
type Samples = BTreeMap<(&'static str, Who), Vec<[Sample; 2]>>;

/// Floods, measures and prints.
///
/// # Errors
/// When something cannot be made or measured.
pub fn run(options: &Options) -> Result<(), BenchError> {
    if let Some(warning) = machine::disturbance() {
        eprintln!("warning: {warning}");
    }
    enter_stage()?;
    println!("{}; commit {}; {}", Machine::this(), machine::commit(), machine::date());
    println!("{} rounds of {} s; median (least..greatest)\n", options.rounds, options.seconds);
    for &ports in &options.ports {
        let mut crowds = vec![outside::crowd_of_switch(usize::from(ports))?];
        if !options.alone {
            crowds.push(outside::crowd_of_kernel(usize::from(ports))?);
        }
        let table = table(&measure(options, &crowds)?);
        println!("{ports} containers\n\n{}", if options.markdown { table.markdown() } else { table.text() });
    }
    println!("at least: a share of {SHARE_AT_LEAST}, ping p99 under {P99_AT_MOST_MS} ms");
    Ok(())
}

fn measure(options: &Options, crowds: &[Crowd]) -> Result<Samples, BenchError> {
    let kinds = if options.floods.is_empty() { &Flood::ALL[..] } else { &options.floods };
    let duration = Duration::from_secs_f64(options.seconds.clamp(0.1, 60.0));
    let mut samples = Samples::new();
    for round in 0..options.rounds {
        for &kind in kinds {
            eprint!("round {}/{}, {}:", round + 1, options.rounds, kind.name());
            for crowd in crowds {
                introduce(crowd)?;
                let both = [sample(crowd, kind, false, duration)?, sample(crowd, kind, true, duration)?];
                eprint!("  {} {:.2}, {:.1} ms", crowd.who, share(&both), both[1].ping.p99_ms);
                samples.entry((kind.name(), crowd.who)).or_default().push(both);
            }
            eprintln!();
        }
    }
    Ok(samples)
}

/// Waits until the ends of a crowd reach each other, for a while: the last flood may have told their kernels
/// wrong addresses.
fn introduce(crowd: &Crowd) -> Result<(), BenchError> {
    const TRIES: u16 = 20;
    for [from, to] in [[1, 2], [3, 4]] {
        for _ in 0..TRIES {
            let said = ping(&crowd.place(from), crowd.place(to).address, 1, Duration::from_millis(500))?;
            if said.answered > 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Measures a stream and a ping, both at once, while the first container floods.
fn sample(crowd: &Crowd, kind: Flood, goes_out: bool, duration: Duration) -> Result<Sample, BenchError> {
    let flooding = flood(&crowd.place(0), kind, goes_out.then(|| crowd.gateway()))?;
    let (stream, round_trips) = std::thread::scope(|scope| {
        let stream = scope.spawn(|| tcp(&crowd.place(1), &crowd.place(2), 1, duration));
        let round_trips = probe(&crowd.place(3), crowd.place(4).address, duration);
        (stream.join(), round_trips)
    });
    let stream = stream.map_err(|_| BenchError::Fault("a stream panicked".to_owned()))?;
    // A stream that cannot connect or stands still has no share. So it is shown, for both contenders alike.
    let gigabits = match stream {
        Ok(report) => report.gigabits_per_second(),
        Err(error) => {
            eprint!("  ({}: {error})", crowd.who);
            0.0
        }
    };
    let flood = flooding.stop()?;
    Ok(Sample { gigabits, ping: round_trips?, flood: flood.sent as f64 / flood.seconds / 1000.0 })
}

/// The part of an equal share that a stream moves under a flood.
fn share([idle, flooded]: &[Sample; 2]) -> f64 {
    if idle.gigabits > 0.0 { flooded.gigabits / (idle.gigabits / 2.0) } else { 0.0 }
}

fn table(samples: &Samples) -> Table {
    let mut table = Table::new([
        "flood",
        "thousand frames/s",
        "TCP idle, Gb/s",
        "flooded",
        "share",
        "ping idle p99, ms",
        "flooded p50",
        "p99",
        "max",
        "lost",
        "",
    ]);
    for ((kind, who), rounds) in samples {
        let spread = |value: &dyn Fn(&[Sample; 2]) -> f64, digits: usize| {
            let spread = Spread::of(rounds.iter().map(value).collect());
            spread.map_or(String::new(), |Spread { median, min, max }| {
                format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
            })
        };
        let median = |value: &dyn Fn(&[Sample; 2]) -> f64| {
            Spread::of(rounds.iter().map(value).collect()).map_or(0.0, |spread| spread.median)
        };
        let lost: u64 = rounds.iter().map(|[_, flooded]| flooded.ping.lost).sum();
        let sent: u64 = rounds.iter().map(|[_, flooded]| flooded.ping.sent).sum();
        let p99 = |[_, flooded]: &[Sample; 2]| flooded.ping.p99_ms;
        let met = median(&share) >= SHARE_AT_LEAST && median(&p99) < P99_AT_MOST_MS;
        table.row([
            format!("{kind}, {who}"),
            spread(&|[_, flooded]| flooded.flood, 0),
            spread(&|[idle, _]| idle.gigabits, 1),
            spread(&|[_, flooded]| flooded.gigabits, 1),
            spread(&share, 2),
            spread(&|[idle, _]| idle.ping.p99_ms, 2),
            spread(&|[_, flooded]| flooded.ping.p50_ms, 2),
            spread(&p99, 2),
            spread(&|[_, flooded]| flooded.ping.max_ms, 1),
            format!("{lost} of {sent}"),
            if met { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    table
}
