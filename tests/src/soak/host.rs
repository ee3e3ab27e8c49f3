//! A host of the soak: a switch whose disk is small and whose clock can be set.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vswitch_sys::clock;
use vswitch_sys::seqpacket::Channel;

use super::tally::Tally;
use crate::api::request;
use crate::namespace::must;
use crate::underlay::Underlay;
use crate::world::{World, send_signal};

/// The library that makes a process see another time of day (Debian's package `faketime`), found by the
/// dynamic linker in the folder of this machine's architecture.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";
/// The size of the disk with the state.
const SIZE: &str = "size=1m";

/// See the [module](self).
#[derive(Debug)]
pub struct Host {
    /// The switch.
    pub world: World,
    /// The number of the host, from one.
    pub number: usize,
    clock: PathBuf,
    /// Dropped behind the switch, which has its state there.
    disk: Disk,
}

/// A small disk, which is unmounted when this is dropped.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(folder: PathBuf) -> Self {
        fs::create_dir(&folder).expect("a folder for a disk");
        must(Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "vswitch-soak"]).arg(&folder));
        Self { folder }
    }

    /// The file that fills it.
    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).output());
        if let Some(folder) = self.folder.parent() {
            drop(fs::remove_dir_all(folder));
        }
    }
}

impl Host {
    /// Starts a switch on the underlay.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(binary: &str, underlay: &Underlay, number: usize, arguments: &[String]) -> Self {
        let clock = underlay.folder().join(format!("clock{number}"));
        fs::write(&clock, "+0").expect("a file for the clock");
        let wrapper = [
            "env".to_owned(),
            format!("LD_PRELOAD={FAKETIME}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let connect = |host: &_| underlay.connect(host, number);
        let mut world = World::start_wrapped(binary, &wrapper, &arguments, connect).0;
        world.stop(Signal::SIGTERM);
        fs::remove_dir_all(world.state_dir()).expect("the state of a switch that was stopped");
        let disk = Disk::mount(world.state_dir());
        let mut host = Self { world, number, clock, disk };
        host.world.start_again();
        host
    }

    /// One request that must be answered.
    ///
    /// # Errors
    /// One line, when it is not.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        match request(&self.world.socket(), "GET", path, &Value::Null) {
            Ok((200, answer)) => Ok(answer),
            other => Err(format!("host {}: GET {path}: {other:?}", self.number)),
        }
    }

    /// Kills control and starts it again; the datapath, too, if it shall.
    pub fn kill(&mut self, both: bool, tally: &Tally) {
        if both {
            self.kill_datapath();
        }
        self.world.stop(Signal::SIGKILL);
        let from = clock::now();
        self.world.start_again();
        tally.took("control that was killed answers again", clock::now().since(from));
    }

    /// Kills the datapath, if there is one now.
    pub fn kill_datapath(&self) {
        if let Some(pid) = self.datapath_pid() {
            send_signal(pid, Signal::SIGKILL);
        }
    }

    /// Sends control or the datapath a signal, if it is there.
    pub fn signal(&self, signal: Signal, to_control: bool) {
        let datapath = || {
            let channel = Channel::connect(&self.world.state_dir().join("datapath.sock")).ok()?;
            Some(channel.peer().ok()?.pid)
        };
        let pid = if to_control { Some(self.world.control_pid()) } else { datapath() };
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        // It may have ended meanwhile.
        pid.into_iter().for_each(|pid| kill(Pid::from_raw(pid), signal).unwrap_or_default());
    }

    /// The datapath's process identifier, if there is one now.
    pub fn datapath_pid(&self) -> Option<u32> {
        let pid = self.get("/stats").ok()?["Datapath"]["Pid"].as_u64()?;
        u32::try_from(pid).ok().filter(|pid| Path::new("/proc").join(pid.to_string()).exists())
    }

    /// Takes the disk's last byte, or gives it back.
    pub fn fill_disk(&self, is_full: bool) {
        if !is_full {
            // It is not there when it was never filled.
            let _ = fs::remove_file(self.disk.filler());
            return;
        }
        let Ok(mut file) = fs::File::create(self.disk.filler()) else { return };
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Sets the clock that control sees: seconds ahead of the right time.
    ///
    /// # Panics
    /// When it cannot be set.
    pub fn set_clock(&self, ahead_s: i64) {
        fs::write(&self.clock, format!("{ahead_s:+}")).expect("a file for the clock");
    }

    /// Counts of what must not grow: interfaces of the host, and descriptors and resident memory (KiB) of
    /// both processes.
    pub fn belongings(&self) -> BTreeMap<&'static str, u64> {
        let datapath = self.datapath_pid().unwrap_or_default();
        let control = self.world.control_pid();
        let links = self.world.host().ip(&["-o", "link"]).lines().count();
        BTreeMap::from([
            ("interfaces", links as u64),
            ("descriptors of control", descriptors(control)),
            ("descriptors of the datapath", descriptors(datapath)),
            ("memory of control", resident(control)),
            ("memory of the datapath", resident(datapath)),
        ])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // One that is stopped could not end.
        self.signal(Signal::SIGCONT, true);
        self.signal(Signal::SIGCONT, false);
    }
}

fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |folder| folder.count() as u64)
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A pause between two faults; nothing is waited for.
#[expect(clippy::disallowed_methods, reason = "faults come at times of their own")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
