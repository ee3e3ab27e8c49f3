//! Rules as clients write them, and the refusal of those that make no sense. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_contract::network as engine;
use vswitch_contract::network::Field;

use super::known::{ACTIONS, PERIODS, PROTOCOLS, STATES, invalid};
use super::tell::translate;
use crate::api::types;
use crate::error::Result;
use crate::state::State;
use crate::state::rules::{End, Rule};

/// Ports and ranges of them in one list.
const PORTS_MAX: usize = 64;
/// Longest name of an interface, in bytes.
const INTERFACE_BYTES_MAX: usize = 15;
/// Longest comment, in bytes.
const COMMENT_BYTES_MAX: usize = 256;
/// Flows that a limit lets through at once, if nothing is said: as many as iptables does.
const BURST: u32 = 5;

/// Reads a rule. `has` says whether the host has an interface of a name.
///
/// # Errors
/// When it can match nothing, or says what nobody knows.
pub(super) fn read(
    state: &State,
    networks: &dyn Fn(&str) -> Result<String>,
    has: &dyn Fn(&str) -> bool,
    id: u32,
    wish: &types::RuleCreate,
) -> Result<Rule> {
    let mut not = Not(Vec::new());
    let named = |what, text: &str| format!("{what} {text:?} is not known");
    let network = not.take(Field::Network, wish.network.as_deref());
    let [from, to] = [(Field::From, &wish.from), (Field::To, &wish.to)]
        .map(|(field, text)| not.take(field, text.as_deref()));
    let protocol = not.take(Field::Protocol, wish.protocol.as_deref());
    let [source, target, published] = [
        (Field::SourcePorts, &wish.source_port),
        (Field::TargetPorts, &wish.destination_port),
        (Field::PublishedPorts, &wish.published_port),
    ]
    .map(|(field, text)| not.take(field, text.as_deref()));
    let [input, output] =
        [(Field::InInterface, &wish.in_interface), (Field::OutInterface, &wish.out_interface)]
            .map(|(field, text)| not.take(field, text.as_deref()));
    let interface = |text: Option<&str>| text.map(|text| parse_interface(state, has, text)).transpose();
    let end = |text: Option<&str>| text.map(|text| parse_end(state, networks, text)).transpose();
    let state_of = |text: &String| pick(&STATES, text, || named("state", text));
    let rule = Rule {
        id,
        network: network.map(networks).transpose()?,
        from: end(from)?,
        to: end(to)?,
        protocol: protocol
            .map_or(Ok(engine::Protocol::Any), |text| pick(&PROTOCOLS, text, || named("protocol", text)))?,
        source_ports: source.map_or(Ok(Vec::new()), parse_ports)?,
        target_ports: target.map_or(Ok(Vec::new()), parse_ports)?,
        published_ports: published.map_or(Ok(Vec::new()), parse_ports)?,
        in_interface: interface(input)?,
        out_interface: interface(output)?,
        not: not.0,
        limit: parse_limit(wish.limit.as_deref(), wish.limit_burst)?,
        comment: wish.comment.as_deref().map(parse_comment).transpose()?,
        state: wish.state.as_ref().map(state_of).transpose()?,
        action: pick(&ACTIONS, &wish.action, || named("action", &wish.action))?,
    };
    check(state, &rule)?;
    Ok(rule)
}

/// The fields that are negated, as they are found.
struct Not(Vec<Field>);

impl Not {
    /// The text of a field without the sign that negates it, which is noted.
    fn take<'a>(&mut self, field: Field, text: Option<&'a str>) -> Option<&'a str> {
        let text = text?;
        let Some(rest) = text.strip_prefix('!') else { return Some(text) };
        self.0.push(field);
        Some(rest.trim_start())
    }
}

/// Refuses rules that can match nothing, or that would not do what they say.
fn check(state: &State, rule: &Rule) -> Result<()> {
    check_ports(rule)?;
    if rule.protocol == engine::Protocol::Any && rule.not.contains(&Field::Protocol) {
        return Err(invalid("\"!any\" is no protocol at all: leave it out, or name the one you mean"));
    }
    if rule.limit.is_some() && rule.state == Some(engine::State::Established) {
        return Err(invalid("a limit counts what begins a flow: leave the state out, or the limit"));
    }
    check_families(rule)?;
    check_networks(rule)?;
    check_way(state, rule)
}

