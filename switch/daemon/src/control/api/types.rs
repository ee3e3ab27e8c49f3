//! What goes over the control socket, as JSON.
//!
//! Where Docker's Engine API has such a thing, the field names are Docker's, and bodies may have
//! fields that mean nothing here. The other bodies are ours and refuse what they do not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use vswitch_frame::Mac;

use crate::datapath::counters::PortCounters;

/// Options and labels.
pub type Map = BTreeMap<String, String>;

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
    /// Without a default route.
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

/// How a network gives addresses.
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
    /// Without a default route.
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

/// What an endpoint shall be like.
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
    /// The higher, the rather it provides the default route of its sandbox.
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
    /// Also when its namespace is gone, which never hinders anyway.
    #[serde(default, deserialize_with = "or_default")]
    pub force: bool,
}

/// Body of `POST /networks/{id}/connect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Connect {
    /// The sandbox.
    pub container: String,
    /// What its endpoint shall be like.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoint_config: EndpointConfig,
}

/// Body of `POST /sandboxes/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SandboxCreate {
    /// Its name.
    pub name: String,
    /// Its host name; its name if nothing is said.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The networks it is connected to, in order, `bridge` if nothing is said; or alone `none`, `host` or
    /// `container:OTHER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkWish>>,
    /// The ports to publish, as in `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// The ports it serves, as in `80/tcp`.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether to publish what it serves.
    #[serde(default)]
    pub publish_all: bool,
}

/// Body of `POST /sandboxes/{id}/publish` and `POST /sandboxes/{id}/unpublish`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Specs {
    /// Published ports, as in `8080:80/tcp`.
    pub specs: Vec<String>,
}

/// Published ports by port and protocol of the container, as in `80/tcp`; null for those that are only said
/// to be served.
pub type Ports = BTreeMap<String, Option<Vec<PortBinding>>>;

/// A port of the host that leads to one of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// The address; the unspecified one is every address of its family.
    pub host_ip: String,
    /// The port.
    pub host_port: String,
}

/// A network a new sandbox shall be connected to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkWish {
    /// The network.
    pub network: String,
    /// What the endpoint shall be like.
    #[serde(default)]
    pub endpoint_config: EndpointConfig,
}

/// Body of `POST /sandboxes/attach`: exactly one of the namespace's path, a process in it, or a
/// descriptor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Attach {
    /// The name it shall have here.
    pub name: String,
    /// The path of the namespace.
    #[serde(rename = "NetNS", default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// A process in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// A descriptor that a process made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<ForeignFd>,
    /// The network; `bridge` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What the endpoint shall be like.
    #[serde(default)]
    pub endpoint_config: EndpointConfig,
    /// The ports to publish, as in `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// The ports it serves, as in `80/tcp`.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether to publish what it serves.
    #[serde(default)]
    pub publish_all: bool,
}

/// A TAP or packet socket of another process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ForeignFd {
    /// The process.
    pub pid: u32,
    /// The number the descriptor has there.
    pub fd: i32,
}

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sandbox {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub id: String,
    /// When it was made or attached (RFC 3339).
    pub created: String,
    /// `created` or `attached`.
    pub origin: String,
    /// Its host name, or nothing.
    pub hostname: String,
    /// Whose network it uses: that of its first endpoint, `none`, `host` or `container:OTHER`.
    pub network_mode: String,
    /// The path of the network namespace it uses, or nothing.
    #[serde(rename = "NetNS")]
    pub netns: String,
    /// The path of what it is to find as `/etc/hosts`, or nothing.
    pub hosts_path: String,
    /// The path of what it is to find as `/etc/hostname`, or nothing.
    pub hostname_path: String,
    /// The path of what it is to find as `/etc/resolv.conf`, or nothing.
    pub resolv_conf_path: String,
    /// Its endpoints, in the order they were made.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Ports,
    /// What of the request has no effect, in the answer to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// Its sandbox.
    pub sandbox: String,
    /// Its network.
    pub network: String,
    /// The identifier of its network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Its identifier.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its interface in the sandbox, or nothing when another process made it.
    pub interface: String,
    /// `tap`, `tap-moved`, `veth` or `fd`.
    pub port_type: String,
    /// The number of its port on the switch.
    pub port: u16,
    /// Its MAC address.
    pub mac_address: Mac,
    /// Its IPv4 address, or nothing.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// The length of its prefix, or 0.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// Its IPv4 gateway, or nothing.
    pub gateway: String,
    /// Its IPv6 address, or nothing.
    #[serde(rename = "GlobalIPv6Address")]
    pub ipv6_address: String,
    /// The length of its prefix, or 0.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub ipv6_prefix_len: u8,
    /// Its IPv6 gateway, or nothing.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Largest network packet, in bytes.
    #[serde(rename = "MTU")]
    pub mtu: u16,
    /// Other names of the sandbox on this network.
    pub aliases: Vec<String>,
    /// The higher, the rather it provides the default route of its sandbox.
    pub gw_priority: i32,
    /// The published ports of its sandbox that lead to it.
    pub ports: Ports,
}

