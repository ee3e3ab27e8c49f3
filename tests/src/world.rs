//! A running switch with containers, all of it private to one test.
//!
//! ```text
//!  World ── host namespace ── `vswitch run` ── socket in a folder of its own
//!    ├─ Container "a"   sandbox made by the switch            (world.sandbox)
//!    └─ Container "b"   namespace of ours, attached           (world.attach)
//! ```
//!
//! Dropping the world stops the switch and removes namespaces and files, also when the test panics; the
//! switch's log is shown then.

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vswitch_frame::{DropReason, Mac};
use vswitch_sys::seqpacket::Channel;

use crate::namespace::{Namespace, inside, must, unique_name};
use crate::{talk, wait};

/// A switch in a host namespace of its own.
#[derive(Debug)]
pub struct World {
    binary: PathBuf,
    folder: PathBuf,
    host: Namespace,
    /// A command that runs `vswitch run` with its arguments, if it is not run by itself.
    wrapper: Vec<String>,
    /// Further arguments of `vswitch run`.
    options: Vec<String>,
    daemon: Option<Child>,
}

/// A container: a network namespace with an interface of the switch.
#[derive(Debug)]
pub struct Container {
    /// The name the switch knows it by.
    pub name: String,
    /// The file of its network namespace.
    pub path: PathBuf,
    /// The namespace, if it is ours and not the switch's.
    _namespace: Option<Namespace>,
}

/// A command's refusal.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit status.
    pub code: i32,
    /// Its standard error.
    pub message: String,
}

