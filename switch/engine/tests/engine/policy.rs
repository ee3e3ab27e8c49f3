//! The walls, exhaustively: every question there is, against a specification of one line a case.

use vswitch_engine::policy::{Action, Place, Published, Question, Ruling, decide};
use vswitch_engine::{Family, GatewayMode, Network};
use vswitch_frame::{DropReason, NetworkId};

const HOME: NetworkId = NetworkId(1);
const OTHER: NetworkId = NetworkId(2);

/// Where a packet comes from, seen from the network `HOME`; or where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Home,
    Other,
    Outside,
    Trusted,
}

/// One question, spelled out.
#[derive(Clone, Copy, Debug)]
struct Case {
    from: Who,
    to: Who,
    /// Of the network it comes from.
    source: Kind,
    /// Of the network it goes to.
    target: Kind,
    published: Published,
    icmp: bool,
    established: bool,
    user: Option<Action>,
    /// Whether that is of a rule which names both ends.
    opened: bool,
}

/// A network, as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Kind {
    internal: bool,
    icc: bool,
    mode: GatewayMode,
}

impl Case {
    fn in_network(&self, who: Who) -> bool {
        matches!(who, Who::Home | Who::Other)
    }
    fn within(&self) -> bool {
        self.in_network(self.from) && self.from == self.to
    }
    fn leaves(&self) -> bool {
        self.in_network(self.from) && !self.within()
    }
    fn enters(&self) -> bool {
        self.in_network(self.to) && !self.within()
    }
    fn by_host_port(&self) -> bool {
        self.published == Published::Translated
    }
    fn is_opened(&self) -> bool {
        self.opened && self.user == Some(Action::Accept)
    }
    fn for_published_port(&self) -> bool {
        self.published == Published::Direct
    }
}

/// The part of a case that decides, and the decision. The first line that applies counts.
type Line = (&'static str, fn(&Case) -> bool, Ruling);

use GatewayMode::{Isolated, Nat, NatUnprotected, Routed};
use Ruling::{Accept, Drop, Reject};

#[rustfmt::skip]
const SPECIFICATION: &[Line] = &[
    ("replies and what follows the first packet pass", |c| c.established, Accept),
    ("the user's drop comes before the walls",   |c| c.user == Some(Action::Drop), Drop(DropReason::Rule)),
    ("so does the user's reject",                |c| c.user == Some(Action::Reject), Reject),
    ("nothing leaves an isolated network",       |c| c.leaves() && c.source.mode == Isolated, Drop(DropReason::Internal)),
    ("or an internal one",                       |c| c.leaves() && c.source.internal, Drop(DropReason::Internal)),
    ("published ports lead in",                  |c| c.by_host_port(), Accept),
    ("ICC off is silence",                       |c| c.within() && !c.target.icc, Drop(DropReason::Isolated)),
    ("ICC on is not",                            |c| c.within(), Accept),
    ("else nothing enters an internal network",  |c| c.enters() && c.target.internal, Drop(DropReason::Internal)),
    ("or an isolated one",                       |c| c.enters() && c.target.mode == Isolated, Drop(DropReason::Internal)),
    ("a rule that names both opens other networks", |c| c.leaves() && c.enters() && c.is_opened(), Accept),
    ("nat: only trusted interfaces come near",   |c| c.enters() && c.target.mode == Nat && c.from != Who::Trusted, Drop(DropReason::Protected)),
    ("and only to published ports",              |c| c.enters() && c.target.mode == Nat && !c.for_published_port(), Drop(DropReason::Protected)),
    ("routed: published ports and ICMP",         |c| c.enters() && c.target.mode == Routed && !c.for_published_port() && !c.icmp, Drop(DropReason::Protected)),
    ("whatever else may be asked passes",        |_| true, Accept),
];

fn kinds(vary: bool) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for mode in [Nat, NatUnprotected, Routed, Isolated] {
        for bits in 0..4 {
            let bit = |at: u8| bits >> at & 1 == 1;
            kinds.push(Kind { internal: bit(0), icc: bit(1), mode });
        }
    }
    kinds.truncate(if vary { kinds.len() } else { 1 });
    kinds
}

/// Every case there is.
fn cases(mut check: impl FnMut(Case)) {
    let everybody = [Who::Home, Who::Other, Who::Outside, Who::Trusted];
    let is_network = |who| matches!(who, Who::Home | Who::Other);
    let publications = [Published::No, Published::Direct, Published::Translated];
    let users = [None, Some(Action::Accept), Some(Action::Drop), Some(Action::Reject)];
    for from in everybody {
        for to in everybody {
            for source in kinds(is_network(from)) {
                for target in kinds(is_network(to)) {
                    // A network is one network, on either end.
                    let target = if from == to && is_network(from) { source } else { target };
                    for published in publications {
                        for (bits, user) in (0..8).flat_map(|bits| users.map(|user| (bits, user))) {
                            let (icmp, established, opened) = (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4);
                            let ends =
                                Case { from, to, source, target, published, icmp, established, user, opened };
                            check(ends);
                        }
                    }
                }
            }
        }
    }
}

/// The network of a kind. The mode of the other family is another one.
fn network(kind: Kind, family: Family) -> Network {
    let decoy = if kind.mode == Nat { NatUnprotected } else { Nat };
    let (mode_v4, mode_v6) = match family {
        Family::V4 => (kind.mode, decoy),
        Family::V6 => (decoy, kind.mode),
    };
    let Kind { internal, icc, .. } = kind;
    Network { internal, icc, mode_v4, mode_v6, ..Network::default() }
}

fn place(who: Who, network: &Network) -> Place<'_> {
    match who {
        Who::Home => Place::Network(HOME, network),
        Who::Other => Place::Network(OTHER, network),
        Who::Outside => Place::Outside { trusted: false },
        Who::Trusted => Place::Outside { trusted: true },
    }
}

#[test]
fn every_question_is_answered_as_specified() {
    let mut used = vec![false; SPECIFICATION.len()];
    cases(|case| {
        let line = SPECIFICATION.iter().position(|(_, applies, _)| applies(&case)).expect("the last line");
        used[line] = true;
        let (why, _, expected) = SPECIFICATION[line];
        for family in [Family::V4, Family::V6] {
            let (source, target) = (network(case.source, family), network(case.target, family));
            let Case { published, icmp, established, user, opened, .. } = case;
            let (from, to) = (place(case.from, &source), place(case.to, &target));
            let question = Question { family, from, to, established, icmp, published, user, opened };
            assert_eq!(decide(&question), expected, "{why}: {case:?} {family:?}");
        }
    });
    assert!(used.iter().all(|used| *used), "a line that never applies: {used:?}");
}
