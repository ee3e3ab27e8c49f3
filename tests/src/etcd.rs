//! Real etcds, in a namespace of the test's, and the certificates for one with TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::namespace::{Namespace, inside, must, unique_name};
use crate::wait;
use crate::world::send_signal;

/// A member of an etcd, usually its only one. It is gone when this is dropped, and so is what it knew.
#[derive(Debug)]
pub struct Etcd {
    namespace: PathBuf,
    address: String,
    folder: PathBuf,
    arguments: Vec<String>,
    authority: Option<PathBuf>,
    process: Option<Child>,
}

impl Etcd {
    /// Starts one that listens on an address of a namespace, and waits until it serves.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(namespace: &Namespace, address: &str) -> Self {
        let mut etcd = Self::prepare(namespace, address);
        etcd.start_again();
        etcd
    }

    /// Starts one with further arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(namespace: &Namespace, address: &str, arguments: &[&str]) -> Self {
        let mut etcd = Self::prepare(namespace, address);
        etcd.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        etcd.start_again();
        etcd
    }

    /// Starts one that wants TLS, and certificates of its clients that the same authority has signed.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_secure(namespace: &Namespace, address: &str, authority: &Authority) -> Self {
        let mut etcd = Self::prepare(namespace, address);
        let (certificate, key) = authority.sign("etcd", &format!("IP:{address}"));
        let file = |path: &Path| path.display().to_string();
        let ca = authority.certificate();
        etcd.arguments.extend([
            "--cert-file".to_owned(),
            file(&certificate),
            "--key-file".to_owned(),
            file(&key),
        ]);
        etcd.arguments.extend(["--trusted-ca-file".to_owned(), file(&ca), "--client-cert-auth".to_owned()]);
        etcd.authority = Some(authority.folder.clone());
        etcd.start_again();
        etcd
    }

    /// Starts one of three members, each on an address of its own, and waits until all serve.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn start_three(namespace: &Namespace, addresses: [&str; 3]) -> [Self; 3] {
        let peers = addresses.map(|address| format!("{address}=http://{address}:2380")).join(",");
        let mut members = addresses.map(|address| {
            let mut etcd = Self::prepare(namespace, address);
            etcd.arguments.extend(["--initial-cluster".to_owned(), peers.clone()]);
            etcd
        });
        members.iter_mut().for_each(|etcd| etcd.process = Some(etcd.run()));
        members.iter().for_each(Self::wait);
        members
    }

    fn prepare(namespace: &Namespace, address: &str) -> Self {
        let folder = std::env::temp_dir().join(unique_name());
        fs::create_dir(&folder).expect("a folder for etcd");
        Self {
            namespace: namespace.path(),
            address: address.to_owned(),
            folder,
            arguments: Vec::new(),
            authority: None,
            process: None,
        }
    }

    fn run(&self) -> Child {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        let clients = format!("{scheme}://{}:2379", self.address);
        let peers = format!("http://{}:2380", self.address);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("log");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.address, "--unsafe-no-fsync", "--data-dir"])
            .arg(self.folder.join("data"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        if !self.arguments.iter().any(|argument| argument == "--initial-cluster") {
            command.args(["--initial-cluster", &format!("{}={peers}", self.address)]);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        inside(&self.namespace, || command.spawn()).expect("etcd starts; tests/run installs it")
    }

    /// Starts it again after a [`stop`](Self::stop), with what it knew, and waits until it serves.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.process = Some(self.run());
        self.wait();
    }

    fn wait(&self) {
        wait::until("etcd serves", || {
            let health = self.curl("/health", None)?;
            (health["health"] == "true").then_some(())
        });
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("etcd runs");
        send_signal(process.id(), Signal::SIGKILL);
        process.wait().expect("our child");
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.process.as_ref().expect("etcd runs").id(), signal);
    }

    /// Removes everything it knows, while it is stopped.
    ///
    /// # Panics
    /// When it cannot be removed.
    pub fn forget(&self) {
        fs::remove_dir_all(self.folder.join("data")).expect("its data");
    }

    /// The URL that `--cluster` takes.
    pub fn url(&self) -> String {
        format!("etcd://{}:2379", self.address)
    }

    /// One request to its gateway; the answer's JSON.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        self.ask_as(path, body, "")
    }

    /// One request with a token.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn ask_as(&self, path: &str, body: &Value, token: &str) -> Value {
        self.curl(path, Some((body, token))).unwrap_or_else(|| panic!("no answer to {path}"))
    }

    /// The identifiers of all leases.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn leases(&self) -> Vec<String> {
        let leases = self.ask("/v3/lease/leases", &serde_json::json!({}));
        let leases = leases["leases"].as_array().cloned().unwrap_or_default();
        leases.iter().filter_map(|lease| Some(lease["ID"].as_str()?.to_owned())).collect()
    }

    /// One of its counters, summed up over its labels.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn counter(&self, name: &str) -> f64 {
        let text = self.fetch("/metrics", None).expect("etcd's counters");
        let lines = text.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn curl(&self, path: &str, question: Option<(&Value, &str)>) -> Option<Value> {
        serde_json::from_str(&self.fetch(path, question)?).ok()
    }

    fn fetch(&self, path: &str, question: Option<(&Value, &str)>) -> Option<String> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "5"]);
        if let Some(folder) = &self.authority {
            let file = |name: &str| folder.join(name);
            command.arg("--cacert").arg(file("ca.pem"));
            command.arg("--cert").arg(file("etcd.pem")).arg("--key").arg(file("etcd.key"));
        }
        if let Some((body, token)) = question {
            command.arg("-H").arg(format!("Authorization: {token}")).arg("-d").arg(body.to_string());
        }
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        command.arg(format!("{scheme}://{}:2379{path}", self.address));
        let output = inside(&self.namespace, || command.output()).expect("curl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped one hears nothing else.
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("etcd's log, the last line first:\n{}", last.join("\n"));
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// An authority that signs certificates, with all its files in one folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When `openssl` is not there.
    pub fn new() -> Self {
        let authority = Self { folder: std::env::temp_dir().join(unique_name()) };
        fs::create_dir(&authority.folder).expect("a folder for certificates");
        let (key, certificate) = (authority.folder.join("ca.key"), authority.certificate());
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command
            .args(["-subj", "/CN=authority", "-days", "2", "-keyout"])
            .arg(key)
            .arg("-out")
            .arg(certificate);
        must(&mut command);
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate that it signed, for servers and clients, and its key. `names` as openssl has them:
    /// `IP:127.0.0.1`.
    ///
    /// # Panics
    /// When `openssl` does not do it.
    pub fn sign(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        let (certificate, key, request, extensions) = (file("pem"), file("key"), file("csr"), file("ext"));
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        fs::write(&extensions, format!("subjectAltName={names}\n{usage}\n")).expect("extensions");
        let mut command = Command::new("openssl");
        command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]);
        command.arg(format!("/CN={name}")).arg("-keyout").arg(&key).arg("-out").arg(&request);
        must(&mut command);
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"]).arg(&request);
        command.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.folder.join("ca.key"));
        command.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate);
        must(&mut command);
        (certificate, key)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}
