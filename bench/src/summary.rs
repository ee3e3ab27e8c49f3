//! From values to medians and ratios, and the bars they are held against. Pure.

use crate::contender::who::{Peer, PortType, Who};
use crate::figure::Figure;
use crate::results::Results;
use crate::road::Road;

/// The middle of several values, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` when there is none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// A bar that a ratio is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// The value it has to reach.
    pub at_least: f64,
    /// The value it should reach.
    pub aim: Option<f64>,
}

/// How a ratio does against its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reaches what it should.
    Aim,
    /// It reaches what it has to.
    Met,
    /// It does not.
    Missed,
}

/// The switch beside a peer, in one figure.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The switch, its ports of one kind.
    pub port_type: PortType,
    /// The peer.
    pub peer: Peer,
    /// The figure.
    pub figure: Figure,
    /// The switch's value divided by the peer's, round by round.
    pub ratio: Spread,
    /// The bar the ratio is held against, if there is one.
    pub bar: Option<Bar>,
}

impl Comparison {
    /// How the median of the ratios does.
    pub fn verdict(&self) -> Option<Verdict> {
        let reaches = |bar: f64| {
            if self.figure.more_is_better() { self.ratio.median >= bar } else { self.ratio.median <= bar }
        };
        let bar = self.bar?;
        Some(match bar.aim {
            Some(aim) if reaches(aim) => Verdict::Aim,
            _ if reaches(bar.at_least) => Verdict::Met,
            _ => Verdict::Missed,
        })
    }
}

/// Every comparison the results allow: ratios are formed within a round, then summed up.
pub fn comparisons(results: &Results) -> Vec<Comparison> {
    let mut all = Vec::new();
    for who in results.contenders() {
        let Who::Switch(port_type) = who else { continue };
        for other in results.contenders() {
            let Who::Peer(peer) = other else { continue };
            for figure in Figure::ALL.into_iter().filter(|figure| figure.is_compared()) {
                let pairs = results.values(who, figure).into_iter().zip(results.values(other, figure));
                let ratio = Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect());
                let bar = bar(results.road, port_type, peer, figure);
                all.extend(ratio.map(|ratio| Comparison { port_type, peer, figure, ratio, bar }));
            }
        }
    }
    all
}

/// The bar that the ratio of a figure is held against, if there is one.
fn bar(road: Road, port_type: PortType, peer: Peer, figure: Figure) -> Option<Bar> {
    let (at_least, aim) = match (road, figure) {
        (Road::C2c, _) => bar_of_c2c(port_type, peer, figure)?,
        (Road::Masquerade | Road::Published, Figure::Tcp1) => (0.85, Some(1.0)),
        (Road::Masquerade | Road::Published, Figure::Connections) => (0.8, Some(1.2)),
        (Road::Masquerade, Figure::Udp1) => (1.5, Some(2.5)),
        (Road::Published, Figure::Udp1) => (1.5, Some(2.2)),
        (Road::Published, Figure::PingpongP50) => (0.7, Some(0.5)),
        (Road::Proxy, Figure::Tcp1) => (1.0, Some(1.2)),
        (Road::Proxy, Figure::Udp1) => (3.0, Some(5.0)),
        (Road::Proxy, Figure::Requests | Figure::RequestP99) => (1.0, None),
        (Road::OverlayTunnelGso, Figure::Tcp1) => (0.6, Some(1.0)),
        (Road::OverlayUdpGso, Figure::Tcp1) => (1.4, Some(2.0)),
        (Road::OverlayPlain, Figure::Tcp1) => (0.7, Some(1.0)),
        (Road::OverlayTunnelGso | Road::OverlayUdpGso, Figure::Udp1) => (2.0, Some(3.5)),
        (Road::OverlayTunnelGso | Road::OverlayUdpGso, Figure::PingpongP50) => (0.7, Some(0.5)),
        (
            Road::Masquerade
            | Road::Published
            | Road::Proxy
            | Road::OverlayTunnelGso
            | Road::OverlayUdpGso
            | Road::OverlayPlain,
            _,
        ) => return None,
    };
    Some(Bar { at_least, aim })
}

fn bar_of_c2c(port_type: PortType, peer: Peer, figure: Figure) -> Option<(f64, Option<f64>)> {
    Some(match (port_type, peer, figure) {
        (PortType::Tap, Peer::Bridge, Figure::Tcp1) => (0.90, Some(1.05)),
        (PortType::Tap, Peer::Bridge, Figure::Tcp8) => (0.58, Some(0.75)),
        (PortType::Tap, Peer::Bridge, Figure::Udp1) => (2.1, Some(2.6)),
        (PortType::Tap, Peer::Bridge, Figure::Udp64) => (1.3, Some(2.0)),
        (PortType::Tap, Peer::Bridge, Figure::PingpongP50) => (0.70, Some(0.55)),
        (PortType::Tap, Peer::DockerRules, Figure::Udp1) => (2.5, Some(3.0)),
        (PortType::Tap, Peer::Ovs, Figure::Tcp1) => (8.0, None),
        (PortType::Tap, Peer::OvsTso, Figure::Tcp1) => (1.3, None),
        (PortType::Veth, Peer::Bridge, Figure::Tcp1) => (0.75, Some(0.90)),
        (PortType::Veth, Peer::Bridge, Figure::Udp1) => (1.5, Some(2.0)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::results::Sample;

    const SWITCH: Who = Who::Switch(PortType::Tap);
    const BRIDGE: Who = Who::Peer(Peer::Bridge);

    fn results(values: &[(Who, Figure, f64)]) -> Results {
        let sample = |&(who, figure, value)| Sample { round: 0, who, figure, value, report: ().into() };
        Results {
            road: Road::C2c,
            machine: Machine::default(),
            date: String::new(),
            commit: String::new(),
            rounds: 1,
            seconds: 1.0,
            samples: values.iter().map(sample).collect(),
        }
    }

    #[test]
    fn medians() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_of_one_round() {
        let tcp = Figure::Tcp1;
        let values = [(SWITCH, tcp, 9.0), (BRIDGE, tcp, 10.0), (SWITCH, tcp, 22.0), (BRIDGE, tcp, 20.0)];
        let all = comparisons(&results(&values));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].ratio, Spread { median: 1.0, min: 0.9, max: 1.1 });
        assert_eq!(all[0].verdict(), Some(Verdict::Met));
    }

    #[test]
    fn less_is_better_for_round_trips() {
        let verdict = |ours| {
            let p50 = Figure::PingpongP50;
            comparisons(&results(&[(SWITCH, p50, ours), (BRIDGE, p50, 10.0)]))[0].verdict()
        };
        assert_eq!(verdict(5.0), Some(Verdict::Aim));
        assert_eq!(verdict(6.0), Some(Verdict::Met));
        assert_eq!(verdict(8.0), Some(Verdict::Missed));
    }
}
