//! docs/counters.md and the drop reasons say the same.

use vswitch_contract::counters::PortCounters;
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

/// `received_frames` as it stands in JSON: `ReceivedFrames`.
fn pascal(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capital).collect()
}

#[test]
fn every_port_counter_has_its_row_and_every_row_its_counter() {
    let counters = serde_json::to_value(PortCounters::default()).expect("JSON");
    let mut code: Vec<String> =
        counters.as_object().expect("an object").keys().map(|key| pascal(key)).collect();
    let mut documented: Vec<String> = rows("Port counters").into_iter().map(|(name, _)| name).collect();
    code.sort();
    documented.sort();
    assert_eq!(documented, code);
}
