//! Options of endpoints: what `--driver-opt KEY=VALUE` means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vswitch_frame::Mac;
use vswitch_sys::netlink::INTERFACE_NAME_BYTES_MAX;

use crate::error::Result;
use crate::network::options::announcements::{ADVERTISE_COUNT, ADVERTISE_INTERVAL, Announcements};
use crate::network::options::network::NetworkOptions;
use crate::network::options::values::{Values, check_interface, invalid, refuse_unknown};

const INTERFACE: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const MAC: &str = "com.docker.network.endpoint.macaddress";
const PORT_TYPE: &str = "vswitch.port_type";
const ENDPOINT_KEYS: [&str; 6] = [INTERFACE, SYSCTLS, MAC, ADVERTISE_COUNT, ADVERTISE_INTERVAL, PORT_TYPE];

/// The way a port is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortType {
    /// A TAP made in the sandbox's namespace: the fastest.
    #[default]
    Tap,
    /// A TAP made in the daemon's namespace and moved, so that it does not keep the sandbox's alive.
    TapMoved,
    /// A veth pair whose far end is kept in a private namespace: for programs that want a veth.
    Veth,
    /// A descriptor that another process made.
    Fd,
}

impl PortType {
    /// Types that a client may ask for, and their names.
    pub const NAMES: [(&str, PortType); 3] =
        [("tap", PortType::Tap), ("tap-moved", PortType::TapMoved), ("veth", PortType::Veth)];

    /// The name clients see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::TapMoved => "tap-moved",
            Self::Veth => "veth",
            Self::Fd => "fd",
        }
    }
}

/// A setting of the kernel's for one interface, below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// `ipv4`, `ipv6` or `mpls`.
    pub protocol: String,
    /// `conf` or `neigh`.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The value it is to have.
    pub value: String,
}

impl Sysctl {
    /// Reads one as Docker writes it: `net.ipv4.conf.IFNAME.forwarding=1`, with `IFNAME` as it stands.
    fn parse(text: &str) -> Result<Self> {
        let refusal = || {
            invalid(format!(
                "{SYSCTLS}: {text:?} is no setting of an interface: write net.ipv4.conf.IFNAME.KEY=VALUE, with IFNAME as it stands"
            ))
        };
        let (key, value) = text.split_once('=').ok_or_else(refusal)?;
        let parts: Vec<&str> = key.trim().split('.').collect();
        let ["net", protocol, table, "IFNAME", name] = parts[..] else { return Err(refusal()) };
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let known = matches!(protocol, "ipv4" | "ipv6" | "mpls") && matches!(table, "conf" | "neigh");
        let usable = known && !name.is_empty() && name.bytes().all(word);
        let value = value.trim();
        if !usable || value.is_empty() || value.chars().any(char::is_control) {
            return Err(refusal());
        }
        let [protocol, table, name, value] = [protocol, table, name, value].map(str::to_owned);
        Ok(Self { protocol, table, name, value })
    }

    /// The file of an interface's setting, as its network namespace sees it.
    pub fn path(&self, interface: &str) -> PathBuf {
        ["/proc/sys/net", &self.protocol, &self.table, interface, &self.name].iter().collect()
    }
}

/// Options of an endpoint, as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// The name of the interface in the sandbox.
    pub interface: Option<String>,
    /// The MAC address of the interface.
    pub mac: Option<Mac>,
    /// Settings of the kernel's for the interface.
    pub sysctls: Vec<Sysctl>,
    /// Announcements of the endpoint.
    pub announcements: Announcements,
    /// The type of the port.
    pub port_type: PortType,
}

