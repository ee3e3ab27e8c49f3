//! Machine, date and commit of a run, and whether anything else was going on.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};
use vswitch_control::calendar::rfc3339;
use vswitch_sys::wallclock;

/// A machine, as far as it matters to a figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its processor.
    pub processor: String,
    /// Processors it has.
    pub processors: usize,
    /// Its memory, in GiB.
    pub memory_gib: u64,
    /// Its kernel's release.
    pub kernel: String,
    /// Whether it is a virtual machine.
    pub virtual_machine: bool,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let processors = read("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            processor: field(&processors, "model name"),
            processors: processors.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: kib.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtual_machine: field(&processors, "flags").split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.virtual_machine { "virtual machine" } else { "machine" };
        let Self { processor, processors, memory_gib, kernel, .. } = self;
        write!(f, "{kind}, {processors} × {processor}, {memory_gib} GiB, Linux {kernel}")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Today, in UTC.
pub fn date() -> String {
    const DATE: usize = "2000-01-01".len();
    let mut moment = rfc3339(wallclock::since_epoch());
    moment.truncate(DATE);
    moment
}

/// The commit this program was built from, as far as git knows.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    git(&["describe", "--always", "--dirty", "--exclude=*"]).unwrap_or_else(|| "unknown".to_owned())
}

/// Says what else is going on that would spoil a figure, for a person; `None` on an idle machine.
pub fn disturbance() -> Option<String> {
    let load: f64 = read("/proc/loadavg").split(' ').next()?.parse().ok()?;
    let running = running();
    if running.is_empty() && load < 0.5 {
        return None;
    }
    let running = if running.is_empty() { "nothing right now".to_owned() } else { running.join(", ") };
    Some(format!("the machine is not idle: load {load}, running: {running}; figures may be off"))
}

/// The names of processes, but this one, that are running at this moment.
fn running() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = ids.filter(|&id| id != std::process::id());
    others
        .filter_map(|id| {
            let status = read(&format!("/proc/{id}/stat"));
            let (name, rest) = status.split_once('(')?.1.rsplit_once(") ")?;
            rest.starts_with('R').then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_processors() {
        let machine = Machine::this();
        assert!(machine.processors > 0 && !machine.kernel.is_empty(), "{machine}");
    }
}
