//! Packet-throughput benchmarks beside the kernel and its peers.
//!
//! | module | role |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`c2c`] | container to container: rounds of measurements |
//! | [`attach`] | attaching, and the cost of many attached containers |
//! | [`endpoints`], [`names`], [`ports`] | a large network; names answered; many published ports |
//! | [`fairness`] | what others keep while one container floods |
//! | [`contender`] | the switch and its peers, set up |
//! | [`road`], [`measurement`], [`figure`] | the way of the traffic, what is measured, what that gives |
//! | [`results`], [`summary`], [`report`], [`table`], [`chart`], [`ratios`] | from values to what a person reads |
//! | [`classes`] | the kinds of frame that the micro-benchmarks in `benches/` use |
//! | [`process`], [`http`], [`machine`], [`error`] | where it runs, with what, and why not |
#![forbid(unsafe_code)]

pub mod attach;
pub mod c2c;
pub mod chart;
pub mod classes;
pub mod cli;
pub mod cluster;
pub mod contender;
pub mod endpoints;
pub mod error;
pub mod exhaustion;
pub mod fairness;
pub mod figure;
pub mod http;
pub mod machine;
pub mod measurement;
pub mod membership;
pub mod names;
pub mod ports;
pub mod process;
pub mod ratios;
pub mod report;
pub mod results;
pub mod road;
pub mod summary;
pub mod table;
