//! Flows that are translated: showing, counting and ending them.
//!
//! A listing may be long, so it is read page by page, as it is [written](crate::api::stream) to the client,
//! beside the jobs of control.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_contract::flows::{FlowFilter, FlowQuery, FlowState};
use vswitch_contract::flows::{Listed, Protocol, TcpState, Tuple};
use vswitch_frame::NetworkId;

use crate::api::stream::Pages;
use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::link::{Link, LinkError};

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
    ("icmpv6", Protocol::Icmp6),
    ("sctp", Protocol::Sctp),
];
const UNREPLIED: &str = "UNREPLIED";
const ASSURED: &str = "ASSURED";

/// A listing that is yet to be read, or to be ended.
#[derive(Debug)]
pub struct Listing {
    /// The record that the next page begins with; `None` behind the last.
    from: Option<u32>,
    /// Whether the flows on it end.
    ends: bool,
    link: Link,
    filter: FlowFilter,
    sandboxes: BTreeMap<u32, String>,
    networks: BTreeMap<NetworkId, String>,
}

impl Control {
    /// The flows that are asked for.
    pub fn flows(&self, query: &types::FlowQuery) -> Result<Listing> {
        let sandboxes = self.state.sandboxes.iter();
        let networks = self.state.networks.iter();
        Ok(Listing {
            from: Some(0),
            ends: false,
            link: self.link.clone(),
            filter: self.flow_filter(query)?,
            sandboxes: sandboxes.map(|(name, sandbox)| (sandbox.number.into(), name.clone())).collect(),
            networks: networks.map(|(name, network)| (network.number, name.clone())).collect(),
        })
    }

    /// Counts the flows.
    pub async fn flow_count(&self) -> Result<types::FlowCount> {
        let (stats, limit) = self.link.flow_count().await.map_err(unread)?;
        Ok(types::FlowCount {
            count: stats.flows,
            limit,
            ports_claimed: stats.ports_claimed,
            ports_free: stats.ports_free,
            evicted: stats.evicted,
            overloaded: stats.overloaded,
            recycled: stats.recycled,
            refused: stats.refused,
            reset: stats.reset,
        })
    }

    fn flow_filter(&self, query: &types::FlowQuery) -> Result<FlowFilter> {
        let sandbox = query.sandbox.as_deref().map(|key| self.state.sandbox_name(key)).transpose()?;
        let network = query.network.as_deref().map(|key| self.state.network_name(key)).transpose()?;
        Ok(FlowFilter {
            protocol: query.proto.as_deref().map(parse_protocol).transpose()?,
            source: query.src.as_deref().map(parse_subnet).transpose()?,
            target: query.dst.as_deref().map(parse_subnet).transpose()?,
            source_port: query.sport,
            target_port: query.dport,
            state: query.state.as_deref().map(parse_state).transpose()?,
            sandbox: sandbox.map(|name| self.state.sandboxes[&name].number.into()),
            network: network.map(|name| self.state.networks[&name].number),
        })
    }
}

impl Listing {
    /// The listing whose flows end as they are read.
    #[must_use]
    pub fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    fn show(&self, flow: &Listed) -> types::Flow {
        let Listed { initiator, target, .. } = flow;
        let network = initiator.realm.inside().or(target.realm.inside());
        let network = network.and_then(|number| self.networks.get(&number));
        types::Flow {
            protocol: protocol_name(initiator.protocol),
            protocol_number: initiator.protocol as u8,
            state: flow.state.map(TcpState::label).unwrap_or_default().to_owned(),
            timeout: flow.left.as_secs(),
            original: side(initiator, initiator.source_port, flow.frames[0], flow.bytes[0]),
            reply: side(target, target.target_port, flow.frames[1], flow.bytes[1]),
            unreplied: !flow.answered,
            assured: flow.class.is_established(),
            sandbox: self.sandboxes.get(&flow.sandbox).cloned().unwrap_or_default(),
            network: network.cloned().unwrap_or_default(),
        }
    }
}

impl Pages for Listing {
    type Item = types::Flow;

    async fn next(&mut self) -> Result<Option<Vec<types::Flow>>> {
        let Some(from) = self.from else { return Ok(None) };
        let query = FlowQuery { filter: self.filter.clone(), from, end: self.ends };
        let page = self.link.flows(query).await.map_err(unread)?;
        self.from = page.next;
        Ok(Some(page.flows.iter().map(|flow| self.show(flow)).collect()))
    }

    fn must_end(&self) -> bool {
        self.ends
    }
}

fn side(tuple: &Tuple, identifier: u16, frames: u32, bytes: u64) -> types::FlowSide {
    let is_icmp = matches!(tuple.protocol, Protocol::Icmp | Protocol::Icmp6);
    let port = |port: u16| if is_icmp { 0 } else { port };
    types::FlowSide {
        source: tuple.source.ip(),
        destination: tuple.target.ip(),
        source_port: port(tuple.source_port),
        destination_port: port(tuple.target_port),
        icmp_type: is_icmp.then_some(tuple.kind),
        icmp_id: is_icmp.then_some(identifier),
        frames,
        bytes,
    }
}

fn protocol_name(protocol: Protocol) -> String {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == protocol);
    known.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

fn parse_protocol(text: &str) -> Result<Protocol> {
    let known = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let names = PROTOCOLS.map(|(name, _)| name);
    known.map(|(_, protocol)| *protocol).ok_or_else(|| invalid("protocol", text, &names.join(", ")))
}

fn parse_subnet(text: &str) -> Result<IpNet> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| invalid("address", text, "an address or a subnet"))
}

fn parse_state(text: &str) -> Result<FlowState> {
    let states = TcpState::ALL.into_iter().map(|state| (state.label(), FlowState::Tcp(state)));
    let others = [(UNREPLIED, FlowState::Unreplied), (ASSURED, FlowState::Assured)];
    let known: Vec<(&str, FlowState)> = states.chain(others).collect();
    let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, state)| *state);
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    found.ok_or_else(|| invalid("state", text, &names.join(", ")))
}

fn invalid(what: &str, text: &str, instead: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("{text:?} is no {what} of flows: give {instead}"))
}

fn unread(error: LinkError) -> Error {
    Error::new(Code::Internal, format!("cannot read the flows: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_query_are_read() {
        assert_eq!(parse_protocol("TCP"), Ok(Protocol::Tcp));
        assert_eq!(parse_subnet("10.1.0.2"), Ok("10.1.0.2/32".parse().expect("a subnet")));
        assert_eq!(parse_subnet("fd00::/8"), Ok("fd00::/8".parse().expect("a subnet")));
        assert_eq!(parse_state("established"), Ok(FlowState::Tcp(TcpState::Established)));
        assert_eq!(parse_state("UNREPLIED"), Ok(FlowState::Unreplied));
        let wrong = [
            parse_protocol("tpc").map(drop),
            parse_subnet("10.1.0").map(drop),
            parse_state("OPEN").map(drop),
        ];
        for error in wrong {
            let error = error.expect_err("it makes no sense");
            assert!(error.message.contains("give "), "{}", error.message);
        }
    }
}
