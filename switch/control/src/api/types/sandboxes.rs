//! Sandboxes, their endpoints and their published ports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vswitch_frame::Mac;

use crate::api::types::networks::EndpointConfig;
use crate::api::types::reading::empty_is_none;

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
    /// Whether connections go on, when publication ends, until they end by themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
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
    /// Wishes for the endpoint.
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
    /// Wishes for the endpoint.
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
    /// Its mode: the name of its first endpoint's network, `none`, `host` or `container:OTHER`.
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
    /// Whether its container is there.
    pub status: Status,
    /// Since when it is gone (RFC 3339), or nothing.
    pub gone_since: String,
    /// Its endpoints, in the order they were made.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Ports,
    /// Parts of the request that have no effect, in the answer to it.
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
    /// Its priority: the higher, the rather it provides the default route of its sandbox.
    pub gw_priority: i32,
    /// Whether its interface is there.
    pub status: Status,
    /// Since when it is gone (RFC 3339), or nothing.
    pub gone_since: String,
    /// The published ports of its sandbox that lead to it.
    pub ports: Ports,
}

/// Whether a container, or an interface in it, is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is there.
    Up,
    /// It is gone; its addresses and published ports are kept for it.
    Gone,
}

impl Status {
    /// The status of what is gone since then, if it is.
    pub fn of(gone: Option<&str>) -> Self {
        if gone.is_some() { Self::Gone } else { Self::Up }
    }
}
