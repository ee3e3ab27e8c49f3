//! Control's end of the datapath: starts it, tells it what there is, and starts it again when it dies.
//!
//! # Theory of operation
//! Everything the datapath must have is a fact in a table ([`vswitch_contract::fact`]), of which both
//! processes have one. [`Link::change`] is the only way to change it: the datapath is told, and what it
//! refuses, both tables are without. When it dies, by whatever cause, a new one is started and told all
//! facts; meanwhile the kernel's queues hold the frames. A change made while the datapath is dead is
//! therefore never lost: it is part of what the new one is told.
//!
//! A datapath that does not answer within [`talk::PATIENCE`] is taken for dead, whether somebody asked it
//! something or nobody did for a while ([`process`]). When control is told to stop, nobody waits for
//! long any more, and no other is started ([`Link::give_up`]).
//!
//! When control dies the datapath goes on, and the next control takes up with it ([`survivor`]): then its
//! table is the one here at first.
//!
//! Counters lie in memory shared by both ends and survive either. So do flows: the next datapath goes on with
//! them.
//!
//! | file | |
//! |---|---|
//! | [`shared`] | the link, and everything that its clones share |
//! | [`start`] [`survivor`] | beginning with a new datapath, or with one that is there |
//! | [`change`] [`told`] | changing facts, and looking at them |
//! | [`ask`] | questions |
//! | [`process`] [`talk`] | the process, and how it is talked to |

mod ask;
mod change;
mod process;
mod shared;
mod start;
mod survivor;
mod talk;
#[cfg(test)]
mod tests;
mod told;

pub use shared::{Dropped, Link, LinkError, LinkOptions};
pub use told::Claim;
