//! Driver options: what `-o KEY=VALUE` and `--driver-opt KEY=VALUE` mean.
//!
//! Keys and values are Docker's. A key below `com.docker.network.` or `vswitch.` that is not known is
//! refused with the nearest known one, since an option that is silently ignored is worse than none;
//! any other key is somebody else's and is kept as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Code, Error, Result};

const ICC: &str = "com.docker.network.bridge.enable_icc";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const NETWORK_KEYS: [&str; 3] = [ICC, MTU, PREFIX];

const INTERFACE: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const ADVERTISE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
const ADVERTISE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";
const PORT_TYPE: &str = "vswitch.port_type";
const ENDPOINT_KEYS: [&str; 5] = [INTERFACE, SYSCTLS, ADVERTISE_COUNT, ADVERTISE_INTERVAL, PORT_TYPE];

const OURS: [&str; 2] = ["com.docker.network.", "vswitch."];
const MTU_DEFAULT: u16 = 1500;
/// The smallest MTU of IPv4 (RFC 791), and of IPv6 (RFC 8200).
const MTU_MIN: u16 = 68;
const MTU_MIN_V6: u16 = 1280;
/// The largest of a TAP: 65,535 bytes less an Ethernet header (`MAX_MTU` of `drivers/net/tun.c`).
const MTU_MAX: u16 = 65_521;

/// What a network's options say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Whether containers of the network may reach each other.
    pub icc: bool,
    /// Largest network packet, in bytes.
    pub mtu: u16,
    /// What interfaces in sandboxes are called, before the number.
    pub interface_prefix: String,
}

impl NetworkOptions {
    /// Reads them.
    ///
    /// # Errors
    /// For an unknown key and for a value that makes no sense.
    pub fn parse(options: &BTreeMap<String, String>, ipv6: bool) -> Result<Self> {
        refuse_unknown(options, &NETWORK_KEYS)?;
        let icc = options.get(ICC).map_or(Ok(true), |value| parse_bool(ICC, value))?;
        let mtu = options.get(MTU).map_or(Ok(MTU_DEFAULT), |value| parse_mtu(value, ipv6))?;
        let interface_prefix = options.get(PREFIX).cloned().unwrap_or_else(|| "eth".to_owned());
        // Room for a number of four digits, more than a sandbox ever has interfaces.
        check_interface(&interface_prefix, 11, "interface name prefix")?;
        Ok(Self { icc, mtu, interface_prefix })
    }
}

/// How a port is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum PortType {
    /// A TAP made in the sandbox's namespace: the fastest.
    #[default]
    Tap,
    /// A TAP made in the daemon's namespace and moved, so that it does not keep the sandbox's alive.
    TapMoved,
    /// A veth pair whose far end is kept in a private namespace: for programs that want a veth.
    Veth,
    /// A descriptor that another process made.
    #[clap(skip)]
    Fd,
}

impl PortType {
    /// Those a client may ask for, and their names.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcements {
    pub count: u8,
    pub interval_ms: u16,
}
impl Default for Announcements {
    fn default() -> Self {
        Self { count: 3, interval_ms: 1000 }
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    pub protocol: String,
    pub table: String,
    pub name: String,
    pub value: String,
}
impl Sysctl {
    fn parse(text: &str) -> Result<Self> {
        let refusal = || invalid(format!("{SYSCTLS}: {text:?} is no setting of an interface"));
        let (key, value) = text.split_once('=').ok_or_else(refusal)?;
        let parts: Vec<&str> = key.trim().split('.').collect();
        let ["net", protocol, table, "IFNAME", name] = parts[..] else { return Err(refusal()) };
        let [protocol, table, name, value] = [protocol, table, name, value].map(str::to_owned);
        Ok(Self { protocol, table, name, value })
    }
    pub fn path(&self, interface: &str) -> std::path::PathBuf {
        ["/proc/sys/net", &self.protocol, &self.table, interface, &self.name].iter().collect()
    }
}

/// What an endpoint's options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    pub mac: Option<vswitch_frame::Mac>,
    pub sysctls: Vec<Sysctl>,
    pub announcements: Announcements,
    /// The name of the interface in the sandbox.
    pub interface: Option<String>,
    /// How the port is made.
    pub port_type: PortType,
}

