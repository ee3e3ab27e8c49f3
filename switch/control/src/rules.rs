//! Rules of the user's: adding, showing, removing.
//!
//! A rule is kept as it was written, with networks by name, and translated for the datapath whenever the
//! table changes. The datapath is always given the whole table, which takes the place of the one before at
//! once. A rule goes with the network it names: without it, it would match nothing.

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_contract::fact::Fact;
use vswitch_contract::network as engine;

use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::state::State;
use crate::state::rules::{End, Rule, Rules};

const PROTOCOLS: [(&str, engine::Protocol); 5] = [
    ("any", engine::Protocol::Any),
    ("tcp", engine::Protocol::Tcp),
    ("udp", engine::Protocol::Udp),
    ("icmp", engine::Protocol::Icmp),
    ("icmpv6", engine::Protocol::Icmpv6),
];
const STATES: [(&str, engine::State); 2] =
    [("new", engine::State::New), ("established", engine::State::Established)];
const ACTIONS: [(&str, engine::Action); 3] =
    [("accept", engine::Action::Accept), ("drop", engine::Action::Drop), ("reject", engine::Action::Reject)];

/// Rules there may be: each packet that begins a flow is compared with all.
const RULES_MAX: usize = 1000;

impl Control {
    /// Adds a rule.
    pub async fn add_rule(&mut self, wish: types::RuleCreate) -> Result<types::Rule> {
        let before = self.state.rules.clone();
        if before.rules.len() >= RULES_MAX {
            let message = format!("{RULES_MAX} rules is the most there can be: remove one");
            return Err(Error::new(Code::LimitReached, message));
        }
        let at = match wish.before {
            Some(id) => before.place_of(id)?,
            None => before.rules.len(),
        };
        let id = before.last + 1;
        let rule = parse(&self.state, id, &wish)?;
        let rules = &mut self.state.rules;
        rules.last = id;
        rules.rules.insert(at, rule.clone());
        self.push_rules(before).await?;
        Ok(show(&rule, engine::Count::default()))
    }

    /// Removes a rule.
    pub async fn remove_rule(&mut self, id: u32) -> Result<()> {
        let before = self.state.rules.clone();
        let at = before.place_of(id)?;
        self.state.rules.rules.remove(at);
        self.push_rules(before).await
    }

    /// Every rule in order, with what it has decided about.
    pub async fn rules(&self) -> Result<Vec<types::Rule>> {
        let counts = self.link.rule_counts().await;
        let counts = counts.map_err(|error| {
            Error::new(Code::Internal, format!("cannot read the counters of rules: {error}"))
        })?;
        let count = |rule: &Rule| counts.get(&rule.id).copied().unwrap_or_default();
        Ok(self.state.rules.rules.iter().map(|rule| show(rule, count(rule))).collect())
    }

    /// Forgets the rules that name a network which is gone.
    pub(crate) async fn forget_rules_of(&mut self, network: &str) {
        let before = self.state.rules.clone();
        self.state.rules.rules.retain(|rule| !rule.names(network));
        if self.state.rules != before
            && let Err(error) = self.push_rules(before).await
        {
            tracing::warn!("the rules that named network {network:?} are still there: {error}");
        }
    }

    /// Tells the datapath the rules there are; if that fails, those there were are kept.
    pub(crate) async fn push_rules(&mut self, before: Rules) -> Result<()> {
        let table = self.state.rules.rules.iter().filter_map(|rule| translate(&self.state, rule)).collect();
        let done = self.link.set(Fact::Rules(table)).await;
        done.map_err(|error| {
            self.state.rules = before;
            Error::new(Code::Internal, format!("cannot change the rules: {error}"))
        })
    }
}

/// Reads a rule as a client wrote it.
fn parse(state: &State, id: u32, wish: &types::RuleCreate) -> Result<Rule> {
    let end = |text: &Option<String>| text.as_deref().map(|text| parse_end(state, text)).transpose();
    let named = |what, text: &str| format!("{what} {text:?} is not known");
    let protocol = match wish.protocol.as_deref() {
        Some(text) => pick(&PROTOCOLS, text, || named("protocol", text))?,
        None => engine::Protocol::Any,
    };
    let state_of = |text: &String| pick(&STATES, text, || named("state", text));
    let rule = Rule {
        id,
        network: wish.network.as_deref().map(|key| state.network_name(key)).transpose()?,
        from: end(&wish.from)?,
        to: end(&wish.to)?,
        protocol,
        source_ports: wish.source_port.as_deref().map(parse_ports).transpose()?,
        target_ports: wish.destination_port.as_deref().map(parse_ports).transpose()?,
        state: wish.state.as_ref().map(state_of).transpose()?,
        action: pick(&ACTIONS, &wish.action, || named("action", &wish.action))?,
    };
    check(&rule)?;
    Ok(rule)
}

/// Refuses rules that can match nothing.
fn check(rule: &Rule) -> Result<()> {
    let has_ports = rule.source_ports.is_some() || rule.target_ports.is_some();
    if has_ports && !matches!(rule.protocol, engine::Protocol::Tcp | engine::Protocol::Udp) {
        return Err(invalid("a port needs its protocol: give --proto tcp or --proto udp, too".to_owned()));
    }
    let family = |end: &Option<End>| match end {
        Some(End::Subnet(subnet)) => Some(Family::of(subnet.addr())),
        Some(End::Network(_)) | None => None,
    };
    let of_protocol = match rule.protocol {
        engine::Protocol::Icmp => Some(Family::V4),
        engine::Protocol::Icmpv6 => Some(Family::V6),
        engine::Protocol::Any | engine::Protocol::Tcp | engine::Protocol::Udp => None,
    };
    let families: Vec<Family> =
        [family(&rule.from), family(&rule.to), of_protocol].into_iter().flatten().collect();
    if families.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(invalid("the rule mixes IPv4 and IPv6 and would match nothing: write two".to_owned()));
    }
    Ok(())
}

