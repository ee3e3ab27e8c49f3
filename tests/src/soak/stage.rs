//! The stage of a soak: hosts, the underlay that joins them, and an etcd.

use super::host::Host;
use crate::etcd::Etcd;
use crate::underlay::Underlay;

/// The hosts of a soak.
pub const HOSTS: usize = 3;
/// The address of etcd, on the underlay's bridge.
const ETCD: &str = "192.0.2.100";
/// The way by which hosts hear of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Gossip.
    Gossip,
    /// A real etcd.
    Etcd,
}

/// Everything that a soak has.
#[derive(Debug)]
pub struct Stage {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The etcd, if there is one.
    pub etcd: Option<Etcd>,
    /// The underlay.
    pub underlay: Underlay,
}

impl Stage {
    /// Starts everything, with the `vswitch` command `binary`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn new(binary: &str, source: Source) -> Self {
        let underlay = Underlay::new(binary);
        let etcd = (source == Source::Etcd).then(|| {
            underlay.bridge.ip(&["address", "add", &format!("{ETCD}/24"), "dev", "br0"]);
            Etcd::start(&underlay.bridge, ETCD)
        });
        let arguments = |number: usize| match &etcd {
            None => underlay.gossips(number),
            Some(etcd) => {
                let (url, name) = (etcd.url(), format!("host{number}"));
                ["--uplink", "none", "--cluster", &url, "--cluster-host", &name, "--cluster-lease", "5"]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        let hosts = (1..=HOSTS).map(|number| Host::start(binary, &underlay, number, &arguments(number)));
        Self { hosts: hosts.collect(), etcd, underlay }
    }
}
