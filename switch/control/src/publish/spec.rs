//! Published ports as they are written. Pure.
//!
//! The grammar is Docker's: `[ADDRESS:][HOSTPORT[-LAST]:]PORT[-LAST][/tcp|udp|sctp]`, an IPv6 address in
//! brackets. Ranges are of equal length, except a range on the host for one port of the container: it is a
//! pool to choose from. Without a port on the host, or with port 0, the kernel chooses. Without an address it
//! is every address of both families.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const GRAMMAR: &str = "write [ADDRESS:][HOSTPORT:]PORT[/tcp|udp|sctp], as in 127.0.0.1:8080:80/tcp";

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A range of ports, from 1 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl Ports {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The number of ports behind the first.
    pub fn rest(self) -> u16 {
        self.last - self.first
    }

    /// Whether it holds a port.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self { first: number(first)?, last: number(last)? };
        (ports.first != 0 && ports.first <= ports.last).then_some(ports)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Ports that shall be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The address on the host; `None` is all addresses, or that which the network prefers.
    pub host: Option<IpAddr>,
    /// Ports of the host: as many as of the container, or to choose one from; `None` leaves it to the kernel.
    pub host_ports: Option<Ports>,
    /// Ports of the container.
    pub container: Ports,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = split_protocol(text)?;
        let (address, ports) = split_address(rest)?;
        let (host_ports, container) = match ports.rsplit_once(':') {
            Some((host_ports, container)) => (host_ports, container),
            None => ("", ports),
        };
        if container.is_empty() {
            return Err(format!("no port specified: {text}<empty>: {GRAMMAR}"));
        }
        let parsed = Ports::parse(container);
        let container_ports = parsed.ok_or_else(|| {
            format!("invalid containerPort: {container}: give a port or range within 1 to 65535")
        })?;
        let host_ports = match host_ports {
            "" | "0" => None,
            text => {
                let parsed = Ports::parse(text);
                let mend = "give a port or range within 1 to 65535";
                Some(parsed.ok_or_else(|| format!("invalid hostPort: {text}: {mend}"))?)
            }
        };
        if let Some(host) = host_ports
            && container_ports.rest() != 0
            && host.rest() != container_ports.rest()
        {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}: give two of one \
                 length"
            ));
        }
        let host = match address {
            "" => None,
            text => Some(parse_address(text)?),
        };
        Ok(Self { host, host_ports, container: container_ports, protocol })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = self.host {
            write!(f, "{}:", shown(host))?;
        }
        match self.host_ports {
            Some(ports) => write!(f, "{ports}:")?,
            None if self.host.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.container, self.protocol)
    }
}

/// Ports of a container that its image says it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exposed {
    /// The ports.
    pub ports: Ports,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for Exposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = split_protocol(text)?;
        let parsed = Ports::parse(ports);
        let invalid =
            || format!("invalid port format for --expose: {text}: write PORT[-LAST][/tcp|udp|sctp]");
        Ok(Self { ports: parsed.ok_or_else(invalid)?, protocol })
    }
}

impl From<Exposed> for Spec {
    fn from(Exposed { ports, protocol }: Exposed) -> Self {
        Self { host: None, host_ports: None, container: ports, protocol }
    }
}

/// An address as it stands before a port.
pub fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Ok((rest, Protocol::Tcp)),
        "udp" => Ok((rest, Protocol::Udp)),
        "sctp" => Ok((rest, Protocol::Sctp)),
        _ => Err(format!("invalid proto: {protocol}: use tcp, udp or sctp")),
    }
}

