//! `vswitch network create`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use ipnet::IpNet;
use vswitch_control::api::types::{self, IpamConfig};

use super::super::client::Client;
use super::super::key_value::key_value;
use super::super::outcome::{Failure, Outcome};
use super::super::print::print;

/// Create a network
///
/// Examples:
///   vswitch network create lan
///   vswitch network create lan --subnet 10.1.0.0/16 --gateway 10.1.0.1 --subnet fd00:1::/64
///   vswitch network create lan --subnet 10.1.0.0/16 --ip-range 10.1.5.0/24 --aux-address nas=10.1.5.9
///   vswitch network create small --subnet 0.0.0.0/28 --ipv6
///   vswitch network create quiet -o com.docker.network.bridge.enable_icc=false
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct Create {
    /// Its name
    name: String,
    /// Driver
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Subnet, IPv4 or IPv6, or only its size as in 0.0.0.0/24; a free private one if none is given; may
    /// be repeated
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNet>,
    /// Gateway of a subnet; its first free address if none is given; may be repeated
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// Part of a subnet to give addresses from; may be repeated
    #[arg(long = "ip-range", value_name = "CIDR")]
    ranges: Vec<IpNet>,
    /// Address of a subnet that no endpoint is given; DefaultGatewayIPv4 and DefaultGatewayIPv6 are the
    /// default gateways of sandboxes; may be repeated
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS", value_parser = named_address)]
    reserved: Vec<(String, IpAddr)>,
    /// Give IPv4 addresses; unless false, of a free private subnet if none is given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Give IPv6 addresses, too, of a free private subnet unless one is given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Without a default route
    #[arg(long)]
    internal: bool,
    /// Driver option, as in com.docker.network.driver.mtu=9000; docs/api.md lists them; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// Docker's mark of a network that containers outside services may join: kept and shown
    #[arg(long)]
    attachable: bool,
    /// local, and nothing else
    #[arg(long, value_name = "SCOPE", default_value = "")]
    scope: String,
    /// IPAM driver: default, and no other
    #[arg(long, value_name = "DRIVER", default_value = "")]
    ipam_driver: String,
    /// Option of the IPAM driver: none is known
    #[arg(long = "ipam-opt", value_name = "KEY=VALUE", value_parser = key_value)]
    ipam_options: Vec<(String, String)>,
    /// Not supported: say what the network is to be
    #[arg(long, value_name = "NETWORK", default_value = "", hide = true)]
    config_from: String,
    /// Not supported: make the network itself
    #[arg(long, hide = true)]
    config_only: bool,
    /// Not supported: published ports need no network of their own
    #[arg(long, hide = true)]
    ingress: bool,
}

impl Create {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let created: types::NetworkCreated = client.post("/networks/create", &self.body()?).await?;
        print(&format!("{}\n", created.id));
        Ok(ExitCode::SUCCESS)
    }

    fn body(self) -> Result<types::NetworkCreate, Failure> {
        let config = assign(&self.subnets, &self.gateways, &self.ranges, self.reserved)?;
        Ok(types::NetworkCreate {
            name: self.name,
            driver: self.driver,
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            scope: self.scope,
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            config_only: self.config_only,
            config_from: types::ConfigFrom { network: self.config_from },
            ipam: types::Ipam {
                driver: self.ipam_driver,
                options: self.ipam_options.into_iter().collect(),
                config,
            },
            options: self.options.into_iter().collect(),
            labels: self.labels.into_iter().collect(),
        })
    }
}

