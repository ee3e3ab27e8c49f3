//! A long attack on the walls: `attack EXECUTIONS [FIRST-SEED]` drives that many houses with bytes made of
//! one seed after another, and says which walls were passed, each with the shortest bytes that did it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use vswitch_tests::attacker;
use vswitch_tests::talk::Stream;

/// Bytes of an attack, at most.
const BYTES_MAX: usize = 3000;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(executions)), first) = (words.next(), words.next().and_then(Result::ok).unwrap_or(0)) else {
        eprintln!("usage: attack EXECUTIONS [FIRST-SEED]");
        return ExitCode::FAILURE;
    };
    panic::set_hook(Box::new(|_| {}));
    let mut found: BTreeMap<String, (usize, Vec<u8>, String)> = BTreeMap::new();
    for seed in first..first + executions {
        let (mut stream, mut length) = (Stream::new(seed), [0; 8]);
        stream.fill(&mut length);
        let mut bytes = vec![0; usize::from(length[0]) * BYTES_MAX / 256];
        stream.fill(&mut bytes);
        let Some(story) = attack(&bytes) else { continue };
        let wall = story.split(':').next().unwrap_or_default().to_owned();
        let (bytes, story) = shortened(bytes, &wall).unwrap_or_else(|bytes| (bytes, story));
        let entry = found.entry(wall).or_insert_with(|| (0, bytes.clone(), story.clone()));
        entry.0 += 1;
        if bytes.len() < entry.1.len() {
            (entry.1, entry.2) = (bytes, story);
        }
    }
    println!("{executions} executions from seed {first}, {} walls passed", found.len());
    for (times, bytes, story) in found.values() {
        println!(
            "\n{times} times: {story}\nby {}",
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        );
    }
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The wall that an attack passes, and how; `None` if it passes none.
fn attack(bytes: &[u8]) -> Option<String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| attacker::walls(bytes)));
    let panic = outcome.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// An attack with as few bytes as a few tries find, and its story; the bytes if they do not pass that
/// wall.
fn shortened(bytes: Vec<u8>, wall: &str) -> Result<(Vec<u8>, String), Vec<u8>> {
    let passes = |bytes: &[u8]| attack(bytes).filter(|story| story.split(':').next() == Some(wall));
    let Some(mut story) = passes(&bytes) else { return Err(bytes) };
    let mut bytes = bytes;
    let mut step = bytes.len() / 2;
    while step > 0 {
        let mut at = 0;
        while at + step <= bytes.len() {
            let fewer = [&bytes[..at], &bytes[at + step..]].concat();
            match passes(&fewer) {
                Some(shorter) => (bytes, story) = (fewer, shorter),
                None => at += step,
            }
        }
        step /= 2;
    }
    Ok((bytes, story))
}
