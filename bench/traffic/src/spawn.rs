//! The caller's side of a worker: starting it, hearing what it says, ending it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;

use crate::worker::{Job, Order, SUBCOMMAND};

/// Why a measurement has no result.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A worker could not be started.
    #[error("cannot start a traffic worker: {0}")]
    Start(#[from] io::Error),
    /// A worker failed, and this is its own word for it.
    #[error("traffic {role} failed: {message}")]
    Worker {
        /// Its role: source or target.
        role: &'static str,
        /// One line.
        message: String,
    },
}

/// A running worker, killed when dropped.
pub(crate) struct Worker {
    role: &'static str,
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn start(role: &'static str, netns: &Path, job: Job) -> Result<Self, TrafficError> {
        let mut command = command(netns, job)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let said = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        Ok(Self { role, child, said: BufReader::new(said) })
    }

    /// The next thing the worker says.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T, TrafficError> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| self.failure())
    }

    /// Lets the worker end, hears its last word and waits for it.
    pub(crate) fn finish<T: DeserializeOwned>(mut self) -> Result<T, TrafficError> {
        drop(self.child.stdin.take());
        let report = self.hear()?;
        if self.child.wait()?.success() { Ok(report) } else { Err(self.failure()) }
    }

    /// Why the worker has failed, if it has.
    pub(crate) fn failed(mut self) -> Option<TrafficError> {
        drop(self.child.stdin.take());
        let ended = self.child.try_wait().ok().flatten()?;
        (!ended.success()).then(|| self.failure())
    }

    /// The failure of a worker that has said nothing sensible and so is ending, in its own words.
    fn failure(&mut self) -> TrafficError {
        let mut message = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // A message that cannot be read is left out: there is no better one to be had.
            let _ = stderr.read_to_string(&mut message);
        }
        let message = match message.trim() {
            "" => "it ended without a word".to_owned(),
            line => line.to_owned(),
        };
        TrafficError::Worker { role: self.role, message }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a worker that has ended and been waited for: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` as `name` inside a network namespace, and ends with the thread that
/// spawns it.
///
/// # Errors
/// When this process cannot be told from others, or an argument is not UTF-8.
pub fn program(
    netns: &Path,
    program: impl Into<OsString>,
    name: impl Into<OsString>,
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> io::Result<Command> {
    let arguments = arguments.into_iter().map(Into::into).collect();
    command(netns, Job::Program { program: program.into(), name: name.into(), arguments })
}

fn command(netns: &Path, job: Job) -> io::Result<Command> {
    let order = Order { netns: netns.to_owned(), parent: std::process::id(), job };
    let mut command = Command::new(PathBuf::from("/proc/self/exe"));
    command.arg(SUBCOMMAND).arg(serde_json::to_string(&order)?);
    Ok(command)
}
