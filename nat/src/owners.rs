//! Payers of flows: the flows of each, in the order in which they go when room is needed.
//!
//! # Theory of operation
//!
//! Who wants more than there is, pays with what is its own. So a flow of a payer must be found at a cost that
//! does not grow with the table: its flows are rings, one a [`Rank`], and the first of a ring goes first.
//! New ones come in behind all others, and so do those of opening flows that were used. A ring is also the
//! index by which all flows of a payer are found when it is gone.
//!
//! A sandbox pays for what it begins. For what others begin to it somebody else pays, so that a flood from
//! outside takes nothing of what the sandbox does itself: each publication for its own clients, and one
//! payer for all strangers at mappings. What one sandbox begins to another is charged to the first and
//! *crosses* to the second, where it is found, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::{self, Binding};
use crate::flow::{Flow, Rank};
use crate::slab::{self, NONE};

/// Flows of a ring that one look passes at most.
const LOOKS: usize = 64;
/// Established flows of which the one longest unused is chosen.
const CHOICE: usize = 16;

/// The party that a flow is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Payer {
    pub(crate) sandbox: u32,
    account: Account,
}

/// The account of a sandbox that is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    /// Flows that it begins.
    Own,
    /// Flows that outside begins to its mappings.
    Strangers,
    /// Flows that outside begins to one of its publications.
    Publication(binding::Key),
}

impl Payer {
    /// A sandbox, for what it begins.
    pub(crate) fn own(sandbox: u32) -> Self {
        Self { sandbox, account: Account::Own }
    }

    /// The payer for what outside begins to mappings of a sandbox.
    pub(crate) fn strangers(sandbox: u32) -> Self {
        Self { sandbox, account: Account::Strangers }
    }

    /// A publication, for what outside begins to it.
    pub(crate) fn publication(binding: &Binding) -> Self {
        Self { sandbox: binding.sandbox, account: Account::Publication(binding.key()) }
    }

    /// Whether it is a sandbox that pays for what it begins itself.
    pub(crate) fn is_own(self) -> bool {
        self.account == Account::Own
    }
}

/// A payer, with what it has.
#[derive(Clone, Copy, Debug)]
struct Owner {
    payer: Payer,
    /// Flows that are charged to it; zero when the record is free.
    flows: u32,
    /// The first flow of each rank.
    first: [u32; Rank::ALL.len()],
}

/// All payers that have any flow. See the [module](self) for how it works.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_payer: BTreeMap<Payer, u32>,
    records: Vec<Owner>,
    vacant: Vec<u32>,
    /// Flows of all.
    flows: u64,
    /// The one that had more flows than all others when somebody looked.
    greatest: u32,
    /// Sandboxes that flows cross to, each with the record of the flow.
    crossing: BTreeSet<(u32, u32)>,
}

impl Owners {
    /// The party that a flow is charged to.
    pub(crate) fn payer(&self, flow: &Flow) -> Payer {
        self.records[flow.owner as usize].payer
    }

    /// How many flows a payer has.
    pub(crate) fn flows_of(&self, payer: Payer) -> u32 {
        self.by_payer.get(&payer).map_or(0, |&owner| self.records[owner as usize].flows)
    }

    /// A payer that has more flows than its share: if all had as many, and there was one more of them. There
    /// is always one, and it is looked for only when that of the last time is none any more.
    pub(crate) fn greatest(&mut self) -> Option<Payer> {
        let payers = self.by_payer.len() as u64 + 1;
        let is_over = |owner: &Owner| u64::from(owner.flows) * payers > self.flows;
        if !self.records.get(self.greatest as usize).is_some_and(is_over) {
            let flows = |owner: &u32| self.records[*owner as usize].flows;
            self.greatest = self.by_payer.values().copied().max_by_key(flows)?;
        }
        Some(self.records[self.greatest as usize].payer)
    }

    /// Charges a flow to a payer.
    pub(crate) fn add(&mut self, records: &mut [Flow], at: u32, payer: Payer) {
        let owner = self.by_payer.get(&payer).copied().unwrap_or_else(|| self.enter(payer));
        records[at as usize].owner = owner;
        self.flows += 1;
        self.records[owner as usize].flows += 1;
        let has_most = |other: &Owner| other.flows <= self.records[owner as usize].flows;
        if self.records.get(self.greatest as usize).is_none_or(has_most) {
            self.greatest = owner;
        }
        self.link(records, at);
    }

    fn enter(&mut self, payer: Payer) -> u32 {
        let new = Owner { payer, flows: 0, first: [NONE; Rank::ALL.len()] };
        let owner = match self.vacant.pop() {
            Some(owner) => {
                self.records[owner as usize] = new;
                owner
            }
            None => slab::append(&mut self.records, new),
        };
        self.by_payer.insert(payer, owner);
        owner
    }

