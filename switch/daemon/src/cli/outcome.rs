//! The outcome of a command: an exit code, or why it failed.

use std::process::ExitCode;

/// The reason that a command failed for: one line for standard error.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

pub(super) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    /// Says the line; the exit code that goes with it.
    pub(super) fn complain(&self) -> ExitCode {
        eprintln!("vswitch: {}", self.0);
        ExitCode::FAILURE
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
