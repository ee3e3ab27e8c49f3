//! A userspace virtual switch for containers: the `vswitch` command as a library.
//!
//! | module | role |
//! |---|---|
//! | [`cli`] | the command line: a client of the control socket |
//! | [`control`] | the privileged process: API, networks, addresses, interfaces |
//! | [`datapath`] | the confined process: the poll loop that moves every frame |
#![forbid(unsafe_code)]

pub mod cli;
pub mod control;
pub mod datapath;

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