impl EndpointOptions {
    /// Reads them; announcements that they do not tell of are those of the network.
    ///
    /// # Errors
    /// For an unknown key and for a value that makes no sense.
    pub fn parse(options: &BTreeMap<String, String>, network: &NetworkOptions) -> Result<Self> {
        refuse_unknown(options, &ENDPOINT_KEYS)?;
        let interface = options.get(INTERFACE).cloned();
        if let Some(name) = &interface {
            check_interface(name, INTERFACE_NAME_BYTES_MAX, "interface name")?;
        }
        let mac = options.get(MAC).map(|value| {
            value.parse().map_err(|_| {
                invalid(format!("{MAC}={value}: no MAC address: write six bytes, as in 02:42:ac:11:00:02"))
            })
        });
        let sysctls = options.get(SYSCTLS).filter(|value| !value.is_empty());
        let sysctls = sysctls.map(|value| value.split(',').map(Sysctl::parse).collect::<Result<_>>());
        let port_type = options.get(PORT_TYPE).map_or(Ok(PortType::Tap), |value| {
            let known = PortType::NAMES.iter().find(|(name, _)| name == value);
            known.map(|(_, port_type)| *port_type).ok_or_else(|| {
                invalid(format!("{PORT_TYPE}={value}: no such port type: use tap, tap-moved or veth"))
            })
        })?;
        Ok(Self {
            interface,
            mac: mac.transpose()?,
            sysctls: sysctls.transpose()?.unwrap_or_default(),
            announcements: network.announcements.changed_by(Values(options))?,
            port_type,
        })
    }

    /// The options that say this, as clients write them.
    pub fn render(interface: Option<&str>, port_type: PortType) -> BTreeMap<String, String> {
        let interface = interface.map(|name| (INTERFACE.to_owned(), name.to_owned()));
        let port_type =
            (port_type != PortType::Tap).then(|| (PORT_TYPE.to_owned(), port_type.label().to_owned()));
        interface.into_iter().chain(port_type).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::network::options::network::tests::{defaults, map};

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(EndpointOptions::parse(&map(&[]), &defaults()), Ok(EndpointOptions::default()));
    }

    #[test]
    fn values_of_endpoints_are_read() {
        for (_, port_type) in PortType::NAMES {
            let options = EndpointOptions::render(Some("lan0"), port_type);
            let interface = Some("lan0".to_owned());
            let expected = EndpointOptions { interface, port_type, ..EndpointOptions::default() };
            assert_eq!(EndpointOptions::parse(&options, &defaults()), Ok(expected));
        }
        let network =
            NetworkOptions::parse(&map(&[(ADVERTISE_COUNT, "1"), (ADVERTISE_INTERVAL, "2000")]), 1500);
        let written = map(&[
            (MAC, "02:00:00:00:00:07"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.forwarding=1,net.ipv6.neigh.IFNAME.ucast_solicit=4"),
            (ADVERTISE_COUNT, "2"),
        ]);
        let options = EndpointOptions::parse(&written, &network.expect("network")).expect("options");
        assert_eq!(options.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
        assert_eq!(options.announcements, Announcements { count: 2, interval_ms: 2000 });
        let found = options.sysctls.iter().map(|sysctl| (sysctl.path("eth0"), sysctl.value.as_str()));
        let expected = ["ipv4/conf/eth0/forwarding", "ipv6/neigh/eth0/ucast_solicit"];
        let expected = expected.map(|path| PathBuf::from("/proc/sys/net").join(path));
        assert!(found.eq(expected.into_iter().zip(["1", "4"])));
    }

    #[test]
    fn bad_values_are_refused() {
        let bad = [
            (INTERFACE, "a/b"),
            (INTERFACE, ""),
            (INTERFACE, "sixteen-bytes-xx"),
            (MAC, "02:00"),
            (SYSCTLS, "net.ipv4.conf.eth0.forwarding=1"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.forwarding"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.forwarding="),
            (SYSCTLS, "net.ipv4.conf.IFNAME./../x=1"),
            (SYSCTLS, "net.core.conf.IFNAME.x=1"),
            (SYSCTLS, "kernel.ipv4.conf.IFNAME.x=1"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.x=1,,"),
            (ADVERTISE_COUNT, "-1"),
            (ADVERTISE_INTERVAL, "2001"),
            (PORT_TYPE, "fd"),
        ];
        for pair in bad {
            let error = EndpointOptions::parse(&map(&[pair]), &defaults()).expect_err(pair.1);
            assert_eq!(error.code, Code::InvalidArgument, "{pair:?}");
        }
    }
}
