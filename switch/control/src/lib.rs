//! The privileged process: API, networks, addresses, interfaces.
//!
//! # Theory of operation
//! A request arrives at the control socket, is read by the [`api`] and becomes a job for the [`actor`], which
//! does one at a time on [`control::Control`]. A job that changes something reserves what is needed, makes
//! interfaces by netlink, tells the datapath over the [`link`], and only then writes the [`state`]; a failure
//! at any step undoes the ones before it. Work that waits for the kernel, such as destroying an interface,
//! goes on beside ([`cleanup`]), and the client is answered when it is done.
//!
//! | module | |
//! |---|---|
//! | [`run`](mod@run) | the daemon, from its start to its end |
//! | [`api`] [`actor`] | how clients come in; one job at a time |
//! | [`control`] [`state`] | what the daemon owns; what of it survives |
//! | [`network`] | networks: options, addresses, drivers |
//! | [`sandbox`] | sandboxes and their endpoints, interfaces, routes and files |
//! | [`host`] | the host around the switch: its ports, addresses, uplinks, tunnels |
//! | [`publish`] | ports of the host that lead to sandboxes |
//! | [`rules`] [`flows`] [`observe`] | rules of the user's; flows, tables and counters |
//! | [`cluster`] | the cluster the host is in |
//! | [`link`] | the datapath, seen from here |
//! | [`reconcile`] `undo` | after a start: datapath, kernel and state are made to agree; going back to what was committed |
//! | `seen` | control, as clients see it who only look |
//! | `signals` | which signals stop the daemon |
//! | `missing` | what a start could not make: tried again |
//! | [`resolver`] | asks the host's name servers for the datapath |
//! | [`error`] [`names`] [`calendar`] | refusals; names and identifiers; moments as people write them |
#![forbid(unsafe_code)]

pub mod actor;
pub mod api;
pub mod calendar;
pub mod cleanup;
pub mod cluster;
pub mod control;
pub mod error;
pub mod flows;
pub mod host;
pub mod link;
mod missing;
pub mod names;
pub mod network;
pub mod observe;
mod privileges;
pub mod publish;
pub mod reconcile;
pub mod resolver;
pub mod rules;
pub mod run;
pub mod sandbox;
mod seen;
mod signals;
pub mod state;
mod undo;
