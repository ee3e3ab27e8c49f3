//! Networks, and wishes for endpoints on them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_frame::Mac;

use crate::api::types::reading::{Map, empty_is_none, or_default};

/// Body of `POST /networks/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `bridge`, or nothing for the same.
    #[serde(deserialize_with = "or_default")]
    pub driver: String,
    /// Whether it has IPv4; yes if nothing is said.
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6; if nothing is said, whether it has an IPv6 subnet.
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// `local`, or nothing for the same.
    #[serde(deserialize_with = "or_default")]
    pub scope: String,
    /// Whether it goes without a default route.
    #[serde(deserialize_with = "or_default")]
    pub internal: bool,
    /// Docker's mark of a network that containers outside services may join.
    #[serde(deserialize_with = "or_default")]
    pub attachable: bool,
    /// Docker's mark of the network that publishes services; refused.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// Docker's mark of a network that only configures others; refused.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub config_only: bool,
    /// Docker's network that configures this one; refused.
    #[serde(deserialize_with = "or_default")]
    pub config_from: ConfigFrom,
    /// Its subnets.
    #[serde(rename = "IPAM", deserialize_with = "or_default")]
    pub ipam: Ipam,
    /// Driver options.
    #[serde(deserialize_with = "or_default")]
    pub options: Map,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: Map,
}

/// The way a network gives addresses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// `default`.
    #[serde(deserialize_with = "or_default")]
    pub driver: String,
    /// Options of that driver: none is known.
    #[serde(deserialize_with = "or_default")]
    pub options: Map,
    /// Its subnets.
    #[serde(deserialize_with = "or_default")]
    pub config: Vec<IpamConfig>,
}

/// A network that configures another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub network: String,
}

/// One subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// The subnet, as in `10.1.0.0/16`; or its size, as in `0.0.0.0/16`.
    #[serde(deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNet>,
    /// Its gateway.
    #[serde(deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The part of it from which addresses are given to those who ask for none.
    #[serde(rename = "IPRange", deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// Addresses that no endpoint gets, by name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, IpAddr>,
}

/// Answer of `POST /networks/create`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreated {
    /// Its identifier.
    pub id: String,
    /// Nothing.
    pub warning: String,
}

/// A network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub id: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// `local`.
    pub scope: String,
    /// `bridge`; or `host` and `null`, those of the networks that are none.
    pub driver: String,
    /// Whether it has IPv4.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its subnets.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Whether it goes without a default route.
    pub internal: bool,
    /// Docker's mark of a network that containers outside services may join.
    pub attachable: bool,
    /// `false`.
    pub ingress: bool,
    /// Nothing.
    pub config_from: ConfigFrom,
    /// `false`.
    pub config_only: bool,
    /// Its endpoints, by the identifier of their sandbox.
    pub containers: BTreeMap<String, NetworkContainer>,
    /// The other hosts that have it; in lists, and of networks that span no hosts, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NetworkPeer>,
    /// Lines about what is wrong with it on this host: that it cannot be here, or addresses that two have. In
    /// lists none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Driver options.
    pub options: Map,
    /// Labels.
    pub labels: Map,
}

/// Answer of `POST /networks/prune`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworksPruned {
    /// The names of the networks that were removed.
    pub networks_deleted: Vec<String>,
}

/// An endpoint, as its network shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkContainer {
    /// The sandbox.
    pub name: String,
    /// The endpoint's identifier.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its MAC address.
    pub mac_address: Mac,
    /// Its IPv4 address and prefix length, or nothing.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Its IPv6 address and prefix length, or nothing.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// Another host that has a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkPeer {
    /// Its address on the underlay.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// The largest network packet that the way to it has room for, as far as is known, in bytes.
    #[serde(rename = "MTU")]
    pub mtu: u32,
}

/// Wishes for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointConfig {
    /// Its addresses.
    #[serde(rename = "IPAMConfig", deserialize_with = "or_default")]
    pub ipam_config: EndpointIpam,
    /// Other names of the sandbox on this network.
    #[serde(deserialize_with = "or_default")]
    pub aliases: Vec<String>,
    /// Its MAC address.
    #[serde(deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<Mac>,
    /// Driver options of the endpoint.
    #[serde(deserialize_with = "or_default")]
    pub driver_opts: Map,
    /// Its priority: the higher, the rather it provides the default route of its sandbox.
    #[serde(deserialize_with = "or_default")]
    pub gw_priority: i32,
}

/// The addresses an endpoint shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    /// IPv4; the next free one if nothing is said.
    #[serde(
        rename = "IPv4Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_address: Option<IpAddr>,
    /// IPv6; the next free one if nothing is said.
    #[serde(
        rename = "IPv6Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_address: Option<IpAddr>,
}

/// Body of `POST /networks/{id}/disconnect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Disconnect {
    /// The sandbox.
    pub container: String,
    /// Whether to go on when its namespace is gone, which never hinders anyway.
    #[serde(default, deserialize_with = "or_default")]
    pub force: bool,
}

/// Body of `POST /networks/{id}/connect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Connect {
    /// The sandbox.
    pub container: String,
    /// Wishes for its endpoint.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoint_config: EndpointConfig,
}
