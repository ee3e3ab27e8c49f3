//! Flags of every command that makes an endpoint: they say what it shall be like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Args, ValueEnum};
use vswitch_control::api::types::{EndpointConfig, EndpointIpam};
use vswitch_control::network::options::{EndpointOptions, PortType};
use vswitch_frame::Mac;

use super::key_value::key_value;

#[derive(Debug, Args)]
#[command(next_help_heading = "Endpoint")]
pub(super) struct EndpointArgs {
    /// IPv4 address; the next free one if not given
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address; the next free one if not given
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// MAC address; made from the IPv4 address if not given
    #[arg(long, visible_alias = "mac-address", value_name = "ADDRESS")]
    mac: Option<Mac>,
    /// Name of the interface in the sandbox; eth0, eth1, … if not given
    #[arg(long, value_name = "NAME")]
    ifname: Option<String>,
    /// Another name of the sandbox on this network; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Whether it rather than another endpoint provides the default route of its sandbox: the highest does
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i32,
    /// How the interface is made
    #[arg(long, value_enum, default_value_t)]
    port_type: Kind,
    /// Endpoint option, as in com.docker.network.endpoint.ifname=lan0; may be repeated
    #[arg(long = "driver-opt", value_name = "KEY=VALUE", value_parser = key_value)]
    driver_opts: Vec<(String, String)>,
}

/// A way to make a port.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Kind {
    /// A TAP made in the sandbox's namespace: the fastest
    #[default]
    Tap,
    /// A TAP made in the daemon's namespace and moved, so that it does not keep the sandbox's alive
    TapMoved,
    /// A veth pair whose far end is kept in a private namespace: for programs that want a veth
    Veth,
}

impl From<Kind> for PortType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Tap => Self::Tap,
            Kind::TapMoved => Self::TapMoved,
            Kind::Veth => Self::Veth,
        }
    }
}

impl EndpointArgs {
    pub(super) fn config(self) -> EndpointConfig {
        let mut driver_opts = EndpointOptions::render(self.ifname.as_deref(), self.port_type.into());
        driver_opts.extend(self.driver_opts);
        EndpointConfig {
            ipam_config: EndpointIpam {
                ipv4_address: self.ip.map(IpAddr::V4),
                ipv6_address: self.ip6.map(IpAddr::V6),
            },
            aliases: self.aliases,
            mac_address: self.mac,
            driver_opts,
            gw_priority: self.gw_priority,
        }
    }
}
