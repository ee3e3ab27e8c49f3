//! A userspace virtual switch for containers: the `vswitch` command as a library.
//!
//! | module | role |
//! |---|---|
//! | [`cli`] | the command line: a client of the control socket |
#![forbid(unsafe_code)]

pub mod cli;

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