    /// Charges a flow to nobody any more.
    pub(crate) fn remove(&mut self, records: &mut [Flow], at: u32) {
        self.unlink(records, at);
        let number = records[at as usize].owner;
        let owner = &mut self.records[number as usize];
        owner.flows -= 1;
        self.flows -= 1;
        if owner.flows == 0 {
            self.by_payer.remove(&owner.payer);
            self.vacant.push(number);
        }
    }

    /// Puts a flow behind all others of its rank.
    pub(crate) fn renew(&mut self, records: &mut [Flow], at: u32) {
        self.unlink(records, at);
        self.link(records, at);
    }

    fn link(&mut self, records: &mut [Flow], at: u32) {
        let rank = Rank::of(&records[at as usize]);
        let first = &mut self.records[records[at as usize].owner as usize].first[rank as usize];
        let (mut before, mut behind) = (at, at);
        if *first == NONE {
            *first = at;
        } else {
            behind = *first;
            before = std::mem::replace(&mut records[behind as usize].before, at);
            records[before as usize].behind = at;
        }
        let flow = &mut records[at as usize];
        (flow.rank, flow.before, flow.behind) = (rank, before, behind);
    }

    fn unlink(&mut self, records: &mut [Flow], at: u32) {
        let Flow { owner, rank, before, behind, .. } = records[at as usize];
        records[before as usize].behind = behind;
        records[behind as usize].before = before;
        let first = &mut self.records[owner as usize].first[rank as usize];
        if *first == at {
            *first = if behind == at { NONE } else { behind };
        }
    }

    /// The first flow of a payer's that is spent, or else that is opening.
    pub(crate) fn least_wanted(&self, payer: Payer) -> Option<u32> {
        let owner = self.records[*self.by_payer.get(&payer)? as usize];
        let ranks = [Rank::Spent, Rank::Opening];
        ranks.into_iter().map(|rank| owner.first[rank as usize]).find(|&first| first != NONE)
    }

    /// The established flow longest unused among a few of a payer's, which are looked at by turns.
    pub(crate) fn least_used(&mut self, records: &[Flow], payer: Payer) -> Option<u32> {
        let owner = *self.by_payer.get(&payer)?;
        let first = &mut self.records[owner as usize].first[Rank::Established as usize];
        let mut least = Some(*first).filter(|&first| first != NONE)?;
        for _ in 0..CHOICE {
            if records[*first as usize].used < records[least as usize].used {
                least = *first;
            }
            *first = records[*first as usize].behind;
        }
        Some(least)
    }

    /// A spent flow of a payer's that fits, if there is one among a few. Those that do not are not looked at
    /// again before all others were.
    pub(crate) fn find_spent(
        &mut self,
        records: &[Flow],
        payer: Payer,
        fits: impl Fn(&Flow) -> bool,
    ) -> Option<u32> {
        let owner = *self.by_payer.get(&payer)?;
        let first = &mut self.records[owner as usize].first[Rank::Spent as usize];
        let start = *first;
        for _ in 0..if start == NONE { 0 } else { LOOKS } {
            let flow = &records[*first as usize];
            if fits(flow) {
                return Some(*first);
            }
            *first = flow.behind;
            if *first == start {
                break;
            }
        }
        None
    }

    /// Whether a payer has any flow that is not spent.
    pub(crate) fn has_unspent(&self, payer: Payer) -> bool {
        let owner = self.by_payer.get(&payer).map(|&owner| self.records[owner as usize]);
        owner.is_some_and(|owner| owner.first[Rank::Opening as usize..].iter().any(|&first| first != NONE))
    }

    /// All flows of a payer.
    pub(crate) fn all_of(&self, records: &[Flow], payer: Payer) -> Vec<u32> {
        let mut all = Vec::new();
        let owner = self.by_payer.get(&payer).map(|&owner| self.records[owner as usize]);
        for first in owner.into_iter().flat_map(|owner| owner.first).filter(|&first| first != NONE) {
            let mut at = first;
            loop {
                all.push(at);
                at = records[at as usize].behind;
                if at == first {
                    break;
                }
            }
        }
        all
    }

    /// Everything that a sandbox is charged for: itself, strangers, and its publications.
    pub(crate) fn of_sandbox(&self, sandbox: u32) -> Vec<Payer> {
        let payers = self.by_payer.range(Payer::own(sandbox)..).map(|(payer, _)| *payer);
        payers.take_while(|payer| payer.sandbox == sandbox).collect()
    }

    /// Notes that a flow crosses to a sandbox.
    pub(crate) fn cross(&mut self, sandbox: u32, at: u32) {
        self.crossing.insert((sandbox, at));
    }

    /// Notes that it does no more.
    pub(crate) fn uncross(&mut self, sandbox: u32, at: u32) {
        self.crossing.remove(&(sandbox, at));
    }

    /// The flows that cross to a sandbox.
    pub(crate) fn crossing_to(&self, sandbox: u32) -> impl Iterator<Item = u32> {
        self.crossing.range((sandbox, 0)..=(sandbox, u32::MAX)).map(|&(_, at)| at)
    }
}
