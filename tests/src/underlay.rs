//! An underlay that joins hosts, each with an uplink of its own, and the key that they share.
//!
//! ```text
//!  host 1  wan0 192.0.2.1 ──┐
//!  host 2  wan0 192.0.2.2 ──┼── br0  underlay
//!  host 3  wan0 192.0.2.3 ──┘
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::{Namespace, must, unique_name};

/// See the [module](self).
#[derive(Debug)]
pub struct Underlay {
    /// The namespace of the bridge.
    pub bridge: Namespace,
    folder: PathBuf,
}

impl Underlay {
    /// A new one, whose key is made by the `vswitch` command `binary`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(binary: &str) -> Self {
        let bridge = Namespace::new();
        bridge.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        bridge.ip(&["link", "set", "br0", "up"]);
        let folder = std::env::temp_dir().join(unique_name());
        fs::create_dir(&folder).expect("a folder");
        let underlay = Self { bridge, folder };
        underlay.write_key(binary, "key");
        underlay
    }

    /// Writes another key, and names its file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_key(&self, binary: &str, name: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, must(Command::new(binary).args(["cluster", "key"]))).expect("written");
        path.display().to_string()
    }

    /// The folder of keys.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives a host its uplink.
    pub fn connect(&self, host: &Namespace, number: usize) {
        let port = format!("port{number}");
        let far = ["type", "veth", "peer", "name", &port, "netns", self.bridge.name()];
        host.ip(&[&["link", "add", "wan0"][..], &far].concat());
        self.bridge.ip(&["link", "set", &port, "master", "br0", "up"]);
        host.ip(&["address", "add", &format!("192.0.2.{number}/24"), "dev", "wan0"]);
        host.ip(&["link", "set", "wan0", "up"]);
    }

    /// Cuts a host off, or joins it again.
    pub fn set(&self, number: usize, state: &str) {
        self.bridge.ip(&["link", "set", &format!("port{number}"), state]);
    }

    /// Options of `vswitch run` for a host that gossips; all join the first.
    pub fn gossips(&self, number: usize) -> Vec<String> {
        let (host, advertise) = (format!("host{number}"), format!("192.0.2.{number}"));
        let key = self.folder.join("key").display().to_string();
        let own = ["--uplink", "none", "--advertise", &advertise, "--cluster-host", &host];
        let mut arguments: Vec<String> = own.map(str::to_owned).to_vec();
        arguments.extend(["--cluster-key-file".to_owned(), key]);
        if number > 1 {
            arguments.extend(["--join".to_owned(), "192.0.2.1".to_owned()]);
        }
        arguments
    }
}

impl Drop for Underlay {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}
