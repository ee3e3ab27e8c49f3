//! The `--network` flag of a new sandbox: the name of a network, or Docker's long form, which says in one
//! word what the endpoint on it shall be like.

use std::str::FromStr;

use vswitch_control::api::types::{EndpointConfig, NetworkWish};

use super::key_value::key_value;

const KEYS: &str = "name, alias, ip, ip6, mac-address, driver-opt and gw-priority";

/// Reads a name, or `name=lan,ip=10.1.0.5,gw-priority=1`.
pub(super) fn parse(text: &str) -> Result<NetworkWish, String> {
    if !text.contains('=') {
        return Ok(NetworkWish { network: text.to_owned(), endpoint_config: EndpointConfig::default() });
    }
    let (mut network, mut config) = (String::new(), EndpointConfig::default());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?}: write KEY=VALUE"))?;
        match key {
            "name" => value.clone_into(&mut network),
            "alias" => config.aliases.push(value.to_owned()),
            "ip" => config.ipam_config.ipv4_address = Some(read(key, value)?),
            "ip6" => config.ipam_config.ipv6_address = Some(read(key, value)?),
            "mac-address" => config.mac_address = Some(read(key, value)?),
            "driver-opt" => config.driver_opts.extend([key_value(value)?]),
            "gw-priority" => config.gw_priority = read(key, value)?,
            _ => return Err(format!("{key:?} is not known: the keys are {KEYS}")),
        }
    }
    if network.is_empty() {
        return Err("it names no network: write name=NETWORK, too".to_owned());
    }
    Ok(NetworkWish { network, endpoint_config: config })
}

fn read<T: FromStr<Err: std::fmt::Display>>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{key}={value}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let short = parse("lan").expect("a name");
        assert_eq!((short.network.as_str(), short.endpoint_config), ("lan", EndpointConfig::default()));
        let long = parse("name=lan,ip=10.1.0.5,ip6=fd00::5,alias=a,alias=b,gw-priority=-3,driver-opt=k=v=w")
            .expect("the long form");
        let config = long.endpoint_config;
        assert_eq!((long.network.as_str(), config.gw_priority), ("lan", -3));
        assert_eq!(config.aliases, ["a", "b"]);
        assert_eq!(config.ipam_config.ipv4_address, Some([10, 1, 0, 5].into()));
        assert_eq!(config.ipam_config.ipv6_address, "fd00::5".parse().ok());
        assert_eq!(config.driver_opts.get("k").map(String::as_str), Some("v=w"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, named) in [
            ("ip=10.1.0.5", "names no network"),
            ("name=lan,ip=ten", "ip=ten"),
            ("name=lan,colour=red", "\"colour\""),
            ("name=lan,alias", "\"alias\""),
            ("name=lan,gw-priority=high", "gw-priority=high"),
            ("name=lan,mac-address=02", "mac-address=02"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