impl World {
    /// Starts a switch and waits until it answers. `binary` is the `vswitch` command.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(binary: &str) -> Self {
        Self::start_prepared(binary, |_| ()).0
    }

    /// Starts a switch in a host namespace that was prepared before.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_prepared<T>(binary: &str, prepare: impl FnOnce(&Namespace) -> T) -> (Self, T) {
        Self::start_with(binary, &[], prepare)
    }

    /// Starts a switch in a host namespace that was prepared before, with options of `vswitch run`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with<T>(binary: &str, options: &[&str], prepare: impl FnOnce(&Namespace) -> T) -> (Self, T) {
        Self::start_wrapped(binary, &[], options, prepare)
    }

    /// Starts a switch by a command that is given that of `vswitch run`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_wrapped<T>(
        binary: &str,
        wrapper: &[&str],
        options: &[&str],
        prepare: impl FnOnce(&Namespace) -> T,
    ) -> (Self, T) {
        let [wrapper, options] =
            [wrapper, options].map(|words| words.iter().map(|&word| word.to_owned()).collect());
        let folder = std::env::temp_dir().join(unique_name());
        fs::create_dir(&folder).expect("a folder for the switch");
        let host = Namespace::new();
        let prepared = prepare(&host);
        let mut world = Self { binary: binary.into(), folder, host, wrapper, options, daemon: None };
        world.start_again();
        (world, prepared)
    }

    /// Gives `vswitch run` other options from its next start on.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&word| word.to_owned()).collect();
    }

    /// Starts the switch again after a [`stop`](Self::stop) and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        let mut daemon = self.run_daemon();
        let socket = self.socket();
        wait::until("the switch answers", || {
            let ended = daemon.try_wait().expect("our child");
            assert!(ended.is_none(), "the switch does not start:\n{}", self.logged());
            UnixStream::connect(&socket).ok()
        });
        self.daemon = Some(daemon);
        // It connects as soon as there is a socket, and answers when everything is restored.
        self.vswitch(&["version"]);
    }

    /// Starts the next control after one that was killed, whether or not the kernel is done with that, and
    /// asks until there is an answer.
    ///
    /// # Panics
    /// When the next one ends, or there is no answer before a deadline.
    pub fn replace<T>(&mut self, mut ask: impl FnMut() -> Option<T>) -> T {
        let mut next = self.run_daemon();
        let before = self.daemon.take();
        let answer = wait::until("the next control answers", || {
            let ended = next.try_wait().expect("our child");
            assert!(ended.is_none(), "the next control does not start:\n{}", self.logged());
            ask()
        });
        self.daemon = Some(next);
        before.into_iter().for_each(|mut before| drop(before.wait()));
        answer
    }

    /// Starts another `vswitch run` on the same socket; its standard error goes to the log.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_daemon(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("log");
        let mut command = self.command(&["run"]);
        if let Some((program, arguments)) = self.wrapper.split_first() {
            let mut outer = Command::new(program);
            outer.args(arguments).arg(command.get_program()).args(command.get_args());
            command = outer;
        }
        command.arg("--resolv-conf").arg(self.resolv_conf()).args(&self.options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // The child is born into the network namespace of the thread that starts it.
        self.host.inside(|| command.spawn()).expect("vswitch starts")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The host namespace that the switch runs in.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The file that names the host's name servers. There is none unless a test writes it, so that no test
    /// asks anybody by accident.
    pub fn resolv_conf(&self) -> PathBuf {
        self.folder.join("resolv.conf")
    }

    /// The folder of the socket, the state and the log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name that no other test uses for anything that is global on a host.
    pub fn global_name(&self, name: &str) -> String {
        format!("{}-{name}", self.host.name())
    }

    /// A `vswitch` command for this switch.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&arguments[..1]).arg("--socket").arg(self.socket());
        if arguments[0] == "run" {
            command.arg("--state-dir").arg(self.state_dir());
        }
        command.args(&arguments[1..]);
        command
    }

    /// Runs a `vswitch` command and returns what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn vswitch(&self, arguments: &[&str]) -> String {
        must(&mut self.command(arguments))
    }

    /// Runs a `vswitch` command inside a container and returns what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn exec(&self, container: &Container, command: &[&str]) -> String {
        self.vswitch(&[&["exec", &container.name, "--"], command].concat())
    }

    /// Runs a reading `vswitch` command with `--json`.
    ///
    /// # Panics
    /// When it does not succeed or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.vswitch(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Runs a `vswitch` command that must fail.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn refused(&self, arguments: &[&str]) -> Refusal {
        let output: Output = self.command(arguments).output().expect("vswitch starts");
        assert!(!output.status.success(), "{arguments:?} must be refused");
        Refusal {
            code: output.status.code().expect("an exit status"),
            message: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// One request by `curl`: status and JSON body.
    ///
    /// # Panics
    /// When there is no answer or it is no JSON; an empty body reads as null.
    pub fn curl(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]).arg(self.socket());
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        let answer = must(command.arg(format!("http://vswitch{path}")));
        let (text, status) = answer.rsplit_once('\n').expect("a status line");
        let parsed = if text.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(text) };
        let body = parsed.unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        (status.parse().expect("a status"), body)
    }

    /// Makes a network.
    ///
    /// # Panics
    /// When it is refused.
    pub fn network(&self, name: &str, options: &[&str]) {
        self.vswitch(&[&["network", "create", name], options].concat());
    }

    /// Lets the switch make a sandbox with an interface.
    ///
    /// # Panics
    /// When it is refused.
    pub fn sandbox(&self, name: &str, options: &[&str]) -> Container {
        let name = self.global_name(name);
        self.vswitch(&[&["sandbox", "create", &name], options].concat());
        let path = Path::new("/run/netns").join(&name);
        Container { name, path, _namespace: None }
    }

    /// Makes a namespace and attaches it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn attach(&self, name: &str, options: &[&str]) -> Container {
        let namespace = Namespace::new();
        self.vswitch(&[&["attach", name, "--netns", namespace.name()], options].concat());
        Container::attached(name, namespace)
    }

    /// The process identifier of control.
    ///
    /// # Panics
    /// When the switch was stopped.
    pub fn control_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the switch runs").id()
    }

    /// The process identifier of the datapath.
    ///
    /// # Panics
    /// When `stats` does not say.
    pub fn datapath_pid(&self) -> u32 {
        let pid = self.json(&["stats"])["Datapath"]["Pid"].as_u64().expect("a process identifier");
        u32::try_from(pid).expect("a process identifier")
    }

    /// The number of times that the datapath had to be started again.
    ///
    /// # Panics
    /// When `stats` does not say.
    pub fn restarts(&self) -> u64 {
        self.json(&["stats"])["Datapath"]["Restarts"].as_u64().expect("a number")
    }

    /// Sends control a signal and waits for its end.
    ///
    /// # Panics
    /// When it was stopped before, or does not end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the switch runs");
        send_signal(daemon.id(), signal);
        wait::until("control ends", || daemon.try_wait().expect("our child"))
    }

    /// The log of the switch so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The counters of a container's first port, as `stats` shows them.
    ///
    /// # Panics
    /// When it has no port.
    pub fn counters(&self, container: &Container) -> Value {
        let stats = self.json(&["stats"]);
        let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
        let port = ports.into_iter().find(|port| port["Sandbox"] == container.name.as_str());
        port.unwrap_or_else(|| panic!("no port of {}: {stats}", container.name))
    }

    /// The number of frames dropped for this reason at a container's port.
    pub fn drops(&self, container: &Container, reason: DropReason) -> u64 {
        self.counters(container)["Drops"][reason.label()].as_u64().unwrap_or(0)
    }
}

