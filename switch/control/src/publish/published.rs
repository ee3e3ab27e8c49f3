//! Published ports: the records, how they relate to what is asked, and what the datapath is told. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use vswitch_cluster::family::Family;
use vswitch_contract::relay::Binding;
use vswitch_frame::NetworkId;

use crate::api::types;
use crate::publish::spec::{Exposed, Ports, Protocol, Spec, shown};

/// A published range of ports: one entry, however many ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The address on the host; `None` is every address of both families.
    pub host: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports of the host.
    pub host_ports: Ports,
    /// The first of as many ports of the container.
    pub container_port: u16,
}

/// The choice of the port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is the first of so many.
    Exactly(Ports),
    /// The first of these that is free.
    From(Ports),
    /// The kernel chooses it.
    Any,
}

/// A wish that becomes one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The address on the host, as in [`Published`].
    pub host: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the host.
    pub choice: Choice,
    /// The port of the container, as in [`Published`].
    pub container_port: u16,
}

impl Want {
    /// The record, if its ports on the host are these.
    pub fn with(&self, host_ports: Ports) -> Published {
        let Self { host, protocol, container_port, .. } = *self;
        Published { host, protocol, host_ports, container_port }
    }
}

/// Wishes that a spec is made of, each for one record. A spec without an address is for `preferred`.
///
/// # Errors
/// One line, for ports of SCTP that are to be others on the host than in the container: its checksum covers
/// them, so they are not translated.
pub fn wants(spec: &Spec, preferred: Option<IpAddr>) -> Result<Vec<Want>, String> {
    let Spec { host, host_ports, container, protocol } = *spec;
    let want = |choice, container_port| Want { host: host.or(preferred), protocol, choice, container_port };
    if protocol == Protocol::Sctp {
        let fits = host_ports.is_none_or(|ports| {
            if container.rest() == 0 { ports.contains(container.first) } else { ports == container }
        });
        if !fits {
            return Err(format!("ports of sctp are not translated: write {container}:{container}/sctp"));
        }
        return Ok(vec![want(Choice::Exactly(container), container.first)]);
    }
    Ok(match host_ports {
        Some(ports) if ports.rest() == container.rest() => {
            vec![want(Choice::Exactly(ports), container.first)]
        }
        Some(pool) => vec![want(Choice::From(pool), container.first)],
        None => (container.first..=container.last).map(|port| want(Choice::Any, port)).collect(),
    })
}

impl Published {
    /// The addresses it is on.
    pub fn hosts(&self) -> Vec<IpAddr> {
        match self.host {
            Some(host) => vec![host],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }

    /// Its place, as Docker says what could not be bound: an address and ports.
    pub fn place(&self) -> String {
        format!("{}:{}", shown(self.hosts()[0]), self.host_ports)
    }

    fn transport(&self) -> vswitch_contract::claim::Protocol {
        match self.protocol {
            Protocol::Tcp => vswitch_contract::relay::Protocol::Tcp,
            Protocol::Udp => vswitch_contract::relay::Protocol::Udp,
            Protocol::Sctp => vswitch_contract::relay::Protocol::Sctp,
        }
    }

    /// Whether a binding is of it.
    pub fn binds(&self, binding: &Binding) -> bool {
        let host = self.host.is_none_or(|host| host == binding.host);
        let is_same = binding.protocol == self.transport() && binding.host_port == self.host_ports.first;
        host && is_same && binding.container_port == self.container_port
    }

    /// Whether both want one port. An unspecified address is every address of its family.
    pub fn overlaps(&self, other: &Self) -> bool {
        let hosts = self.hosts().into_iter().any(|one| {
            other.hosts().into_iter().any(|two| {
                one == two || one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified())
            })
        });
        hosts
            && self.protocol == other.protocol
            && self.host_ports.first <= other.host_ports.last
            && other.host_ports.first <= self.host_ports.last
    }

    /// Whether it is all or part of what a spec names. What the spec does not say may be anything.
    pub fn is_of(&self, spec: &Spec) -> bool {
        let container = self.container();
        let ports = spec.host_ports.is_none_or(|ports| {
            if spec.container.rest() == 0 {
                ports.contains(self.host_ports.first)
            } else {
                u32::from(self.host_ports.first) + u32::from(spec.container.first)
                    == u32::from(ports.first) + u32::from(container.first)
            }
        });
        self.protocol == spec.protocol
            && spec.host.is_none_or(|host| self.host == Some(host))
            && spec.container.first <= container.first
            && container.last <= spec.container.last
            && ports
    }