fn parse_end(state: &State, text: &str) -> Result<End> {
    if let Ok(subnet) = text.parse::<IpNet>() {
        return Ok(End::Subnet(subnet.trunc()));
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(End::Subnet(IpNet::from(address)));
    }
    let name = state.network_name(text).map_err(|error| {
        if text.contains('/') {
            return invalid(format!("{text:?} is no subnet: write one as in 10.1.0.0/24, or name a network"));
        }
        error
    })?;
    Ok(End::Network(name))
}

/// A port, or two with `-` or `:` between them.
fn parse_ports(text: &str) -> Result<engine::PortRange> {
    let refuse = || invalid(format!("{text:?} is no port or range of ports: write 80, or 8000-8080"));
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| refuse())?;
    let last: u16 = last.parse().map_err(|_| refuse())?;
    if first <= last { Ok(first..=last) } else { Err(refuse()) }
}

fn pick<T: Copy>(known: &[(&str, T)], text: &str, what: impl FnOnce() -> String) -> Result<T> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        invalid(format!("{}: use {}", what(), names.join(", ")))
    })
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

/// A rule as the datapath is told it, if the networks it names are there.
fn translate(state: &State, rule: &Rule) -> Option<engine::Rule> {
    let number = |name: &String| state.networks.get(name).map(|network| network.number);
    let end = |end: &Option<End>| match end {
        Some(End::Subnet(subnet)) => Some(engine::End::Subnet(*subnet)),
        Some(End::Network(name)) => number(name).map(engine::End::Network),
        None => Some(engine::End::Any),
    };
    let network = match &rule.network {
        Some(name) => Some(number(name)?),
        None => None,
    };
    Some(engine::Rule {
        id: rule.id,
        network,
        from: end(&rule.from)?,
        to: end(&rule.to)?,
        protocol: rule.protocol,
        source_ports: rule.source_ports.clone(),
        target_ports: rule.target_ports.clone(),
        state: rule.state,
        action: rule.action,
    })
}

/// A rule as clients see it.
fn show(rule: &Rule, count: engine::Count) -> types::Rule {
    let end = |end: &Option<End>| match end {
        Some(End::Subnet(subnet)) => subnet.to_string(),
        Some(End::Network(name)) => name.clone(),
        None => String::new(),
    };
    let ports = |ports: &Option<engine::PortRange>| match ports {
        Some(ports) if ports.start() == ports.end() => ports.start().to_string(),
        Some(ports) => format!("{}-{}", ports.start(), ports.end()),
        None => String::new(),
    };
    types::Rule {
        id: rule.id,
        network: rule.network.clone().unwrap_or_default(),
        from: end(&rule.from),
        to: end(&rule.to),
        protocol: name(&PROTOCOLS, rule.protocol),
        source_port: ports(&rule.source_ports),
        destination_port: ports(&rule.target_ports),
        state: rule.state.map(|state| name(&STATES, state)).unwrap_or_default(),
        action: name(&ACTIONS, rule.action),
        frames: count.frames,
        bytes: count.bytes,
    }
}

fn name<T: PartialEq>(known: &[(&str, T)], value: T) -> String {
    known.iter().find(|(_, other)| *other == value).map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(action: &str) -> types::RuleCreate {
        types::RuleCreate { action: action.to_owned(), ..types::RuleCreate::default() }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_rule_shows_as_it_was_written() {
        let wish = types::RuleCreate {
            from: text("10.1.2.3"),
            to: text("10.2.0.9/16"),
            protocol: text("tcp"),
            source_port: text("1024:65535"),
            destination_port: text("80"),
            state: text("new"),
            ..wish("reject")
        };
        let rule = parse(&State::default(), 7, &wish).expect("a rule");
        let shown = show(&rule, engine::Count { frames: 2, bytes: 128 });
        let expected = types::Rule {
            id: 7,
            network: String::new(),
            from: "10.1.2.3/32".to_owned(),
            to: "10.2.0.0/16".to_owned(),
            protocol: "tcp".to_owned(),
            source_port: "1024-65535".to_owned(),
            destination_port: "80".to_owned(),
            state: "new".to_owned(),
            action: "reject".to_owned(),
            frames: 2,
            bytes: 128,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_mend() {
        let bad = [
            (wish("deny"), "action \"deny\" is not known: use accept, drop, reject"),
            (types::RuleCreate { protocol: text("gre"), ..wish("drop") }, "use any, tcp, udp, icmp, icmpv6"),
            (types::RuleCreate { state: text("old"), ..wish("drop") }, "use new, established"),
            (types::RuleCreate { destination_port: text("80"), ..wish("drop") }, "give --proto tcp"),
            (types::RuleCreate { source_port: text("90-80"), ..wish("drop") }, "write 80, or 8000-8080"),
            (types::RuleCreate { from: text("10.0.0.0/33"), ..wish("drop") }, "is no subnet"),
            (types::RuleCreate { from: text("lan"), ..wish("drop") }, "network \"lan\" not found"),
            (
                types::RuleCreate { from: text("10.0.0.0/8"), to: text("fd00::1"), ..wish("drop") },
                "mixes IPv4 and IPv6",
            ),
            (
                types::RuleCreate { from: text("fd00::/8"), protocol: text("icmp"), ..wish("drop") },
                "mixes IPv4 and IPv6",
            ),
        ];
        for (wish, part) in bad {
            let error = parse(&State::default(), 1, &wish).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
