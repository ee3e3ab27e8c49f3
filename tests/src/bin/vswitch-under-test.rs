//! The `vswitch` command, built with the tests so that they find it beside themselves.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    vswitch::main()
}
