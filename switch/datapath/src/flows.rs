//! Pages of the translator's flows, as control asks for them.
//!
//! There may be a million flows, of which somebody wants to see three: they are chosen here, and one order
//! looks at and answers a bounded number, so that no frame waits for a listing.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_contract::flows::{FlowFilter, FlowPage, FlowQuery, FlowState};
use vswitch_frame::Instant;
use vswitch_nat::{Listed, Nat, Realm};

/// Flows on a page at most, so that it fits one message.
const PAGE: usize = 64;
/// Records that one order looks at; some hundred microseconds.
const LOOKS: u32 = 8192;

/// Whether a filter asks for a flow.
fn asks_for(filter: &FlowFilter, flow: &Listed) -> bool {
    let asked = &flow.initiator;
    let within = |net: &IpNet, address: IpAddr| net.contains(&address);
    let realms = [flow.initiator.realm, flow.target.realm];
    filter.protocol.is_none_or(|protocol| protocol == asked.protocol)
        && filter.source.is_none_or(|net| within(&net, asked.source.ip()))
        && filter.target.is_none_or(|net| within(&net, asked.target.ip()))
        && filter.source_port.is_none_or(|port| port == asked.source_port)
        && filter.target_port.is_none_or(|port| port == asked.target_port)
        && filter.sandbox.is_none_or(|sandbox| sandbox == flow.sandbox)
        && filter.network.is_none_or(|network| realms.contains(&Realm::network(network)))
        && filter.state.is_none_or(|state| is_in(flow, state))
}

fn is_in(flow: &Listed, state: FlowState) -> bool {
    match state {
        FlowState::Tcp(state) => flow.state == Some(state),
        FlowState::Unreplied => !flow.answered,
        FlowState::Assured => flow.class.is_established(),
    }
}

