//! Sandboxes that flows are charged to: each one's flows as a ring, and its outside ports.
//!
//! # Theory of operation
//!
//! Who wants more than there is, pays with what is its own. So a flow of the sandbox must be found at a cost
//! that does not grow with the table: its flows are a ring, and a hand points into it. A look begins at the
//! hand and moves it on, a few flows at most; new ones come in behind all others. Flows that are good to go
//! are found in the order in which they began, and those that stay are not looked at again before all others
//! were.

use std::collections::BTreeMap;

use crate::flow::Flow;
use crate::slab::NONE;

/// Flows that one look passes at most.
const LOOKS: usize = 64;

/// A sandbox, with what it has.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// Flows that are charged to it.
    flows: u32,
    /// Claimed ports that its mappings have.
    ports: u32,
    /// The flow the hand points to.
    hand: u32,
}

/// All sandboxes that have anything. See the [module](self) for how it works.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_sandbox: BTreeMap<u32, Owner>,
}

impl Owners {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_sandbox.len()
    }

    /// How many flows a sandbox has.
    pub(crate) fn flows_of(&self, sandbox: u32) -> u32 {
        self.by_sandbox.get(&sandbox).map_or(0, |owner| owner.flows)
    }

    /// How many claimed ports a sandbox has.
    pub(crate) fn ports_of(&self, sandbox: u32) -> u32 {
        self.by_sandbox.get(&sandbox).map_or(0, |owner| owner.ports)
    }

    /// Notes one more port of a sandbox.
    pub(crate) fn add_port(&mut self, sandbox: u32) {
        self.owner(sandbox).ports += 1;
    }

    /// Notes one port less.
    pub(crate) fn remove_port(&mut self, sandbox: u32) {
        self.owner(sandbox).ports -= 1;
        self.forget_if_empty(sandbox);
    }

    /// Adds a flow to the ring of its sandbox.
    pub(crate) fn add(&mut self, records: &mut [Flow], at: u32) {
        let owner = self.owner(records[at as usize].sandbox);
        owner.flows += 1;
        if owner.hand == NONE {
            owner.hand = at;
            (records[at as usize].before, records[at as usize].behind) = (at, at);
            return;
        }
        let hand = owner.hand;
        let last = std::mem::replace(&mut records[hand as usize].before, at);
        records[last as usize].behind = at;
        (records[at as usize].before, records[at as usize].behind) = (last, hand);
    }

    /// Takes a flow out of the ring of its sandbox.
    pub(crate) fn remove(&mut self, records: &mut [Flow], at: u32) {
        let Flow { sandbox, before, behind, .. } = records[at as usize];
        records[before as usize].behind = behind;
        records[behind as usize].before = before;
        let owner = self.owner(sandbox);
        owner.flows -= 1;
        if owner.flows == 0 {
            owner.hand = NONE;
        } else if owner.hand == at {
            owner.hand = behind;
        }
        self.forget_if_empty(sandbox);
    }

    /// A flow of a sandbox that fits, if there is one among a few.
    pub(crate) fn find(
        &mut self,
        records: &[Flow],
        sandbox: u32,
        fits: impl Fn(&Flow) -> bool,
    ) -> Option<u32> {
        let owner = self.by_sandbox.get_mut(&sandbox)?;
        for _ in 0..LOOKS.min(owner.flows as usize) {
            let flow = &records[owner.hand as usize];
            if fits(flow) {
                return Some(owner.hand);
            }
            owner.hand = flow.behind;
        }
        None
    }

    fn owner(&mut self, sandbox: u32) -> &mut Owner {
        self.by_sandbox.entry(sandbox).or_insert(Owner { flows: 0, ports: 0, hand: NONE })
    }

    fn forget_if_empty(&mut self, sandbox: u32) {
        if self.by_sandbox.get(&sandbox).is_some_and(|owner| owner.flows == 0 && owner.ports == 0) {
            self.by_sandbox.remove(&sandbox);
        }
    }
}
