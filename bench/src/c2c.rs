//! Container to container, and how every such measurement goes: the switch and its peers in turn, in one
//! run.
//!
//! All contenders are set up at the start and idle but for the one measured. A round takes every
//! measurement once: measurement by measurement, all contenders back to back, so that whatever drifts on
//! the machine drifts under all of them alike. Every other round goes through the contenders backwards.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vswitch_traffic::{enter_stage, ping};

use crate::contender::Contender;
use crate::contender::who::{Peer, PortType, Who};
use crate::error::BenchError;
use crate::machine::{self, Machine};
use crate::measurement::Measurement;
use crate::report;
use crate::results::{Results, Sample};
use crate::road::Road;

/// Contenders to measure, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure beside this; may be given again [default: bridge]
    #[arg(long = "peer", value_enum)]
    peers: Vec<Peer>,
    /// Attach the switch's containers with this kind of port; may be given again [default: tap]
    #[arg(long = "port-type", value_enum)]
    port_types: Vec<PortType>,
    #[command(flatten)]
    rounds: Rounds,
}

/// Rounds of measurements, and the use of their results.
#[derive(Debug, Args)]
pub struct Rounds {
    /// A quick look: three rounds of one second
    #[arg(long)]
    quick: bool,
    /// Measure only these, as in tcp1,pingpong
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measurement>,
    /// How often to measure everything [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measurement takes [default: 3]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Write every value to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print Markdown, for docs/benchmarks.md
    #[arg(long)]
    markdown: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.05 to 600".to_owned()),
    }
}

/// Measures, prints what came out, and writes it to the file if one is named.
///
/// # Errors
/// When something cannot be set up or measured, or datagrams were received that must not have been.
pub fn run(options: &Options) -> Result<(), BenchError> {
    options.rounds.run(&[Road::C2c], &Measurement::BULK, |_| options.start())
}

impl Options {
    fn start(&self) -> Result<Vec<Contender>, BenchError> {
        let port_types = or_default(&self.port_types, PortType::Tap);
        let peers = or_default(&self.peers, Peer::Bridge);
        let switches = port_types.into_iter().map(Who::Switch);
        switches.chain(peers.into_iter().map(Who::Peer)).map(Contender::start).collect()
    }
}

impl Rounds {
    /// Enters the stage, and for one road after another starts the contenders, measures and prints. Then
    /// writes: the results of the road, or a list of those of all.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(
        &self,
        roads: &[Road],
        measurements: &[Measurement],
        start: impl Fn(Road) -> Result<Vec<Contender>, BenchError>,
    ) -> Result<(), BenchError> {
        // Before `/run` becomes another: the file may be meant to lie there.
        let mut json = self.json.as_ref().map(File::create).transpose()?;
        if let Some(warning) = machine::disturbance() {
            eprintln!("warning: {warning}");
        }
        enter_stage()?;
        let measurements = if self.only.is_empty() { measurements } else { &self.only };
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        for &road in roads {
            let (results, found) = measure(self, road, measurements, &start(road)?)?;
            println!("{}", report::render(&results, self.markdown));
            all.push(results);
            faults.extend(found);
        }
        if let Some(json) = &mut json {
            let written = match all.as_slice() {
                [only] => serde_json::to_writer_pretty(&mut *json, only),
                several => serde_json::to_writer_pretty(&mut *json, several),
            };
            written.map_err(std::io::Error::from)?;
            json.write_all(b"\n")?;
        }
        if faults.is_empty() { Ok(()) } else { Err(BenchError::Fault(faults.join("\n"))) }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 }).max(1)
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 3.0 })
    }
}

/// Returns all that was asked for, each once, or the default when nothing was.
fn or_default<T: Copy + Ord>(asked: &[T], default: T) -> Vec<T> {
    let mut all = asked.to_vec();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { vec![default] } else { all }
}

/// Lets the two ends of a contender find each other's address. Until they have, the source's kernel
/// holds its first hundred packets back, and then sends them beside those that follow: out of order.
fn introduce(contender: &Contender) -> Result<(), BenchError> {
    let [from, to] = &contender.places;
    ping(from, to.goal(), 1, Duration::from_secs(1))?;
    Ok(())
}

fn measure(
    options: &Rounds,
    road: Road,
    measurements: &[Measurement],
    contenders: &[Contender],
) -> Result<(Results, Vec<String>), BenchError> {
    let duration = Duration::from_secs_f64(options.seconds());
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    let rounds = options.rounds();
    contenders.iter().try_for_each(introduce)?;
    for round in 0..rounds {
        for measurement in measurements {
            eprint!("round {}/{rounds}:", round + 1);
            for turn in 0..contenders.len() {
                let contender = &contenders[if round % 2 == 0 { turn } else { contenders.len() - 1 - turn }];
                let who = contender.who;
                let outcome = measurement.measure(contender, duration)?;
                if let Some((figure, value)) = outcome.figures.first() {
                    eprint!("  {who} {}", figure.show(*value));
                }
                for &(figure, value) in &outcome.figures {
                    samples.push(Sample { round, who, figure, value, report: outcome.report.clone() });
                }
                faults.extend(outcome.fault.map(|fault| format!("round {}, {who}: {fault}", round + 1)));
            }
            eprintln!();
        }
    }
    let results = Results {
        road,
        machine: Machine::this(),
        date: machine::date(),
        commit: machine::commit(),
        rounds,
        seconds: options.seconds(),
        samples,
    };
    Ok((results, faults))
}
