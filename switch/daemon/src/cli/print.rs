//! Standard output: text, or JSON for programs.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::outcome::Outcome;

/// Print JSON instead of a table.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Json {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints to standard output; a reader that has gone away ends the program quietly, as it does `ls`.
pub(super) fn print(text: &str) {
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Outcome {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?));
    Ok(ExitCode::SUCCESS)
}
