//! The `vswitch-bench` command, which is also the `vswitch` command and a traffic worker.
//!
//! The benchmark runs the switch that was built with it: it starts this very program under the name
//! `vswitch`. So one `cargo run` builds all there is to measure.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = vswitch_traffic::dispatch(std::env::args_os()) {
        return code;
    }
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some("vswitch".as_ref()) {
        vswitch::main()
    } else {
        vswitch_bench::cli::main()
    }
}
