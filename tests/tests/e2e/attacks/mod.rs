//! Attacks: a hostile container, client or datapath, and the wall that it meets.

mod cage;
mod relays;