/// Gives each subnet the addresses that are inside it.
fn assign(
    subnets: &[IpNet],
    gateways: &[IpAddr],
    ranges: &[IpNet],
    reserved: Vec<(String, IpAddr)>,
) -> Result<Vec<IpamConfig>, Failure> {
    let config = |subnet: &IpNet| IpamConfig { subnet: Some(*subnet), ..IpamConfig::default() };
    let mut configs: Vec<IpamConfig> = subnets.iter().map(config).collect();
    for gateway in gateways {
        let home = home(&mut configs, *gateway, "gateway", gateway)?;
        if let Some(other) = home.gateway.replace(*gateway) {
            return Err(twice("gateways", &other, gateway));
        }
    }
    for range in ranges {
        let home = home(&mut configs, range.addr(), "ip-range", range)?;
        if let Some(other) = home.ip_range.replace(*range) {
            return Err(twice("ip-ranges", &other, range));
        }
    }
    for (name, address) in reserved {
        let home = home(&mut configs, address, "aux-address", &address)?;
        if home.auxiliary_addresses.insert(name.clone(), address).is_some() {
            return Err(Failure(format!("aux-address {name} is given twice: choose another name")));
        }
    }
    Ok(configs)
}

fn home<'a>(
    configs: &'a mut [IpamConfig],
    address: IpAddr,
    what: &str,
    shown: &impl std::fmt::Display,
) -> Result<&'a mut IpamConfig, Failure> {
    let home =
        configs.iter_mut().find(|config| config.subnet.is_some_and(|subnet| subnet.contains(&address)));
    home.ok_or_else(|| Failure(format!("no matching subnet for {what} {shown}: give --subnet, too")))
}

fn twice(what: &str, one: &impl std::fmt::Display, other: &impl std::fmt::Display) -> Failure {
    Failure(format!("cannot have several {what} ({one}, {other}) on one subnet: leave one out"))
}

fn named_address(text: &str) -> Result<(String, IpAddr), String> {
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, address) = named.ok_or("write NAME=ADDRESS, as in nas=10.1.0.9")?;
    let address = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
    Ok((name.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("net")
    }

    #[test]
    fn everything_finds_its_subnet() {
        let subnets = ["10.1.0.0/16", "fd00:1::/64"].map(net);
        let gateways = ["fd00:1::9", "10.1.0.9"].map(ip);
        let reserved = vec![named_address("nas=10.1.0.7").expect("named")];
        let configs = assign(&subnets, &gateways, &[net("10.1.5.0/24")], reserved).expect("assigned");
        let expected = [
            IpamConfig {
                subnet: Some(subnets[0]),
                gateway: Some(gateways[1]),
                ip_range: Some(net("10.1.5.0/24")),
                auxiliary_addresses: [("nas".to_owned(), ip("10.1.0.7"))].into(),
            },
            IpamConfig { subnet: Some(subnets[1]), gateway: Some(gateways[0]), ..IpamConfig::default() },
        ];
        assert_eq!(configs, expected);
    }

    #[test]
    fn what_has_no_subnet_or_too_many_is_refused() {
        let subnets = [net("10.1.0.0/16")];
        let refused = |gateways: &[&str], ranges: &[&str], reserved: &[&str]| {
            let gateways: Vec<IpAddr> = gateways.iter().copied().map(ip).collect();
            let ranges: Vec<IpNet> = ranges.iter().copied().map(net).collect();
            let reserved = reserved.iter().map(|text| named_address(text).expect("named")).collect();
            assign(&subnets, &gateways, &ranges, reserved).expect_err("refused").0
        };
        let missing = |what| format!("no matching subnet for {what}: give --subnet, too");
        assert_eq!(refused(&["10.2.0.1"], &[], &[]), missing("gateway 10.2.0.1"));
        assert_eq!(refused(&[], &["10.2.0.0/24"], &[]), missing("ip-range 10.2.0.0/24"));
        assert_eq!(refused(&[], &[], &["a=10.2.0.1"]), missing("aux-address 10.2.0.1"));
        let several = "cannot have several gateways (10.1.0.1, 10.1.0.2) on one subnet: leave one out";
        assert_eq!(refused(&["10.1.0.1", "10.1.0.2"], &[], &[]), several);
        assert!(refused(&[], &["10.1.1.0/24", "10.1.2.0/24"], &[]).contains("several ip-ranges"));
        assert!(refused(&[], &[], &["a=10.1.0.1", "a=10.1.0.2"]).contains("twice"));
        for text in ["a", "=10.1.0.1", "a=b"] {
            assert!(named_address(text).is_err(), "{text}");
        }
    }
}
