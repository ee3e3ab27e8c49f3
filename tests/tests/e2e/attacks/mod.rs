//! Whoever writes frames, and means harm.

mod cage;
mod fire;
mod flows;
mod relays;