impl EndpointOptions {
    /// Reads them.
    ///
    /// # Errors
    /// For an unknown key and for a value that makes no sense.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        refuse_unknown(options, &ENDPOINT_KEYS)?;
        let interface = options.get(INTERFACE).cloned();
        if let Some(name) = &interface {
            check_interface(name, vswitch_sys::netlink::INTERFACE_NAME_BYTES_MAX, "interface name")?;
        }
        let port_type = options.get(PORT_TYPE).map_or(Ok(PortType::Tap), |value| {
            let known = PortType::NAMES.iter().find(|(name, _)| name == value);
            known.map(|(_, port_type)| *port_type).ok_or_else(|| {
                invalid(format!("{PORT_TYPE}={value}: no such port type: use tap, tap-moved or veth"))
            })
        })?;
        let sysctls = options.get(SYSCTLS).filter(|value| !value.is_empty());
        let sysctls = sysctls.map(|value| value.split(',').map(Sysctl::parse).collect::<Result<_>>());
        let number =
            |key: &str, default: u16| options.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
        let announcements = Announcements {
            count: u8::try_from(number(ADVERTISE_COUNT, 3)).unwrap_or(3),
            interval_ms: number(ADVERTISE_INTERVAL, 1000),
        };
        Ok(Self {
            interface,
            port_type,
            mac: None,
            sysctls: sysctls.transpose()?.unwrap_or_default(),
            announcements,
        })
    }

    /// The options that say this.
    pub fn render(interface: Option<&str>, port_type: PortType) -> BTreeMap<String, String> {
        let interface = interface.map(|name| (INTERFACE.to_owned(), name.to_owned()));
        let port_type =
            (port_type != PortType::Tap).then(|| (PORT_TYPE.to_owned(), port_type.label().to_owned()));
        interface.into_iter().chain(port_type).collect()
    }
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

fn refuse_unknown(options: &BTreeMap<String, String>, known: &[&str]) -> Result<()> {
    let ours = |key: &&String| OURS.iter().any(|prefix| key.starts_with(prefix));
    let unknown = options.keys().filter(ours).find(|key| !known.contains(&key.as_str()));
    let Some(key) = unknown else { return Ok(()) };
    let nearest = known.iter().min_by_key(|candidate| distance(key, candidate)).copied().unwrap_or_default();
    Err(Error::new(Code::UnknownOption, format!("option {key} is not known: the nearest is {nearest}")))
}

/// Levenshtein's distance: how many bytes to insert, delete or replace.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[other.len()]
}

/// What Go's `strconv.ParseBool` takes, as Docker does.
fn parse_bool(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(invalid(format!("{key}={value}: no truth value: use true or false"))),
    }
}

fn parse_mtu(value: &str, ipv6: bool) -> Result<u16> {
    let min = if ipv6 { MTU_MIN_V6 } else { MTU_MIN };
    match value.parse() {
        Ok(0) => Ok(MTU_DEFAULT),
        Ok(mtu) if (min..=MTU_MAX).contains(&mtu) => Ok(mtu),
        _ => Err(invalid(format!("{MTU}={value}: no MTU: use {min} to {MTU_MAX}, or 0 for {MTU_DEFAULT}"))),
    }
}

/// Names the kernel takes (`dev_valid_name`), less `%`, which it takes for a pattern.
fn check_interface(name: &str, bytes_max: usize, what: &str) -> Result<()> {
    let usable = !name.is_empty()
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    if usable && name.len() <= bytes_max {
        return Ok(());
    }
    Err(invalid(format!(
        "{name:?} is no {what}: use 1 to {bytes_max} characters, none of them a space, / : or %"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_dockers() {
        let expected = NetworkOptions { icc: true, mtu: 1500, interface_prefix: "eth".to_owned() };
        assert_eq!(NetworkOptions::parse(&map(&[]), false), Ok(expected.clone()));
        assert_eq!(NetworkOptions::parse(&map(&[(MTU, "0"), ("org.example.x", "y")]), true), Ok(expected));
        assert_eq!(EndpointOptions::parse(&map(&[])), Ok(EndpointOptions::default()));
    }

    #[test]
    fn values_are_read() {
        let options = NetworkOptions::parse(&map(&[(ICC, "False"), (MTU, "9000"), (PREFIX, "net")]), false);
        assert_eq!(options, Ok(NetworkOptions { icc: false, mtu: 9000, interface_prefix: "net".to_owned() }));
        for (_, port_type) in PortType::NAMES {
            let options = EndpointOptions::render(Some("lan0"), port_type);
            let expected = EndpointOptions {
                interface: Some("lan0".to_owned()),
                port_type,
                ..EndpointOptions::default()
            };
            assert_eq!(EndpointOptions::parse(&options), Ok(expected));
        }
    }

    #[test]
    fn bad_values_are_refused() {
        let bad = [
            (ICC, "yes"),
            (MTU, "67"),
            (MTU, "65522"),
            (MTU, "-1"),
            (PREFIX, "a b"),
            (PREFIX, "elevenbytes+"),
        ];
        for pair in bad {
            let error = NetworkOptions::parse(&map(&[pair]), false).expect_err(pair.1);
            assert_eq!(error.code, Code::InvalidArgument, "{pair:?}");
        }
        assert!(NetworkOptions::parse(&map(&[(MTU, "1279")]), true).is_err());
        for pair in [(INTERFACE, "a/b"), (INTERFACE, ""), (INTERFACE, "sixteen-bytes-xx"), (PORT_TYPE, "fd")]
        {
            assert!(EndpointOptions::parse(&map(&[pair])).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = NetworkOptions::parse(&map(&[("com.docker.network.bridge.enable_ic", "1")]), false);
        let message =
            format!("option com.docker.network.bridge.enable_ic is not known: the nearest is {ICC}");
        assert_eq!(error, Err(Error::new(Code::UnknownOption, message)));
        assert!(NetworkOptions::parse(&map(&[("vswitch.x", "1")]), false).is_err());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
