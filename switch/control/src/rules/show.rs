//! Rules as clients see them. Pure.

use vswitch_contract::network as engine;
use vswitch_contract::network::Field;

use super::known::{ACTIONS, PERIODS, PROTOCOLS, STATES};
use crate::api::types;
use crate::state::rules::{End, Rule};

/// A rule as clients see it, each of its fields as it could be written.
pub(super) fn show(rule: &Rule, opens: bool, count: engine::Count) -> types::Rule {
    let said = |field: Field, text: String| {
        let negated = rule.not.contains(&field) && !text.is_empty();
        if negated { format!("!{text}") } else { text }
    };
    let end = |end: &Option<End>| match end {
        Some(End::Subnet(subnet)) => subnet.to_string(),
        Some(End::Network(name)) => name.clone(),
        Some(End::Sandbox(name)) => format!("sandbox:{name}"),
        None => String::new(),
    };
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let limit = rule.limit.map(|limit| format!("{}/{}", limit.flows, name(&PERIODS, limit.per)));
    types::Rule {
        id: rule.id,
        network: said(Field::Network, optional(&rule.network)),
        from: said(Field::From, end(&rule.from)),
        to: said(Field::To, end(&rule.to)),
        protocol: said(Field::Protocol, name(&PROTOCOLS, rule.protocol)),
        source_port: said(Field::SourcePorts, ports(&rule.source_ports)),
        destination_port: said(Field::TargetPorts, ports(&rule.target_ports)),
        published_port: said(Field::PublishedPorts, ports(&rule.published_ports)),
        in_interface: said(Field::InInterface, optional(&rule.in_interface)),
        out_interface: said(Field::OutInterface, optional(&rule.out_interface)),
        limit: limit.unwrap_or_default(),
        limit_burst: rule.limit.map_or(0, |limit| limit.burst),
        comment: optional(&rule.comment),
        state: rule.state.map(|state| name(&STATES, state)).unwrap_or_default(),
        opens,
        action: name(&ACTIONS, rule.action),
        frames: count.frames,
        bytes: count.bytes,
    }
}

fn ports(ports: &[engine::PortRange]) -> String {
    let ranges = ports.iter().map(|ports| {
        if ports.start() == ports.end() {
            ports.start().to_string()
        } else {
            format!("{}-{}", ports.start(), ports.end())
        }
    });
    ranges.collect::<Vec<_>>().join(",")
}

fn name<T: PartialEq>(known: &[(&str, T)], value: T) -> String {
    known.iter().find(|(_, other)| *other == value).map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}
