//! A soak, long or short: `soak gossip|etcd MINUTES [SEED]`. See `tests/soak`.

#![forbid(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use vswitch_tests::soak::run;
use vswitch_tests::soak::stage::Source;
use vswitch_tests::soak::tally::Tally;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (source, minutes) = match words.first().map(String::as_str) {
        Some("gossip") => (Source::Gossip, words.get(1)),
        Some("etcd") => (Source::Etcd, words.get(1)),
        _ => return usage(),
    };
    let Some(Ok(minutes)) = minutes.map(|word| word.parse::<u64>()) else { return usage() };
    let Ok(seed) = words.get(2).map_or(Ok(1), |word| word.parse::<u64>()) else { return usage() };
    let Ok(own) = std::env::current_exe() else { return usage() };
    let binary = own.with_file_name("vswitch-under-test").display().to_string();
    let tally = Tally::default();
    let soak = || run(&binary, source, Duration::from_secs(60 * minutes), seed, &tally);
    let held = panic::catch_unwind(AssertUnwindSafe(soak)).is_ok();
    let (end, code) = if held { ("held", ExitCode::SUCCESS) } else { ("DID NOT HOLD", ExitCode::FAILURE) };
    println!("soak {source:?}, {minutes} min, seed {seed}: {end}\n{tally}");
    code
}

fn usage() -> ExitCode {
    eprintln!("usage: soak gossip|etcd MINUTES [SEED]");
    ExitCode::FAILURE
}
