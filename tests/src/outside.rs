//! A world beyond the host: a namespace that the host's default routes lead to.
//!
//! ```text
//!  host  up0 203.0.113.2 ───── 203.0.113.1 down0  outside  (also 192.0.2.80)
//!        2001:db8:1::2         2001:db8:1::1               (also 2001:db8:80::80)
//! ```
//!
//! It knows the way to the host's addresses only, as the world does: who comes with another one gets no
//! answer.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::namespace::Namespace;

/// The interface of the host's default routes.
pub const UPLINK: &str = "up0";
/// The host's addresses there.
pub const HOST: [&str; 2] = ["203.0.113.2", "2001:db8:1::2"];
/// The routers of the host's default routes.
pub const ROUTERS: [&str; 2] = ["203.0.113.1", "2001:db8:1::1"];
/// Addresses behind these routers.
pub const FAR: [&str; 2] = ["192.0.2.80", "2001:db8:80::80"];

/// The world.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
}

impl Outside {
    /// Puts a world behind a host.
    ///
    /// # Panics
    /// When the interfaces cannot be made.
    pub fn behind(host: &Namespace) -> Self {
        let namespace = Namespace::new();
        let peer = ["type", "veth", "peer", "name", "down0", "netns", namespace.name()];
        host.ip(&[&["link", "add", UPLINK][..], &peer].concat());
        namespace.ip(&["link", "set", "down0", "up"]);
        host.ip(&["link", "set", UPLINK, "up"]);
        for (number, length) in [(0, 24), (1, 64)] {
            let (own, router) =
                (format!("{}/{length}", HOST[number]), format!("{}/{length}", ROUTERS[number]));
            add_address(host, &own, UPLINK);
            add_address(&namespace, &router, "down0");
            let far_length = if number == 0 { 32 } else { 128 };
            add_address(&namespace, &format!("{}/{far_length}", FAR[number]), "lo");
            host.ip(&["route", "add", "default", "via", ROUTERS[number]]);
        }
        Self { namespace }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The file of its namespace.
    pub fn path(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Everybody there: the routers, and who is behind them.
    ///
    /// # Panics
    /// Never.
    pub fn everybody() -> impl Iterator<Item = IpAddr> {
        ROUTERS.iter().chain(&FAR).map(|text| text.parse().expect("an address"))
    }
}

fn add_address(namespace: &Namespace, address: &str, interface: &str) {
    let mut words = vec!["address", "add", address, "dev", interface];
    if address.contains(':') {
        words.push("nodad");
    }
    namespace.ip(&words);
}
