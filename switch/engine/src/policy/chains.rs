//! Lists of the flows of each port, oldest first.
//!
//! # Theory of operation
//! A port has one list of each [`Kind`], and a flow is on one list of each of its two ends at most. The lists
//! are links between numbers of flows, so that one is put on a list or taken off it without a look at others.

use vswitch_frame::PortId;

/// A port's part in the flows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It began them, and owns them.
    Begun,
    /// It began them, and does not tell who speaks: the targets own them.
    Sent,
    /// Somebody began them whom a port does not tell: they are its own.
    Entered,
    /// Others began them, and own them.
    Reached,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Begun, Self::Sent, Self::Entered, Self::Reached];
    const OWNED: [Self; 2] = [Self::Begun, Self::Entered];

    pub(super) fn is_owned(self) -> bool {
        Self::OWNED.contains(&self)
    }

    /// The end of its flows that the port is: the one that began them is 0, the other 1.
    pub(super) fn end(self) -> usize {
        match self {
            Self::Begun | Self::Sent => 0,
            Self::Entered | Self::Reached => 1,
        }
    }
}

/// A list: whose it is, and of which flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) port: PortId,
    pub(super) kind: Kind,
}

/// The number of no flow.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Chain {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Chain {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE, len: 0 };
}

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

impl Link {
    const NONE: Self = Self { older: NONE, newer: NONE };
}

/// All lists.
#[derive(Debug, Default)]
pub(super) struct Chains {
    chains: Vec<[Chain; 4]>,
    /// The links of each flow, one for each end.
    links: Vec<[Link; 2]>,
}

impl Chains {
    /// Makes room for the links of one more flow, and answers its number.
    pub(super) fn grow(&mut self) -> u32 {
        self.links.push([Link::NONE; 2]);
        u32::try_from(self.links.len() - 1).unwrap_or(NONE)
    }

    fn chain(&self, place: Place) -> Chain {
        self.chains.get(place.port.index()).map_or(Chain::EMPTY, |chains| chains[place.kind as usize])
    }

    fn chain_mut(&mut self, place: Place) -> &mut Chain {
        let index = place.port.index();
        if index >= self.chains.len() {
            self.chains.resize(index + 1, [Chain::EMPTY; 4]);
        }
        &mut self.chains[index][place.kind as usize]
    }

    pub(super) fn len(&self, place: Place) -> u32 {
        self.chain(place).len
    }

    pub(super) fn oldest(&self, place: Place) -> Option<u32> {
        Some(self.chain(place).oldest).filter(|number| *number != NONE)
    }

    /// The flow behind one on the list of one of its ends.
    pub(super) fn newer(&self, end: usize, number: u32) -> Option<u32> {
        Some(self.links[number as usize][end].newer).filter(|number| *number != NONE)
    }

    /// Puts a flow on a list of one of its ends.
    pub(super) fn append(&mut self, place: Place, end: usize, number: u32) {
        let chain = self.chain_mut(place);
        let newest = std::mem::replace(&mut chain.newest, number);
        chain.len += 1;
        if newest == NONE {
            chain.oldest = number;
        } else {
            self.links[newest as usize][end].newer = number;
        }
        self.links[number as usize][end] = Link { older: newest, newer: NONE };
    }

    /// Takes a flow off the list of one of its ends.
    pub(super) fn unlink(&mut self, place: Place, end: usize, number: u32) {
        let Link { older, newer } = std::mem::replace(&mut self.links[number as usize][end], Link::NONE);
        if older != NONE {
            self.links[older as usize][end].newer = newer;
        }
        if newer != NONE {
            self.links[newer as usize][end].older = older;
        }
        let chain = self.chain_mut(place);
        chain.len -= 1;
        if older == NONE {
            chain.oldest = newer;
        }
        if newer == NONE {
            chain.newest = older;
        }
    }

    /// The list of the owner with most flows. Only a table that is full asks; it looks at every port.
    pub(super) fn largest_owner(&self) -> Option<Place> {
        let ports = (0..).map(PortId).zip(&self.chains);
        let owners = ports.flat_map(|(port, chains)| {
            Kind::OWNED.map(|kind| (chains[kind as usize].len, Place { port, kind }))
        });
        owners.max_by_key(|(len, _)| *len).filter(|(len, _)| *len > 0).map(|(_, place)| place)
    }
}
