//! What the two processes say to each other, and the memory they share. Plain data.
//!
//! | file | |
//! |---|---|
//! | [`command`] | what control tells the datapath, and what that answers |
//! | [`network`] [`claim`] [`relay`] [`uplink`] [`tunnel`] | descriptions that ride in commands |
//! | [`names`] | questions for names |
//! | [`flows`] | questions for flows |
//! | [`reserved`] | ports that no endpoint has |
//! | [`counters`] | what is counted, in memory that outlives either |
//! | [`mirror`] | flows, in memory that outlives either |
#![forbid(unsafe_code)]

pub mod claim;
pub mod command;
pub mod counters;
pub mod flows;
pub mod mirror;
pub mod names;
pub mod network;
pub mod relay;
pub mod reserved;
pub mod tunnel;
pub mod uplink;