impl World {
    /// Ends the datapath and removes the namespaces of a control that was killed and not started again.
    fn end_survivors(&self) {
        let channel = Channel::connect(&self.state_dir().join("datapath.sock"));
        if let Ok(datapath) = channel.and_then(|channel| channel.peer()) {
            send_signal(datapath.pid, Signal::SIGKILL);
        }
        let ours = self.global_name("");
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&ours) {
                drop(Command::new("ip").args(["netns", "delete"]).arg(&name).output());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the switch's log:\n{}", self.logged());
        }
        if let Some(mut daemon) = self.daemon.take() {
            if let Ok(None) = daemon.try_wait() {
                send_signal(daemon.id(), Signal::SIGTERM);
            }
            drop(daemon.wait());
        }
        self.end_survivors();
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Sends a signal to a process of ours.
///
/// # Panics
/// When there is no such process.
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process identifier");
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("signal to {pid}: {error}"));
}

impl Container {
    /// A container in a namespace of ours that was attached by hand.
    pub fn attached(name: &str, namespace: Namespace) -> Self {
        Self { name: name.to_owned(), path: namespace.path(), _namespace: Some(namespace) }
    }

    /// Runs something inside; see [`inside`].
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path, work)
    }

    /// Runs `ip` inside and returns what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        self.inside(|| must(Command::new("ip").args(arguments)))
    }

    /// Its interfaces but the loopback, as `ip -j address` describes them.
    fn interfaces(&self) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.ip(&["-j", "address"])).expect("JSON");
        let all = all.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|interface| interface["ifname"] != "lo").collect()
    }

    /// Its first interface.
    ///
    /// # Panics
    /// When it has none.
    pub fn interface(&self) -> Value {
        self.interfaces().into_iter().next().unwrap_or_else(|| panic!("{} has no interface", self.name))
    }

    /// The name of its first interface.
    pub fn ifname(&self) -> String {
        self.interface()["ifname"].as_str().unwrap_or_default().to_owned()
    }

    /// The MAC address of its first interface.
    pub fn mac(&self) -> Mac {
        self.interface()["address"].as_str().unwrap_or_default().parse().expect("a MAC address")
    }

    /// The first global address of a family, `inet` or `inet6`, of its first interface.
    fn address_of(&self, family: &str) -> IpAddr {
        let interface = self.interface();
        let addresses = interface["addr_info"].as_array().cloned().unwrap_or_default();
        let found = addresses.iter().find(|found| found["family"] == family && found["scope"] == "global");
        let found = found.unwrap_or_else(|| panic!("{} has no {family} address: {interface}", self.name));
        found["local"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> IpAddr {
        self.address_of("inet")
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> IpAddr {
        self.address_of("inet6")
    }

    /// Asserts that an address answers a ping from here.
    ///
    /// # Panics
    /// When it does not.
    pub fn pings(&self, address: IpAddr) {
        assert!(talk::answers(&self.path, address), "{} gets no answer from {address}", self.name);
    }

    /// Asserts that an address does not answer a ping from here.
    ///
    /// # Panics
    /// When it does.
    pub fn cannot_ping(&self, address: IpAddr) {
        assert!(talk::is_silent(&self.path, address), "{} gets an answer from {address}", self.name);
    }

    /// Moves `bytes` both ways through a TCP connection to an address of `target` and checks them.
    pub fn transfers(&self, target: &Container, address: IpAddr, bytes: usize) {
        talk::transfer(&self.path, &target.path, address, bytes);
    }

    /// Sends datagrams of these sizes to an address of `target` and checks that all arrive.
    pub fn datagrams(&self, target: &Container, address: IpAddr, sizes: &[usize]) {
        talk::datagrams(&self.path, &target.path, address, sizes);
    }
}
