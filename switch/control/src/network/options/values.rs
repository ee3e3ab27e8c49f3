//! Reading options one by one.

use std::collections::BTreeMap;

use vswitch_contract::network::GatewayMode;

use crate::error::{Code, Error, Result};

/// Largest network packet.
pub const MTU: &str = "com.docker.network.driver.mtu";
const OURS: [&str; 2] = ["com.docker.network.", "vswitch."];
/// The MTU of Ethernet, for a host without a default route to go by.
pub const MTU_DEFAULT: u16 = 1500;
/// The smallest MTU of IPv4 (RFC 791), and of IPv6 (RFC 8200).
const MTU_MIN: u16 = 68;
pub(super) const MTU_MIN_V6: u16 = 1280;
/// The largest of a TAP: 65,535 bytes less an Ethernet header (`MAX_MTU` of `drivers/net/tun.c`).
pub(super) const MTU_MAX: u16 = 65_521;

pub(super) fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

pub(super) fn refuse_unknown(options: &BTreeMap<String, String>, known: &[&str]) -> Result<()> {
    let ours = |key: &&String| OURS.iter().any(|prefix| key.starts_with(prefix));
    let unknown = options.keys().filter(ours).find(|key| !known.contains(&key.as_str()));
    let Some(key) = unknown else { return Ok(()) };
    let nearest = known.iter().min_by_key(|candidate| distance(key, candidate)).copied().unwrap_or_default();
    Err(Error::new(Code::UnknownOption, format!("option {key} is not known: the nearest is {nearest}")))
}

/// Levenshtein's distance: how many bytes to insert, delete or replace.
pub(super) fn distance(one: &str, other: &str) -> usize {
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

/// Options that are read one by one; each is `None` when it is not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a>(pub(super) &'a BTreeMap<String, String>);

impl Values<'_> {
    /// A truth: what Go's `strconv.ParseBool` takes, as Docker does, and `on` and `off`.
    pub(super) fn truth(self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" | "on" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" | "off" => Ok(Some(false)),
            _ => Err(invalid(format!("{key}={value}: no truth value: use true or false"))),
        }
    }

    pub(super) fn mode(self, key: &str) -> Result<GatewayMode> {
        match self.0.get(key).map(String::as_str) {
            None | Some("" | "nat") => Ok(GatewayMode::Nat),
            Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
            Some("routed") => Ok(GatewayMode::Routed),
            Some("isolated") => Ok(GatewayMode::Isolated),
            Some(value) => Err(invalid(format!(
                "{key}={value}: no gateway mode: use nat, nat-unprotected, routed or isolated"
            ))),
        }
    }

    pub(super) fn address<T: std::str::FromStr>(self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.0.get(key).filter(|value| !value.is_empty()) else { return Ok(None) };
        let family = if key.ends_with("ipv6") { "IPv6" } else { "IPv4" };
        value.parse().map(Some).map_err(|_| invalid(format!("{key}={value}: no {family} address: write one")))
    }

    pub(super) fn interfaces(self, key: &str) -> Result<Vec<String>> {
        let value = self.0.get(key).map(String::as_str).unwrap_or_default();
        let names: Vec<String> =
            value.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let bytes_max = vswitch_sys::netlink::INTERFACE_NAME_BYTES_MAX;
        names.iter().try_for_each(|name| check_interface(name, bytes_max, "interface name"))?;
        Ok(names)
    }

    /// An MTU in bytes; 0 stands for none, as Docker has it.
    pub(super) fn mtu(self, uplink: u32) -> Result<u16> {
        let derived = u16::try_from(uplink).unwrap_or(MTU_MAX).clamp(MTU_MIN, MTU_MAX);
        let Some(value) = self.0.get(MTU) else { return Ok(derived) };
        match value.parse() {
            Ok(0) => Ok(derived),
            Ok(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Ok(mtu),
            _ => Err(invalid(format!(
                "{MTU}={value}: no MTU: use {MTU_MIN} to {MTU_MAX}, or 0 for that of the host's way out"
            ))),
        }
    }

    pub(super) fn number(self, key: &str, min: u16, max: u16) -> Result<Option<u16>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| (min..=max).contains(number));
        let number = number.ok_or_else(|| invalid(format!("{key}={value}: use {min} to {max}")))?;
        Ok(Some(number))
    }
}

/// Names the kernel takes (`dev_valid_name`), less `%`, which it takes for a pattern.
pub(super) fn check_interface(name: &str, bytes_max: usize, what: &str) -> Result<()> {
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
