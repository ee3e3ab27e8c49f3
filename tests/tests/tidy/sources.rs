//! The look of every source file.

use vswitch_tests::repository::{self, Document};

/// The only folder with unsafe code and system calls.
const SYS: &str = "switch/sys/src/";

/// Marks of work that is not done, and names of things that are not in this repository. Written in
/// halves, so that this file passes its own test.
const UNWANTED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("todo", "!("),
    concat!("unimpl", "emented!("),
    concat!("dbg", "!("),
    concat!("/wo", "rk/"),
    concat!("iss", "ue #"),
];

#[test]
fn every_source_opens_with_its_theory() {
    let opens = |source: &Document| source.text.starts_with("//! ");
    let complaints: Vec<String> = repository::documents("rs")
        .iter()
        .filter(|source| !opens(source))
        .map(|source| format!("{}: does not open with //!", source.path))
        .collect();
    super::report(&complaints);
}

#[test]
fn unsafe_code_is_only_in_sys() {
    let mut complaints = Vec::new();
    for source in repository::documents("rs") {
        let has_code = source.text.lines().any(|line| !line.is_empty() && !line.starts_with("//"));
        let crate_root = source.path.ends_with("src/lib.rs") && has_code;
        if source.path.starts_with(SYS) {
            continue;
        }
        if crate_root && !source.text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{}: lacks #![forbid(unsafe_code)]", source.path));
        }
        for (number, line) in source.lines() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " fn")) {
                complaints.push(format!("{}:{number}: unsafe outside {SYS}", source.path));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut complaints = Vec::new();
    for source in repository::documents("rs").iter().filter(|source| source.path.starts_with(SYS)) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let before = &lines[index.saturating_sub(8)..=index];
            if code.contains(concat!("unsafe", " {"))
                && !before.iter().any(|line| line.contains("// SAFETY:"))
            {
                complaints.push(format!("{}:{}: no SAFETY comment", source.path, index + 1));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut complaints = Vec::new();
    for extension in ["rs", "md", "toml", "sh"] {
        for file in repository::documents(extension) {
            for (number, line) in file.lines() {
                for word in UNWANTED.iter().filter(|word| line.contains(**word)) {
                    complaints.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    super::report(&complaints);
}
