//! The simulated world: hosts with a real TCP/IP stack (smoltcp) on the pure switch, with a clock and cables
//! of our own making. No system call, so any history can be played, and again.

#![forbid(unsafe_code)]

mod cable;
mod conversations;
mod host;
mod routes;
mod world;
