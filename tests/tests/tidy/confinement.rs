//! docs/sandbox.md and the datapath's system call filter say the same.

use vswitch_sys::confine::{ALLOWED, USER};
use vswitch_tests::repository;

#[test]
fn every_allowed_call_has_its_row_with_its_arguments_and_every_row_its_call() {
    let document = repository::document("docs/sandbox.md");
    let rows = document.text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: Vec<String> = rows.map(|row| format!("| `{row}")).collect();
    let row = |call: &vswitch_sys::confine::Call| {
        format!("| `{}` | {} | {} |", call.name, call.arguments(), call.why)
    };
    let mut code: Vec<String> = ALLOWED.iter().map(row).collect();
    documented.sort();
    code.sort();
    assert_eq!(documented, code);
}

#[test]
fn the_user_is_the_one_that_is_documented() {
    let document = repository::document("docs/sandbox.md");
    assert!(document.text.contains(&format!("It is {USER},")), "{USER}");
}
