//! Rules as the datapath is told them: with numbers in place of names. Pure.

use vswitch_contract::network as engine;
use vswitch_contract::network::Field;

use crate::state::State;
use crate::state::rules::{End, Rule};

/// A rule as the datapath is told it; `None` while it matches nothing, for something that it names is not
/// there. What is not there is nobody, so that everybody is another one.
pub(super) fn translate(state: &State, rule: &Rule) -> Option<engine::Rule> {
    let number = |name: &String| state.networks.get(name).map(|network| network.number);
    let mut not = rule.not.clone();
    // Nothing is of what is not there, and everything is of something else.
    let mut is_negated = |field| {
        let place = not.iter().position(|negated| *negated == field);
        place.map(|place| not.swap_remove(place)).is_some()
    };
    let mut end = |end: &Option<End>, field| {
        let found = match end {
            None => Some(engine::End::Any),
            Some(End::Subnet(subnet)) => Some(engine::End::Subnet(*subnet)),
            Some(End::Network(name)) => number(name).map(engine::End::Network),
            Some(End::Sandbox(name)) => {
                state.sandboxes.get(name).map(|sandbox| engine::End::Sandbox(sandbox.number.into()))
            }
        };
        found.or_else(|| is_negated(field).then_some(engine::End::Any))
    };
    let (from, to) = (end(&rule.from, Field::From)?, end(&rule.to, Field::To)?);
    let network = match &rule.network {
        Some(name) => match number(name) {
            None if !is_negated(Field::Network) => return None,
            found => found,
        },
        None => None,
    };
    let interface = |name: &Option<String>| name.as_deref().map(|name| interface(state, name));
    Some(engine::Rule {
        network,
        from,
        to,
        protocol: rule.protocol,
        source_ports: rule.source_ports.clone(),
        target_ports: rule.target_ports.clone(),
        published_ports: rule.published_ports.clone(),
        in_interface: interface(&rule.in_interface),
        out_interface: interface(&rule.out_interface),
        not,
        limit: rule.limit,
        state: rule.state,
        ..engine::Rule::new(rule.id, rule.action)
    })
}

/// Interfaces of a name, and the networks that have one of it on the host.
fn interface(state: &State, name: &str) -> engine::Interface {
    let is_meant = |other: &str| match name.strip_suffix('+') {
        Some(beginning) => other.starts_with(beginning),
        None => other == name,
    };
    let own = state.networks.values().filter(|network| {
        let port = network.host_port.as_ref();
        port.is_some_and(|port| is_meant(&port.interface))
    });
    engine::Interface { name: name.to_owned(), networks: own.map(|network| network.number).collect() }
}
