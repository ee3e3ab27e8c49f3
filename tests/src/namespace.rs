//! Network namespaces that are gone when the test is, even if it panics.
//!
//! Names carry the process identifier, so tests run in parallel and find what a killed run left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "vst-";

/// A name no other test uses: `vst-`, the process identifier, a number.
pub fn unique_name() -> String {
    static SWEPT: Once = Once::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    SWEPT.call_once(sweep);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the namespaces of test processes that were killed before they could.
fn sweep() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(Command::new("ip").args(["netns", "delete", &name]).output());
        }
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Panics
/// When it cannot be started or does not succeed.
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something on a thread of its own inside the namespace at `path`. Sockets, interfaces and processes
/// that it makes belong there.
///
/// # Panics
/// When the namespace cannot be entered, and when `work` panics.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let namespace = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns needs root");
        work()
    };
    let outcome = thread::scope(|scope| scope.spawn(enter).join());
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A named network namespace, with its loopback interface up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let made = Self { name: unique_name() };
        must(Command::new("ip").args(["netns", "add", &made.name]));
        made.ip(&["link", "set", "lo", "up"]);
        made
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs something inside; see [`inside`].
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path(), work)
    }

    /// Runs `ip` inside and returns what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        must(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs a command inside to its end.
    pub fn output(&self, command: &mut Command) -> Output {
        self.inside(|| command.output()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", &self.name]).output());
    }
}