/// The page that a query asks for, and where the one behind it begins.
pub(crate) fn page(query: &FlowQuery, nat: &mut Nat, now: Instant) -> FlowPage {
    let end = query.from.saturating_add(LOOKS).min(nat.records());
    let mut next = end;
    let mut found = Vec::new();
    for (number, flow) in nat.flows_in(query.from..end, now) {
        if found.len() == PAGE {
            next = number;
            break;
        }
        if asks_for(&query.filter, &flow) {
            found.push((number, flow));
        }
    }
    if query.end {
        found.iter().for_each(|&(number, _)| nat.end_flow(number));
    }
    let flows = found.into_iter().map(|(_, flow)| flow).collect();
    FlowPage { flows, next: (next < nat.records()).then_some(next) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use vswitch_contract::order::Reply;
    use vswitch_frame::{Frame, NetworkId, Pool, PortId};
    use vswitch_nat::{Inside, Leaving, Limits, Protocol, TcpState, Uplink, Verdicts};
    use vswitch_sys::seqpacket::MESSAGE_BYTES_MAX;

    use super::*;

    pub(crate) const NETWORK: NetworkId = NetworkId(3);
    pub(crate) const HOST: [u8; 4] = [192, 0, 2, 1];

    /// A datagram of IPv4, its UDP checksum left out.
    pub(crate) fn datagram(pool: &mut Pool, source: [u8; 4], port: u16, target: [u8; 4]) -> Frame {
        let mut frame = pool.take().expect("a slot");
        let mut ip = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        ip.extend(source);
        ip.extend(target);
        let mut sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let check = u16::try_from(!sum & 0xffff).expect("16 bits").to_be_bytes();
        ip[10..12].copy_from_slice(&check);
        let [high, low] = port.to_be_bytes();
        let bytes = [&[2; 12][..], &[8, 0], &ip, &[high, low, 0, 53, 0, 8, 0, 0]].concat();
        frame.fill(&bytes);
        frame.parse().expect("a frame");
        frame
    }

    /// A translator with so many flows of UDP, of ports from 1000 on, by turns of sandboxes 1 and 2.
    fn translator(flows: u16) -> Nat {
        let mut nat = Nat::new(Limits { flows: 1000, ..Limits::default() }, 7);
        nat.set_uplink(Uplink { v4: Some(HOST.into()), mtu: 1500, ..Uplink::default() });
        nat.grant(Protocol::Udp, HOST.into(), 40_000..50_000);
        let (mut pool, mut verdicts) = (Pool::new(2), Verdicts::default());
        for number in 0..flows {
            let sandbox = u32::from(number % 2) + 1;
            let leaving = Leaving::Masqueraded;
            let from = Inside { port: PortId(1), network: NETWORK, sandbox, leaving, address: None };
            let frame = datagram(&mut pool, [10, 0, 0, 2], 1000 + number, [198, 51, 100, 1]);
            nat.outbound(frame, from, Instant::ZERO + Duration::from_secs(1), &mut verdicts);
            let (_, frame) = verdicts.outside.pop().expect("it leaves");
            pool.free(frame);
        }
        nat
    }

    fn read(nat: &mut Nat, filter: &FlowFilter, end: bool) -> Vec<Listed> {
        let (mut flows, mut from) = (Vec::new(), Some(0));
        while let Some(first) = from {
            let query = FlowQuery { filter: filter.clone(), from: first, end };
            let page = page(&query, nat, Instant::ZERO);
            flows.extend(page.flows.iter().copied());
            from = page.next;
            assert!(from.is_none_or(|next| next > first), "it goes on");
            let message = serde_json::to_vec(&Reply::Flows(page)).expect("JSON");
            assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes", message.len());
        }
        flows
    }

    #[test]
    fn pages_have_every_flow_once_and_fit_a_message() {
        let mut nat = translator(300);
        let flows = read(&mut nat, &FlowFilter::default(), false);
        let ports: Vec<u16> = flows.iter().map(|flow| flow.initiator.source_port).collect();
        assert_eq!(ports, (1000..1300).collect::<Vec<_>>());
    }

    #[test]
    fn a_filter_lets_through_what_it_says() {
        let mut nat = translator(10);
        let net = |text: &str| Some(text.parse().expect("a subnet"));
        let of = FlowFilter::default;
        let table = [
            (of(), 10),
            (FlowFilter { protocol: Some(Protocol::Udp), ..of() }, 10),
            (FlowFilter { protocol: Some(Protocol::Tcp), ..of() }, 0),
            (FlowFilter { source: net("10.0.0.0/8"), ..of() }, 10),
            (FlowFilter { source: net("10.0.0.3/32"), ..of() }, 0),
            (FlowFilter { target: net("198.51.100.1/32"), ..of() }, 10),
            (FlowFilter { target: net("2001:db8::/32"), ..of() }, 0),
            (FlowFilter { source_port: Some(1004), ..of() }, 1),
            (FlowFilter { target_port: Some(54), ..of() }, 0),
            (FlowFilter { sandbox: Some(2), ..of() }, 5),
            (FlowFilter { network: Some(NETWORK), ..of() }, 10),
            (FlowFilter { network: Some(NetworkId(4)), ..of() }, 0),
            (FlowFilter { state: Some(FlowState::Unreplied), ..of() }, 10),
            (FlowFilter { state: Some(FlowState::Assured), ..of() }, 0),
            (FlowFilter { state: Some(FlowState::Tcp(TcpState::Established)), ..of() }, 0),
        ];
        for (filter, expected) in table {
            assert_eq!(read(&mut nat, &filter, false).len(), expected, "{filter:?}");
        }
    }

    #[test]
    fn what_is_to_end_is_shown_and_gone() {
        let mut nat = translator(200);
        let filter = FlowFilter { sandbox: Some(1), ..FlowFilter::default() };
        assert_eq!(read(&mut nat, &filter, true).len(), 100);
        assert_eq!(read(&mut nat, &filter, false), []);
        assert_eq!(nat.stats().flows, 100);
    }
}
