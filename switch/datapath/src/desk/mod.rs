//! The desk: control's word comes in here, between turns.
//!
//! | file | |
//! |---|---|
//! | [`line`] | the connection to control, and where the next control comes in |
//! | [`memory`] | the facts that control told |
//! | [`orders`] | orders, carried out |
//! | [`apply`] | changes of facts, carried out |
//! | [`port`] [`tunnel`] | changes of ports, and of tunnels and what is beyond them |

mod apply;
pub(crate) mod line;
pub(crate) mod memory;
mod orders;
mod port;
#[cfg(test)]
mod tests;
mod tunnel;
