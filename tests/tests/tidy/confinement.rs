//! docs/sandbox.md and the datapath's system call filter say the same.

use vswitch_sys::confine::ALLOWED;
use vswitch_tests::repository;

#[test]
fn every_allowed_call_has_its_row_and_every_row_its_call() {
    let document = repository::document("docs/sandbox.md");
    let rows = document.text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: Vec<(String, String)> = rows
        .filter_map(|row| row.split_once("` | "))
        .map(|(name, why)| (name.to_owned(), why.trim_end_matches(" |").to_owned()))
        .collect();
    let mut code: Vec<(String, String)> =
        ALLOWED.iter().map(|(name, _, why)| ((*name).to_owned(), (*why).to_owned())).collect();
    documented.sort();
    code.sort();
    assert_eq!(documented, code);
}
