//! Two connections joined: what one side sends, the other receives.
//!
//! # Theory of operation
//!
//! The two directions know nothing of each other, until one breaks: a reset of either connection, or any
//! error on it, ends both ([`Relay::abort`]), for no more can be said to either side in good faith.
//! In the good case a relay is done when both sources have ended and both ends have been passed on.

use crate::pipe::{Pipe, State};

/// One of the two connections of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that asked for the connection.
    Initiator,
    /// The one it was asked of.
    Target,
}

impl Side {
    /// Both sides.
    pub const BOTH: [Side; 2] = [Side::Initiator, Side::Target];

    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Target,
            Self::Target => Self::Initiator,
        }
    }
}

/// Two connections joined, with a bound on what is held between them.
#[derive(Debug)]
pub struct Relay {
    from_initiator: Pipe,
    from_target: Pipe,
}

impl Relay {
    /// A relay that holds at most `capacity` bytes in each direction, which must not be zero.
    ///
    /// # Panics
    /// When `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        Self { from_initiator: Pipe::new(capacity), from_target: Pipe::new(capacity) }
    }

    /// The pipe whose source a side is: read from the side into it.
    pub fn from(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Initiator => &mut self.from_initiator,
            Side::Target => &mut self.from_target,
        }
    }

    /// The pipe whose sink a side is: write from it to the side.
    pub fn to(&mut self, side: Side) -> &mut Pipe {
        self.from(side.peer())
    }

    /// One of the connections broke: gives up in both directions, and both are to be reset.
    pub fn abort(&mut self) {
        self.from_initiator.abort();
        self.from_target.abort();
    }

    /// Whether there is nothing left to do, so that both connections can be closed.
    pub fn is_done(&self) -> bool {
        [&self.from_initiator, &self.from_target].iter().all(|pipe| pipe.state() == State::Closed)
    }
}
