//! Programs run for a contender, each inside a network namespace and never outliving this process.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use vswitch_sys::netns::NetNs;
use vswitch_traffic::{Process, netns_path, program};

use crate::error::BenchError;

/// A program to run in a namespace.
#[derive(Debug)]
pub struct Program {
    name: String,
    mend: &'static str,
    command: Command,
}

impl Program {
    /// The program `name`; `mend` says what to do when it fails to start.
    ///
    /// # Errors
    /// When an argument is not UTF-8.
    pub fn new<'a>(
        netns: &NetNs,
        name: &str,
        arguments: impl IntoIterator<Item = &'a str>,
        mend: &'static str,
    ) -> Result<Self, BenchError> {
        let command = program(&netns_path(netns), name, name, arguments)?;
        Ok(Self { name: name.to_owned(), mend, command })
    }

    /// This very program as `vswitch`.
    ///
    /// # Errors
    /// When an argument is not UTF-8.
    pub fn vswitch(
        netns: &NetNs,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Self, BenchError> {
        let command = program(&netns_path(netns), "/proc/self/exe", "vswitch", arguments)?;
        Ok(Self { name: "vswitch".to_owned(), mend: "see its message", command })
    }

    /// Sets an environment variable.
    pub fn env(&mut self, name: &str, value: &Path) {
        self.command.env(name, value);
    }

    /// Runs it to its end, with something on its standard input, and answers with what it printed.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub fn run(&mut self, input: &str) -> Result<String, BenchError> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading says why on its own.
            let _: io::Result<()> = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BenchError::Program { name: self.name.clone(), said, mend: self.mend })
    }

    /// Starts it, waits until it prints a line, and leaves it running.
    ///
    /// # Errors
    /// When it prints another line than `ready`, or ends.
    pub fn spawn_and_wait_for(&mut self, ready: &str) -> Result<Process, BenchError> {
        self.command.stdout(Stdio::piped());
        let mut process = self.spawn()?;
        let mut said = String::new();
        if let Some(stdout) = process.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said.trim() == ready {
            return Ok(process);
        }
        Err(BenchError::Program { name: self.name.clone(), said: said.trim().to_owned(), mend: self.mend })
    }

    /// Starts it and leaves it running, silently.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<Process, BenchError> {
        Ok(Process { child: self.command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()? })
    }
}
