//! Traffic generators: TCP, UDP, round trips and pings from one network namespace to another, and what
//! they run across: a switch or a kernel bridge, set up so that nothing of it outlives this process.
//!
//! # Theory of operation
//!
//! A measurement runs in two processes, the *target* and the *source*, each inside its own network
//! namespace. Both are this very program again, under a hidden subcommand, so that whoever links this
//! crate can measure with nothing installed: its `main` calls [`dispatch`] before anything else.
//!
//! ```text
//!   caller ──spawn──► target   enters its namespace, opens sockets, says on which ports
//!          ──spawn──► source   enters its namespace, sends for as long as asked, says what it sent
//!          ──close stdin──► target   says what it received
//! ```
//!
//! Everything said is one line of JSON on standard output. A worker that fails says so in one line on
//! standard error, and the caller gets that line as its error. Workers are killed by the kernel when the
//! thread that spawned them ends, and by their handle when the caller gives up early: none is left over.
//!
//! Everything received is checked, and a wrong byte fails the measurement or is counted, never passed over:
//! see [`TcpReport`], [`UdpReport`], [`PingPongReport`],
//! [`ConnectionsReport`] and [`RequestsReport`] for what exactly.
#![forbid(unsafe_code)]

mod bridge;
mod connections;
mod flood;
mod measure;
mod pattern;
mod ping;
mod ping_pong;
mod place;
mod queries;
mod ready;
mod requests;
mod source_end;
mod spawn;
mod stage;
mod switch;
mod tcp;
mod udp;
mod worker;

pub use bridge::{KernelBridge, plug_in};
pub use connections::ConnectionsReport;
pub use flood::{Flood, FloodReport};
pub use measure::{Flooding, connections, flood, ping, ping_pong, probe, query, requests, tcp, udp};
pub use ping::{PingReport, ProbeReport};
pub use ping_pong::PingPongReport;
pub use place::{Place, netns_path, place};
pub use queries::QueryReport;
pub use requests::RequestsReport;
pub use spawn::{TrafficError, program};
pub use stage::enter_stage;
pub use switch::{Process, start_switch};
pub use tcp::TcpReport;
pub use udp::UdpReport;
pub use worker::dispatch;
