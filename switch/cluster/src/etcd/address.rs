//! `etcd://HOST:PORT,…`: the addresses of an etcd's members.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port that etcd's clients use.
const PORT: u16 = 2379;

/// Members that are tried; etcd itself advises against more than seven.
const ENDPOINTS_MAX: usize = 16;

/// One member of an etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An etcd, as `--cluster` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The members, at least one.
    pub endpoints: Vec<Endpoint>,
    /// Whether TLS is asked for by the scheme.
    pub secure: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no HOST or HOST:PORT; an IPv6 address is written [::1]:2379");
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (host, rest)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None if rest.is_empty() => PORT,
            None => return Err(wrong()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no etcd: write etcd://HOST:2379[,HOST:2379…], or etcds:// for TLS");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let secure = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(wrong()),
        };
        let list = rest.strip_suffix('/').unwrap_or(rest);
        let endpoints: Vec<Endpoint> = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(format!(
                "{} members of an etcd are too many: name at most {ENDPOINTS_MAX}",
                endpoints.len()
            ));
        }
        Ok(Self { endpoints, secure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address: Address = "etcd://10.0.0.1,db.example:4001,[fd00::1]:2379/".parse().expect("an address");
        let shown: Vec<String> = address.endpoints.iter().map(Endpoint::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:2379", "db.example:4001", "[fd00::1]:2379"]);
        assert!(!address.secure);
        assert!("etcds://a".parse::<Address>().expect("an address").secure);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "etcd://",
            "10.0.0.1:2379",
            "http://10.0.0.1:2379",
            "etcd://a:0",
            "etcd://a:b",
            "etcd://a,,b",
            "etcd://fd00::1",
            "etcd://[fd00::1",
            "etcd://[a]:1",
            "etcd://[::1]x",
            "etcd://a b",
            "etcd://user@a",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
