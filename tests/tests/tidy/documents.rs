//! Paths and constants that documents and comments mention exist.

use std::collections::HashSet;

use vswitch_tests::repository::{self, Document};

/// Folders and files at the root that a path in a text starts with.
const TOP: &[&str] = &["switch/", "vxlan/", "nat/", "proxy/", "bench/", "tests/", "docs/", ".ci/"];

/// Texts between single backticks, with their line numbers; code blocks are passed over.
fn quoted(document: &Document) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (number, line) in document.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (number, text.to_owned())));
        }
    }
    found
}

/// Targets of Markdown links that are files, with their line numbers.
fn links(document: &Document) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in document.lines() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let files = targets.filter(|target| !target.is_empty() && !target.contains("://"));
        found.extend(files.map(|target| (number, target.to_owned())));
    }
    found
}

fn exists(document: &Document, path: &str) -> bool {
    let root = repository::root();
    let beside = root.join(&document.path).parent().map(|folder| folder.join(path));
    root.join(path).exists() || beside.is_some_and(|path| path.exists())
}

/// Whether a quoted text names a path of this repository: it starts with one of its folders.
fn is_path(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    plain && TOP.iter().any(|top| text.starts_with(top))
}

/// The name of the constant in `NAME` or `Type::NAME`, if a quoted text is one.
fn constant(text: &str) -> Option<&str> {
    let name = text.rsplit("::").next()?;
    let shape = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_constant =
        name.contains('_') && name.bytes().all(shape) && !name.starts_with(|c: char| c.is_ascii_digit());
    is_constant.then_some(name)
}

#[test]
fn paths_in_documents_exist() {
    let mut complaints = Vec::new();
    for document in repository::documents("md") {
        let paths = quoted(&document).into_iter().filter(|(_, text)| is_path(text)).chain(links(&document));
        for (number, path) in paths.filter(|(_, path)| !exists(&document, path)) {
            complaints.push(format!("{}:{number}: {path} does not exist", document.path));
        }
    }
    super::report(&complaints);
}

#[test]
fn documents_that_comments_mention_exist() {
    let mut complaints = Vec::new();
    for source in repository::documents("rs") {
        for (number, line) in source.lines().filter(|(_, line)| line.trim_start().starts_with("//")) {
            let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)));
            let paths = words.map(|word| word.trim_end_matches('.')).filter(|word| is_path(word));
            for path in paths.filter(|path| !repository::root().join(path).exists()) {
                complaints.push(format!("{}:{number}: {path} does not exist", source.path));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn constants_in_documents_are_in_the_code() {
    let sources = repository::documents("rs");
    let identifier = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words: HashSet<&str> = sources.iter().flat_map(|source| source.text.split(identifier)).collect();
    let mut complaints = Vec::new();
    for document in repository::documents("md") {
        for (number, text) in quoted(&document) {
            if let Some(name) = constant(&text).filter(|name| !words.contains(name)) {
                complaints.push(format!("{}:{number}: no source knows {name}", document.path));
            }
        }
    }
    super::report(&complaints);
}

#[test]
fn shapes_of_names() {
    assert!(is_path("switch/datapath/src/turn.rs"));
    assert!(!is_path("/run/vswitch/control.sock"));
    assert!(!is_path("docs/… and more"));
    assert_eq!(constant("PortId::PORTS_MAX"), Some("PORTS_MAX"));
    assert_eq!(constant("MIT"), None);
    assert_eq!(constant("10_000"), None);
}
