//! Attacks: somebody writes frames, and means harm.

mod cage;
mod fire;
mod floods;
mod flows;
mod relays;
mod walls;
