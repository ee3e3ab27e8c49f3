//! CHANGELOG.md keeps the form of <https://keepachangelog.com>.

use vswitch_tests::repository;

const KINDS: &[&str] = &["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// `X.Y.Z] - YYYY-MM-DD`, the rest of a release's heading.
fn is_release(heading: &str) -> bool {
    let Some((version, date)) = heading.split_once("] - ") else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let numbers: Vec<&str> = version.split('.').collect();
    let days: Vec<&str> = date.split('-').collect();
    numbers.len() == 3
        && numbers.iter().all(|part| digits(part))
        && days.iter().map(|part| part.len()).eq([4, 2, 2])
        && days.iter().all(|part| digits(part))
}

#[test]
fn the_changelog_keeps_its_form() {
    let changelog = repository::document("CHANGELOG.md");
    assert!(changelog.text.starts_with("# Changelog\n"), "CHANGELOG.md: the title is missing");
    assert!(changelog.text.contains("https://keepachangelog.com/"), "CHANGELOG.md: names no form");
    let releases: Vec<&str> = changelog.text.lines().filter_map(|line| line.strip_prefix("## [")).collect();
    assert_eq!(releases.first(), Some(&"Unreleased]"), "CHANGELOG.md: unreleased changes come first");
    let mut complaints = Vec::new();
    for (number, line) in changelog.lines() {
        let kind_is_right = line.strip_prefix("### ").is_none_or(|kind| KINDS.contains(&kind));
        let release_is_right =
            line.strip_prefix("## ").is_none_or(|rest| rest == "[Unreleased]" || is_release(&rest[1..]));
        if !kind_is_right || !release_is_right {
            complaints.push(format!("CHANGELOG.md:{number}: {line}"));
        }
    }
    super::report(&complaints);
}

#[test]
fn forms_of_headings() {
    assert!(is_release("0.1.0] - 2026-11-20"));
    for wrong in ["0.1] - 2026-11-20", "0.1.0]", "0.1.0] - 20 November", "a.b.c] - 2026-11-20"] {
        assert!(!is_release(wrong), "{wrong}");
    }
}