fn check_ports(rule: &Rule) -> Result<()> {
    let has_ports = !rule.source_ports.is_empty() || !rule.target_ports.is_empty();
    let said = !rule.not.contains(&Field::Protocol);
    let carries = matches!(
        rule.protocol,
        engine::Protocol::Tcp | engine::Protocol::Udp | engine::Protocol::Sctp if said
    );
    if has_ports && !carries {
        return Err(invalid("a port needs its protocol: give --proto tcp, --proto udp or --proto sctp, too"));
    }
    let translated = matches!(rule.protocol, engine::Protocol::Tcp | engine::Protocol::Udp if said);
    if !rule.published_ports.is_empty() && !translated {
        return Err(invalid("a published port needs its protocol: give --proto tcp or --proto udp, too"));
    }
    Ok(())
}

fn check_families(rule: &Rule) -> Result<()> {
    let family = |end: &Option<End>, field| match end {
        Some(End::Subnet(subnet)) if !rule.not.contains(&field) => Some(Family::of(subnet.addr())),
        Some(End::Subnet(_) | End::Network(_) | End::Sandbox(_)) | None => None,
    };
    let of_protocol = match rule.protocol {
        _ if rule.not.contains(&Field::Protocol) => None,
        engine::Protocol::Icmp => Some(Family::V4),
        engine::Protocol::Icmpv6 => Some(Family::V6),
        engine::Protocol::Any | engine::Protocol::Tcp | engine::Protocol::Udp | engine::Protocol::Sctp => {
            None
        }
    };
    let families = [family(&rule.from, Field::From), family(&rule.to, Field::To), of_protocol];
    let families: Vec<Family> = families.into_iter().flatten().collect();
    if families.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(invalid("the rule mixes IPv4 and IPv6 and would match nothing: write two"));
    }
    Ok(())
}

/// Refuses a rule for a network that is neither of the two that it names as its ends.
fn check_networks(rule: &Rule) -> Result<()> {
    let said = |field| !rule.not.contains(&field);
    let (Some(network), Some(End::Network(from)), Some(End::Network(to))) =
        (&rule.network, &rule.from, &rule.to)
    else {
        return Ok(());
    };
    let apart =
        ![from, to].contains(&network) && [Field::Network, Field::From, Field::To].map(said) == [true; 3];
    if apart {
        let message =
            format!("nothing from {from:?} to {to:?} goes into or out of {network:?}: leave the network out");
        return Err(invalid(message));
    }
    Ok(())
}

/// Refuses a rule that would open a way which nothing opens.
fn check_way(state: &State, rule: &Rule) -> Result<()> {
    let (Some(End::Network(from)), Some(End::Network(to))) = (&rule.from, &rule.to) else { return Ok(()) };
    let opens = translate(state, rule).is_some_and(|rule| rule.opens());
    let internal = |name: &&String| state.networks.get(*name).is_some_and(|network| network.internal);
    match [from, to].into_iter().find(internal) {
        Some(name) if opens && from != to => Err(invalid(format!(
            "network {name:?} is internal, and no rule opens it: connect the sandbox to the other network, too"
        ))),
        _ => Ok(()),
    }
}

