//! `vswitch run` as a child of this process, in a host namespace of its own.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vswitch_sys::netns::NetNs;

use crate::place::netns_path;
use crate::spawn::program;

/// A running program, ended when dropped.
#[derive(Debug)]
pub struct Process {
    /// The process.
    pub child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, so that it may clean up. It fails for one that has ended, which is what is wanted.
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Starts this very program as `vswitch run` and waits until its control socket answers. What it says
/// later goes to this process's standard error.
///
/// # Errors
/// With what it said, when it ends without being ready.
pub fn start_switch(host: &NetNs, socket: &Path, state: &Path) -> io::Result<Process> {
    let arguments =
        ["run".as_ref(), "--socket".as_ref(), socket.as_os_str(), "--state-dir".as_ref(), state.as_os_str()];
    let mut command = program(&netns_path(host), "/proc/self/exe", "vswitch", arguments)?;
    let mut process = Process { child: command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()? };
    if let Some(stderr) = process.child.stderr.take() {
        await_ready(stderr, socket)?;
    }
    Ok(process)
}

/// Waits for the line that says the socket is there, then lets whatever else it says through.
fn await_ready(stderr: ChildStderr, socket: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(stderr);
    let mut said = String::new();
    loop {
        if lines.read_line(&mut said)? == 0 {
            return Err(io::Error::other(format!("the switch did not start: {}", said.trim())));
        }
        if UnixStream::connect(socket).is_ok() {
            break;
        }
    }
    std::thread::spawn(move || {
        // A switch that nobody reads from would block when its pipe is full.
        let _ = io::copy(&mut lines, &mut io::stderr());
    });
    Ok(())
}
