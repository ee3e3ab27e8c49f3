//! The section "What there is not" of docs/ARCHITECTURE.md: each sentence names its tests. The last of them
//! is here.

use vswitch_tests::repository;

/// Words of the kernel's own forwarding: bridges, netfilter, traffic control's filters, eBPF. A bridge can be
/// made by `vswitch_sys`, for the crate of traffic generators.
const FORWARDING: &[&str] = &[
    ".create_bridge(",
    "NETLINK_NETFILTER",
    "NETLINK_NFLOG",
    "IPT_SO_SET",
    "TrafficFilter",
    "TrafficAction",
    "SYS_bpf",
    "SO_ATTACH_BPF",
    "\"iptables\"",
    "\"nft\"",
    "\"tc\"",
];

/// The sentences of the section, one for each item of its list.
fn sentences(text: &str) -> Vec<String> {
    let section = text.split("\n## ").find(|section| section.starts_with("What there is not\n"));
    let section = section.expect("docs/ARCHITECTURE.md has the section");
    let items = section.split("\n* ").skip(1);
    items.map(|item| item.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The tests that a sentence names: after each file, names of functions in it.
fn tests(sentence: &str) -> Vec<(String, String)> {
    let mut file = None;
    let mut tests = Vec::new();
    for quoted in sentence.split('`').skip(1).step_by(2) {
        let is_name = quoted.contains('_') && quoted.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        match &file {
            _ if quoted.ends_with(".rs") => file = Some(quoted.to_owned()),
            Some(file) if is_name => tests.push((file.clone(), quoted.to_owned())),
            _ => {}
        }
    }
    tests
}

#[test]
fn what_there_is_not_names_its_tests() {
    let mut complaints = Vec::new();
    for sentence in sentences(&repository::document("docs/ARCHITECTURE.md").text) {
        let tests = tests(&sentence);
        if tests.is_empty() {
            complaints.push(format!("names no test: {sentence}"));
        }
        for (file, name) in tests {
            let text = repository::document(&file).text;
            if !text.contains("#[test]") || !text.contains(&format!("fn {name}(")) {
                complaints.push(format!("{file} has no test {name}"));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn the_kernel_is_not_asked_to_forward() {
    let crates = ["switch/", "nat/", "proxy/", "vxlan/"];
    let mut complaints = Vec::new();
    for source in repository::documents("rs") {
        if !crates.iter().any(|folder| source.path.starts_with(folder)) || !source.path.contains("/src/") {
            continue;
        }
        for (number, line) in source.lines() {
            for word in FORWARDING.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn sentences_and_their_tests_are_read() {
    let text = "# A\n\n## What there is not\n\nSee `a_b`.\n\n* No `a_b`\n  in `x/y.rs`: `is_none`,\n  `ever`.\n* No b.\n\n## B\n";
    let read = sentences(text);
    assert_eq!(read, ["No `a_b` in `x/y.rs`: `is_none`, `ever`.", "No b."]);
    assert_eq!(tests(&read[0]), [("x/y.rs".to_owned(), "is_none".to_owned())]);
    assert_eq!(tests(&read[1]), []);
}