/// A subnet, an address, a network or a sandbox.
fn parse_end(state: &State, networks: &dyn Fn(&str) -> Result<String>, text: &str) -> Result<End> {
    if let Ok(subnet) = text.parse::<IpNet>() {
        return Ok(End::Subnet(subnet.trunc()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(End::Subnet(IpNet::from(address)));
    }
    if let Some(key) = text.strip_prefix("sandbox:") {
        return state.sandbox_name(key).map(End::Sandbox);
    }
    if let Some(key) = text.strip_prefix("network:") {
        return networks(key).map(End::Network);
    }
    if text.contains('/') {
        let mend = "write one as in 10.1.0.0/24, or name a network or a sandbox";
        return Err(invalid(format!("{text:?} is no subnet: {mend}")));
    }
    match (networks(text), state.sandbox_name(text)) {
        (Ok(network), Err(_)) => Ok(End::Network(network)),
        (Err(_), Ok(sandbox)) => Ok(End::Sandbox(sandbox)),
        (Ok(_), Ok(_)) => Err(invalid(format!(
            "{text:?} is a network and a sandbox: write \"network:{text}\" or \"sandbox:{text}\""
        ))),
        (Err(error), Err(_)) => {
            let message = format!(
                "no network, sandbox or subnet {text:?}: see \"vswitch network ls\" and \"vswitch ps\""
            );
            Err(crate::error::Error::new(error.code, message))
        }
    }
}

/// The name of an interface of the host, or the beginning of several names and a `+`.
fn parse_interface(state: &State, has: &dyn Fn(&str) -> bool, text: &str) -> Result<String> {
    let beginning = text.strip_suffix('+').unwrap_or(text);
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'!' | b'+');
    if text.is_empty() || text.len() > INTERFACE_BYTES_MAX || !beginning.bytes().all(fits) {
        let mend = "write one as in eth0, or eth+ for all that begin so";
        return Err(invalid(format!("{text:?} is no name of an interface: {mend}")));
    }
    let networks = || state.networks.values().filter_map(|network| network.host_port.as_ref());
    let known = text != beginning || networks().any(|port| port.interface == text) || has(text);
    if known {
        return Ok(text.to_owned());
    }
    Err(invalid(format!(
        "this host has no interface {text:?}: see \"ip link\" and \"vswitch network inspect\""
    )))
}

/// Ports and ranges with `-` or `:` between two of them, and commas between all.
fn parse_ports(text: &str) -> Result<Vec<engine::PortRange>> {
    let ports: Vec<engine::PortRange> = text.split(',').map(parse_range).collect::<Result<_>>()?;
    if ports.len() > PORTS_MAX {
        return Err(invalid(format!(
            "{PORTS_MAX} ports and ranges is the most in one rule: write two rules"
        )));
    }
    Ok(ports)
}

fn parse_range(text: &str) -> Result<engine::PortRange> {
    let refuse = || {
        invalid(format!("{text:?} is no port or range of ports: write 80, or 8000-8080, or 22,80,8000-8080"))
    };
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    let first: u16 = first.trim().parse().map_err(|_| refuse())?;
    let last: u16 = last.trim().parse().map_err(|_| refuse())?;
    if first <= last { Ok(first..=last) } else { Err(refuse()) }
}

/// A number of flows and a period with `/` between them.
fn parse_limit(text: Option<&str>, burst: Option<u32>) -> Result<Option<engine::Limit>> {
    let most = engine::Limit::LIMIT_MAX;
    let Some(text) = text else {
        return match burst {
            Some(_) => Err(invalid("a burst needs its limit: give --limit, as in 10/second, too")),
            None => Ok(None),
        };
    };
    let refuse = || invalid(format!("{text:?} is no limit: write 1 to {most} and a period, as in 10/second"));
    let (flows, period) = text.split_once('/').ok_or_else(refuse)?;
    let flows: u32 = flows.trim().parse().map_err(|_| refuse())?;
    let is_period = |name: &str| !period.is_empty() && name.starts_with(period);
    let per = PERIODS.into_iter().find(|(name, _)| is_period(name)).ok_or_else(refuse)?.1;
    let burst = burst.unwrap_or(BURST);
    if !(1..=most).contains(&flows) {
        return Err(refuse());
    }
    if !(1..=most).contains(&burst) {
        return Err(invalid(format!("a burst of {burst} is none: write 1 to {most}")));
    }
    Ok(Some(engine::Limit { flows, per, burst }))
}

fn parse_comment(text: &str) -> Result<String> {
    if text.len() > COMMENT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!(
            "a comment is one line of {COMMENT_BYTES_MAX} bytes at most: shorten it"
        )));
    }
    Ok(text.to_owned())
}

fn pick<T: Copy>(known: &[(&str, T)], text: &str, what: impl FnOnce() -> String) -> Result<T> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        invalid(format!("{}: use {}", what(), names.join(", ")))
    })
}