    fn container(&self) -> Ports {
        Ports { first: self.container_port, last: self.container_port.saturating_add(self.host_ports.rest()) }
    }

    /// Bindings that the datapath is told: one for each family of which it has both a host address and a
    /// container's. Between families there is only the relay.
    pub fn bindings(&self, sandbox: u16, targets: &[Target]) -> Vec<Binding> {
        let binding = |(host, target): (IpAddr, &Target)| Binding {
            host,
            host_port: self.host_ports.first,
            protocol: self.transport(),
            ports: self.host_ports.rest().saturating_add(1),
            network: target.network,
            container: target.address,
            container_port: self.container_port,
            sandbox: sandbox.into(),
            gateway: target.gateway,
            keeps_client: target.keeps_client,
        };
        let of = |host| targets.iter().find(|target| Family::of(target.address) == Family::of(host));
        self.hosts().into_iter().filter_map(|host| Some((host, of(host)?))).map(binding).collect()
    }
}

/// The target of published ports of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The network.
    pub network: NetworkId,
    /// The container's address.
    pub address: IpAddr,
    /// The gateway's address on the network.
    pub gateway: IpAddr,
    /// Whether the container has a way back to clients outside, and may see them.
    pub keeps_client: bool,
}

/// Published and exposed ports as Docker shows them: for each port of the container those of the host, or
/// null if it is exposed only; of the host's addresses those that `is_shown` lets through.
pub fn show(published: &[Published], exposed: &[Exposed], is_shown: impl Fn(IpAddr) -> bool) -> types::Ports {
    let mut shown: types::Ports = BTreeMap::new();
    for one in exposed {
        for port in one.ports.first..=one.ports.last {
            shown.insert(format!("{port}/{}", one.protocol), None);
        }
    }
    for one in published {
        let hosts: Vec<IpAddr> = one.hosts().into_iter().filter(|host| is_shown(*host)).collect();
        if hosts.is_empty() {
            continue;
        }
        let ports = (one.host_ports.first..=one.host_ports.last).zip(one.container_port..=u16::MAX);
        for (host_port, container_port) in ports {
            let entry = shown.entry(format!("{container_port}/{}", one.protocol)).or_default();
            let at = |host: &IpAddr| types::PortBinding {
                host_ip: host.to_string(),
                host_port: host_port.to_string(),
            };
            entry.get_or_insert_default().extend(hosts.iter().map(at));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().expect(text)
    }

    /// The record of a spec that leaves nothing to choose.
    fn record(text: &str) -> Published {
        let wants = wants(&spec(text), None).expect(text);
        let [want] = wants.as_slice() else { panic!("{text}: {wants:?}") };
        let Choice::Exactly(ports) = want.choice else { panic!("{text}: {want:?}") };
        want.with(ports)
    }

    #[test]
    fn specs_become_records() {
        let choices = |text: &str| {
            let wants = wants(&spec(text), None).expect(text);
            wants.into_iter().map(|want| (want.choice, want.container_port)).collect::<Vec<_>>()
        };
        let ports = |first, last| Ports { first, last };
        assert_eq!(choices("8080:80"), [(Choice::Exactly(ports(8080, 8080)), 80)]);
        assert_eq!(choices("8000-8009:80-89"), [(Choice::Exactly(ports(8000, 8009)), 80)]);
        assert_eq!(choices("8000-8009:80"), [(Choice::From(ports(8000, 8009)), 80)]);
        assert_eq!(choices("80-81"), [(Choice::Any, 80), (Choice::Any, 81)]);
        assert_eq!(choices("80/sctp"), [(Choice::Exactly(ports(80, 80)), 80)]);
        assert_eq!(choices("70-90:80/sctp"), [(Choice::Exactly(ports(80, 80)), 80)]);
        assert!(wants(&spec("8080:80/sctp"), None).is_err());
        assert!(wants(&spec("81-82:80-81/sctp"), None).is_err());
        let preferred = wants(&spec("8080:80"), Some([192, 0, 2, 1].into())).expect("wants");
        assert_eq!(preferred[0].host, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn an_unspecified_address_is_every_address_of_its_family() {
        for (one, other, expected) in [
            ("8080:80", "8080:81", true),
            ("8080:80", "8080:80/udp", false),
            ("8080:80", "8081:80", false),
            ("8000-8010:8000-8010", "8010:80", true),
            ("8080:80", "127.0.0.1:8080:80", true),
            ("8080:80", "[::1]:8080:80", true),
            ("0.0.0.0:8080:80", "127.0.0.1:8080:80", true),
            ("0.0.0.0:8080:80", "[::1]:8080:80", false),
            ("0.0.0.0:8080:80", "[::]:8080:80", false),
            ("127.0.0.1:8080:80", "127.0.0.2:8080:80", false),
            ("8000-8010:8000-8010", "8010-8020:8010-8020", true),
            ("8000-8010:8000-8010", "8011-8020:8011-8020", false),
        ] {
            let [one, other] = [one, other].map(record);
            assert_eq!(one.overlaps(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn a_spec_names_records_by_what_it_says() {
        for (published, named, expected) in [
            ("8080:80", "80", true),
            ("8080:80", "8080:80", true),
            ("8080:80", "8081:80", false),
            ("8080:80", "80/udp", false),
            ("8080:80", "8000-9000:80", true),
            ("8080:80", "127.0.0.1:8080:80", false),
            ("127.0.0.1:8080:80", "8080:80", true),
            ("127.0.0.1:8080:80", "127.0.0.1::80", true),
            ("8080:80", "8079-8081:79-81", true),
            ("8080:80", "8080-8082:79-81", false),
            ("8000-8010:80-90", "8000-8010:80-90", true),
            ("8000-8010:80-90", "8000:80", false),
            ("8000-8010:80-90", "80-90", true),
        ] {
            assert_eq!(record(published).is_of(&spec(named)), expected, "{published} {named}");
        }
    }

    #[test]
    fn bindings_join_addresses_of_one_family() {
        let target = |address: &str, gateway: &str| Target {
            network: NetworkId(3),
            address: address.parse().expect("address"),
            gateway: gateway.parse().expect("address"),
            keeps_client: true,
        };
        let (v4, v6) = (target("10.1.0.2", "10.1.0.1"), target("fd00::2", "fd00::1"));
        let hosts = |text: &str, targets: &[Target]| {
            let bindings = record(text).bindings(7, targets);
            bindings
                .into_iter()
                .map(|binding| (binding.host.to_string(), binding.container))
                .collect::<Vec<_>>()
        };
        let (on_v4, on_v6) = (("0.0.0.0".to_owned(), v4.address), ("::".to_owned(), v6.address));
        assert_eq!(hosts("8080:80", &[v4, v6]), [on_v4.clone(), on_v6]);
        assert_eq!(hosts("8080:80", &[v4]), [on_v4]);
        assert_eq!(hosts("[::1]:8080:80", &[v4]), []);
        let range = record("8000-8009:80-89/udp").bindings(7, &[v4]);
        assert_eq!((range[0].host_port, range[0].ports, range[0].container_port), (8000, 10, 80));
        assert_eq!((range[0].sandbox, range[0].gateway), (7, v4.gateway));
    }

    #[test]
    fn they_are_shown_as_docker_does() {
        let published = [record("8080:80"), record("127.0.0.1:8081:80"), record("8443-8444:443-444/udp")];
        let shown = show(&published, &["80", "90"].map(|text| text.parse().expect("port")), |_| true);
        let expected = serde_json::json!({
            "80/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "::", "HostPort": "8080"},
                {"HostIp": "127.0.0.1", "HostPort": "8081"},
            ],
            "90/tcp": null,
            "443/udp": [{"HostIp": "0.0.0.0", "HostPort": "8443"}, {"HostIp": "::", "HostPort": "8443"}],
            "444/udp": [{"HostIp": "0.0.0.0", "HostPort": "8444"}, {"HostIp": "::", "HostPort": "8444"}],
        });
        assert_eq!(serde_json::to_value(shown).expect("JSON"), expected);
        assert_eq!(show(&published[1..2], &[], |host| host.is_ipv6()), types::Ports::new());
    }
}