/// A line of a forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FdbEntry {
    /// The network.
    pub network: String,
    /// The address.
    pub mac_address: Mac,
    /// The sandbox it is in, or `(host)`.
    pub sandbox: String,
    /// The interface it is behind, or nothing when another process made it.
    pub interface: String,
    /// The number of the port it is behind.
    pub port: u16,
    /// Known by configuration: never ages, never moves.
    #[serde(rename = "Static")]
    pub fixed: bool,
    /// Milliseconds since a frame came from it.
    pub age_ms: u64,
}

/// Body of `POST /rules`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RuleCreate {
    /// Only frames into or out of this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Only from this subnet, address or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Only to this subnet, address or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `any`, `tcp`, `udp`, `icmp` or `icmpv6`; `any` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Only from this port or range of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// Only to this port or range of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// `new` or `established`; `new` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The rule it comes before; after all others if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// `accept`, `drop` or `reject`.
    pub action: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// The network it is for, or nothing.
    pub network: String,
    /// The subnet or network of the sender, or nothing.
    pub from: String,
    /// The subnet or network of the receiver, or nothing.
    pub to: String,
    /// The protocol.
    pub protocol: String,
    /// The sender's port or ports, or nothing.
    pub source_port: String,
    /// The receiver's port or ports, or nothing.
    pub destination_port: String,
    /// `new`, `established` or nothing.
    pub state: String,
    /// `accept`, `drop` or `reject`.
    pub action: String,
    /// Frames it has decided about since it was made or the datapath was started; those of a flow count for
    /// the rule that accepted its first packet.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Answer of `GET /stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stats {
    /// The process that moves the frames.
    pub datapath: DatapathStats,
    /// The counters of each port.
    pub ports: Vec<PortStats>,
}

/// The process that moves the frames.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DatapathStats {
    /// Its number.
    pub pid: u32,
    /// How often it was started anew.
    pub restarts: u64,
}

/// The counters of one port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortStats {
    /// The sandbox behind it, or `(host)`.
    pub sandbox: String,
    /// The network it is on.
    pub network: String,
    /// The interface behind it, or nothing when another process made it.
    pub interface: String,
    /// Its number.
    pub port: u16,
    /// Frames received from it; a super-frame is one.
    pub received_frames: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Frames sent to it; a super-frame is one.
    pub sent_frames: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Frames that went out as part of another one's super-frame.
    pub coalesced: u64,
    /// Super-frames split because the receiver takes none.
    pub split: u64,
    /// Source addresses not learned because a limit was reached.
    pub not_learned: u64,
    /// Whether the interface has vanished.
    pub gone: bool,
    /// Dropped frames, by every reason there is.
    pub drops: BTreeMap<String, u64>,
}

impl PortStats {
    /// The counters of a port.
    pub fn new(
        sandbox: String,
        network: String,
        interface: String,
        port: u16,
        counters: &PortCounters,
    ) -> Self {
        let reasons = vswitch_frame::DropReason::ALL.iter().zip(&counters.drops);
        let drops = reasons.map(|(reason, count)| (reason.to_string(), *count));
        Self {
            sandbox,
            network,
            interface,
            port,
            received_frames: counters.received_frames,
            received_bytes: counters.received_bytes,
            sent_frames: counters.sent_frames,
            sent_bytes: counters.sent_bytes,
            coalesced: counters.coalesced,
            split: counters.split,
            not_learned: counters.not_learned,
            gone: counters.gone,
            drops: drops.collect(),
        }
    }
}

/// Answer of `GET /version`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The version of the daemon.
    pub version: String,
    /// The kernel it runs on.
    pub kernel_version: String,
    /// `linux`.
    pub os: String,
    /// The processor.
    pub arch: String,
}

/// Docker's clients write `null` for what they do not set.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Docker's clients write `""` for what they do not set.
fn empty_is_none<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text: Option<String> = Option::deserialize(from)?;
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(|text| text.parse().map_err(|error| format!("{text:?}: {error}"))).transpose();
    parsed.map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dockers_client_sends_is_read() {
        let text = r#"{"Name":"n","CheckDuplicate":true,"Driver":"bridge","Scope":"","EnableIPv6":false,
            "IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.1.0.0/16","Gateway":""}]},
            "Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,
            "Options":{"a":"b"},"Labels":null}"#;
        let read: NetworkCreate = serde_json::from_str(text).expect("read");
        assert_eq!(read.ipam.config[0].subnet, Some("10.1.0.0/16".parse().expect("net")));
        assert_eq!(read.ipam.config[0].gateway, None);
        assert_eq!(read.options.get("a").map(String::as_str), Some("b"));
        let text = r#"{"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.1.0.9"},"Links":null,
            "Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0}}"#;
        let read: Connect = serde_json::from_str(text).expect("read");
        assert_eq!(read.endpoint_config.ipam_config.ipv4_address, Some("10.1.0.9".parse().expect("address")));
        assert_eq!(read.endpoint_config.mac_address, None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = serde_json::from_str::<IpamConfig>(r#"{"Subnet":"10.1.0.0/99"}"#).expect_err("no subnet");
        assert!(error.to_string().contains("10.1.0.0/99"), "{error}");
        let error =
            serde_json::from_str::<Attach>(r#"{"Name":"x","Netns":"/x"}"#).expect_err("unknown field");
        assert!(error.to_string().contains("Netns"), "{error}");
    }
}
