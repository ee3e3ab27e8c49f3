//! The words of the two processes to each other, and the memory they share. Plain data.
//!
//! | file | |
//! |---|---|
//! | [`fact`] | everything the datapath was told: facts by their keys |
//! | [`order`] [`parts`] | messages, and how they travel |
//! | [`network`] [`port`] [`tunnel`] [`uplink`] [`relay`] [`claim`] [`poll`] | the parts of facts |
//! | [`flows`] [`names`] | questions, by control for flows, by the datapath for names |
//! | [`reserved`] | ports that no endpoint has |
//! | [`counters`] [`mirror`] | counters and flows, in memory that outlives either |
#![forbid(unsafe_code)]

pub mod claim;
pub mod counters;
pub mod fact;
pub mod flows;
pub mod mirror;
pub mod names;
pub mod network;
pub mod order;
pub mod parts;
pub mod poll;
pub mod port;
pub mod relay;
pub mod reserved;
pub mod tunnel;
pub mod uplink;