/// The address, or nothing, and the ports behind it.
fn split_address(text: &str) -> Result<(&str, &str), String> {
    if text.starts_with('[') {
        let end = text.find("]:").ok_or_else(|| format!("invalid IP address: {text}: {GRAMMAR}"))?;
        let (address, ports) = (&text[..=end], &text[end + 2..]);
        if ports.matches(':').count() != 1 {
            return Err(format!("invalid publish opts format: {text}: {GRAMMAR}"));
        }
        return Ok((address, ports));
    }
    match text.matches(':').count() {
        0 | 1 => Ok(("", text)),
        2 => Ok(text.split_once(':').unwrap_or(("", text))),
        _ => {
            Err(format!("invalid IP address: {text}: write an IPv6 address in brackets, as in [::1]:8080:80"))
        }
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let parsed = match bracketed {
        Some(text) => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    };
    parsed.ok_or_else(|| format!("invalid IP address: {text}: {GRAMMAR}"))
}

/// A number as people write it: no sign, and a port.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports() -> impl Strategy<Value = Ports> {
        (1..=u16::MAX, 0..=u16::MAX)
            .prop_map(|(first, rest)| Ports { first, last: first.saturating_add(rest) })
    }

    fn spec() -> impl Strategy<Value = Spec> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
        let host = proptest::option::of(any::<IpAddr>());
        let host_ports = proptest::option::of((any::<bool>(), ports(), 1..=u16::MAX));
        (host, host_ports, ports(), protocol).prop_map(|(host, host_ports, container, protocol)| {
            let (host_ports, container) = match host_ports {
                None => (None, container),
                Some((true, pool, port)) => (Some(pool), Ports::one(port)),
                Some((false, _, first)) => {
                    let first = first.min(u16::MAX - container.rest());
                    (Some(Ports { first, last: first + container.rest() }), container)
                }
            };
            Spec { host, host_ports, container, protocol }
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(spec in spec()) {
            prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
        }

        #[test]
        fn nonsense_is_refused_in_one_line(text in "[0-9a-f:./\\[\\]-]{0,24}") {
            match text.parse::<Spec>() {
                Ok(spec) => prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec)),
                Err(error) => prop_assert_eq!(error.lines().count(), 1),
            }
        }
    }

    #[test]
    fn dockers_forms_are_read() {
        for (text, expected) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8080:80", "8080:80/tcp"),
            ("0:80", "80/tcp"),
            ("8000-8010:8000-8010/sctp", "8000-8010:8000-8010/sctp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
            ("[::1]:8080:80/udp", "[::1]:8080:80/udp"),
            ("[::]::80", "[::]::80/tcp"),
            ("8000-8010", "8000-8010/tcp"),
        ] {
            assert_eq!(text.parse::<Spec>().map(|spec| spec.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_in_dockers_words() {
        for (text, expected) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("localhost:80", "invalid hostPort: localhost"),
            ("8080:http", "invalid containerPort: http"),
            ("0", "invalid containerPort: 0"),
            ("65536", "invalid containerPort: 65536"),
            ("+80", "invalid containerPort: +80"),
            ("90-80", "invalid containerPort: 90-80"),
            ("8081-8080:80", "invalid hostPort: 8081-8080"),
            ("8080:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8080"),
            ("8000-8002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
            ("80/icmp", "invalid proto: icmp"),
            ("80/", "invalid proto: "),
            ("10.0.0.256:8080:80", "invalid IP address: 10.0.0.256"),
            ("::1:8080:80", "invalid IP address: ::1:8080:80"),
            ("[10.0.0.1]:8080:80", "invalid IP address: [10.0.0.1]"),
            ("[::1]:80", "invalid publish opts format: [::1]:80"),
            ("[::1", "invalid IP address: [::1"),
        ] {
            let error = text.parse::<Spec>().expect_err(text);
            assert!(error.starts_with(&format!("{expected}: ")), "{text}: {error}");
        }
        let error = "http".parse::<Exposed>().expect_err("no number");
        assert!(error.starts_with("invalid port format for --expose: http: "), "{error}");
        assert_eq!("80-81/udp".parse::<Exposed>().map(Spec::from), "80-81/udp".parse::<Spec>());
    }
}
