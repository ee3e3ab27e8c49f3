//! Options of networks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use vswitch_contract::network::GatewayMode;

use crate::error::Result;
use crate::network::options::announcements::{ADVERTISE_COUNT, ADVERTISE_INTERVAL, Announcements};
use crate::network::options::overlay::{PEERS, VNI, VTEP};
use crate::network::options::values::{MTU, MTU_MIN_V6, Values, check_interface, invalid, refuse_unknown};

/// The name of a network's host port.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT_V4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const HOST_V4: &str = "com.docker.network.host_ipv4";
const HOST_V6: &str = "com.docker.network.host_ipv6";
const ENABLE_V4: &str = "com.docker.network.enable_ipv4";
const ENABLE_V6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";
const PORT_SECURITY: &str = "vswitch.port_security";
const NETWORK_KEYS: [&str; 21] = [
    BRIDGE_NAME,
    MTU,
    ICC,
    MASQUERADE,
    MODE_V4,
    MODE_V6,
    HOST_BINDING,
    INHIBIT_V4,
    TRUSTED,
    PREFIX,
    HOST_V4,
    HOST_V6,
    ENABLE_V4,
    ENABLE_V6,
    INTERNAL,
    PORT_SECURITY,
    ADVERTISE_COUNT,
    ADVERTISE_INTERVAL,
    VNI,
    PEERS,
    VTEP,
];

/// Options of a network, as they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// The name of its host port.
    pub bridge_name: Option<String>,
    /// Whether containers of the network may reach each other.
    pub icc: bool,
    /// Whether packets that leave the network get an address of the host.
    pub masquerade: bool,
    /// The mode of IPv4: who may reach its containers directly.
    pub mode_v4: GatewayMode,
    /// The mode of IPv6: who may reach its containers directly.
    pub mode_v6: GatewayMode,
    /// The address at which published ports listen that name no address of the host.
    pub host_binding: Ipv4Addr,
    /// Whether somebody else has the IPv4 gateway address: the switch and the host do not.
    pub inhibit_v4: bool,
    /// Interfaces of the host from which containers may be reached directly whatever the mode.
    pub trusted: Vec<String>,
    /// Largest network packet, in bytes.
    pub mtu: u16,
    /// The name of interfaces in sandboxes, before the number.
    pub interface_prefix: String,
    /// The IPv4 address of the host that packets get which leave the network.
    pub host_v4: Option<Ipv4Addr>,
    /// The IPv6 address of the host that packets get which leave the network.
    pub host_v6: Option<Ipv6Addr>,
    /// Whether it has IPv4, where the request does not say.
    pub enable_v4: Option<bool>,
    /// Whether it has IPv6, where the request does not say.
    pub enable_v6: Option<bool>,
    /// Whether it goes without a default route.
    pub internal: bool,
    /// Whether a container may only send from its own addresses.
    pub port_security: bool,
    /// Announcements of new endpoints.
    pub announcements: Announcements,
}

impl NetworkOptions {
    /// Reads them; an MTU they do not tell is that of the host's uplink, `uplink_mtu`, in bytes.
    ///
    /// # Errors
    /// For an unknown key and for a value that makes no sense.
    pub fn parse(options: &BTreeMap<String, String>, uplink_mtu: u32) -> Result<Self> {
        refuse_unknown(options, &NETWORK_KEYS)?;
        let values = Values(options);
        let bridge_name = values.0.get(BRIDGE_NAME).filter(|name| !name.is_empty()).cloned();
        if let Some(name) = &bridge_name {
            check_interface(name, vswitch_sys::netlink::INTERFACE_NAME_BYTES_MAX, "interface name")?;
        }
        let interface_prefix = options.get(PREFIX).cloned().unwrap_or_else(|| "eth".to_owned());
        // Room for a number of four digits, more than a sandbox ever has interfaces.
        check_interface(&interface_prefix, 11, "interface name prefix")?;
        Ok(Self {
            bridge_name,
            icc: values.truth(ICC)?.unwrap_or(true),
            masquerade: values.truth(MASQUERADE)?.unwrap_or(true),
            mode_v4: values.mode(MODE_V4)?,
            mode_v6: values.mode(MODE_V6)?,
            host_binding: values.address(HOST_BINDING)?.unwrap_or(Ipv4Addr::UNSPECIFIED),
            inhibit_v4: values.truth(INHIBIT_V4)?.unwrap_or(false),
            trusted: values.interfaces(TRUSTED)?,
            mtu: values.mtu(uplink_mtu)?,
            interface_prefix,
            host_v4: values.address(HOST_V4)?,
            host_v6: values.address(HOST_V6)?,
            enable_v4: values.truth(ENABLE_V4)?,
            enable_v6: values.truth(ENABLE_V6)?,
            internal: values.truth(INTERNAL)?.unwrap_or(false),
            port_security: values.truth(PORT_SECURITY)?.unwrap_or(true),
            announcements: Announcements::default().changed_by(values)?,
        })
    }

