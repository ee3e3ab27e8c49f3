//! docs/counters.md and the drop reasons say the same.

use vswitch_frame::DropReason;
use vswitch_tests::repository;

/// The rows of the table below a heading: first cell without its backticks, second cell.
fn rows(heading: &str) -> Vec<(String, String)> {
    let document = repository::document("docs/counters.md");
    let section = document.text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("docs/counters.md has no section {heading:?}"));
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(cells)
        .map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].clone()))
        .collect()
}

#[test]
fn every_drop_reason_has_its_row_and_every_row_its_reason() {
    let code: Vec<(String, String)> = DropReason::ALL
        .iter()
        .map(|reason| (reason.label().to_owned(), reason.meaning().to_owned()))
        .collect();
    assert_eq!(rows("Drop reasons"), code);
}
