//! The `vswitch` command.

fn main() -> std::process::ExitCode {
    vswitch::main()
}