    /// Checks them against what else the network is.
    ///
    /// # Errors
    /// For options that such a network cannot have.
    pub fn check(&self, internal: bool, ipv6: bool) -> Result<()> {
        for (key, mode) in [(MODE_V4, self.mode_v4), (MODE_V6, self.mode_v6)] {
            if mode == GatewayMode::Isolated && !internal {
                return Err(invalid(format!(
                    "{key}=isolated: only an internal network can be: give --internal, too"
                )));
            }
        }
        if ipv6 && self.mtu < MTU_MIN_V6 {
            return Err(invalid(format!("{MTU}={}: IPv6 needs {MTU_MIN_V6}: use that or more", self.mtu)));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::network::options::values::{MTU_MAX, distance};

    pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    pub(crate) fn defaults() -> NetworkOptions {
        NetworkOptions::parse(&map(&[]), 1500).expect("defaults")
    }

    #[test]
    fn defaults_are_dockers() {
        let options = defaults();
        let truths = [options.icc, options.masquerade, options.port_security];
        assert_eq!((truths, options.inhibit_v4, options.internal), ([true; 3], false, false));
        assert_eq!((options.mode_v4, options.mode_v6), (GatewayMode::Nat, GatewayMode::Nat));
        assert_eq!((options.interface_prefix.as_str(), options.mtu), ("eth", 1500));
        assert_eq!((options.host_v4, options.host_v6), (None, None));
        assert_eq!(
            (options.enable_v4, options.enable_v6, options.bridge_name.as_deref()),
            (None, None, None)
        );
        assert!(options.host_binding.is_unspecified() && options.trusted.is_empty());
        assert_eq!(options.announcements, Announcements { count: 3, interval_ms: 1000 });
        let unsaid = [(MTU, "0"), (HOST_V4, ""), (MODE_V4, ""), (TRUSTED, ""), ("org.example.x", "y")];
        assert_eq!(NetworkOptions::parse(&map(&unsaid), 1500), Ok(options.clone()));
    }

    #[test]
    fn values_are_read() {
        let written = map(&[
            (BRIDGE_NAME, "br0"),
            (ICC, "False"),
            (MASQUERADE, "0"),
            (MODE_V4, "routed"),
            (MODE_V6, "nat-unprotected"),
            (HOST_BINDING, "127.0.0.1"),
            (INHIBIT_V4, "true"),
            (TRUSTED, "eth0:wg0"),
            (MTU, "9000"),
            (PREFIX, "net"),
            (HOST_V4, "192.0.2.1"),
            (HOST_V6, "2001:db8::1"),
            (ENABLE_V4, "f"),
            (ENABLE_V6, "t"),
            (INTERNAL, "1"),
            (PORT_SECURITY, "off"),
            (ADVERTISE_COUNT, "0"),
            (ADVERTISE_INTERVAL, "100"),
        ]);
        assert_eq!(written.len() + 3, NETWORK_KEYS.len(), "those of overlays are read elsewhere");
        let expected = NetworkOptions {
            bridge_name: Some("br0".to_owned()),
            icc: false,
            masquerade: false,
            mode_v4: GatewayMode::Routed,
            mode_v6: GatewayMode::NatUnprotected,
            host_binding: Ipv4Addr::LOCALHOST,
            inhibit_v4: true,
            trusted: vec!["eth0".to_owned(), "wg0".to_owned()],
            mtu: 9000,
            interface_prefix: "net".to_owned(),
            host_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            host_v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            enable_v4: Some(false),
            enable_v6: Some(true),
            internal: true,
            port_security: false,
            announcements: Announcements { count: 0, interval_ms: 100 },
        };
        assert_eq!(NetworkOptions::parse(&written, 1500), Ok(expected));
    }

    #[test]
    fn bad_values_are_refused() {
        let bad = [
            (BRIDGE_NAME, "a/b"),
            (ICC, "yes"),
            (MODE_V4, "bridged"),
            (HOST_BINDING, "::1"),
            (HOST_V4, "somewhere"),
            (HOST_V6, "192.0.2.1"),
            (TRUSTED, "eth0:a b"),
            (MTU, "67"),
            (MTU, "65522"),
            (MTU, "-1"),
            (PREFIX, "a b"),
            (PREFIX, "elevenbytes+"),
            (ADVERTISE_COUNT, "4"),
            (ADVERTISE_INTERVAL, "99"),
        ];
        for pair in bad {
            let error = NetworkOptions::parse(&map(&[pair]), 1500).expect_err(pair.1);
            assert_eq!(error.code, Code::InvalidArgument, "{pair:?}");
            assert!(error.message.contains(pair.1.rsplit(':').next().unwrap_or_default()), "{error}");
        }
    }

    #[test]
    fn the_mtu_is_that_of_the_way_out_unless_given() {
        let mtu = |options: &[(&str, &str)], uplink| {
            NetworkOptions::parse(&map(options), uplink).expect("options").mtu
        };
        assert_eq!(mtu(&[], 1400), 1400);
        assert_eq!(mtu(&[(MTU, "0")], 9001), 9001);
        assert_eq!(mtu(&[(MTU, "1500")], 1400), 1500);
        assert_eq!(mtu(&[], 65_536), MTU_MAX);
    }

    #[test]
    fn what_depends_on_the_network_is_checked() {
        let check = |options: &[(&str, &str)], internal, ipv6| {
            NetworkOptions::parse(&map(options), 1500).expect("options").check(internal, ipv6)
        };
        assert_eq!(check(&[(MTU, "1279")], false, false), Ok(()));
        assert!(check(&[(MTU, "1279")], false, true).is_err());
        for key in [MODE_V4, MODE_V6] {
            assert_eq!(check(&[(key, "isolated")], true, true), Ok(()));
            let error = check(&[(key, "isolated")], false, true).expect_err("not internal");
            assert!(error.message.starts_with(key), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = NetworkOptions::parse(&map(&[("com.docker.network.bridge.enable_ic", "1")]), 1500);
        let message =
            format!("option com.docker.network.bridge.enable_ic is not known: the nearest is {ICC}");
        assert_eq!(error, Err(Error::new(Code::UnknownOption, message)));
        assert!(NetworkOptions::parse(&map(&[("vswitch.x", "1")]), 1500).is_err());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
