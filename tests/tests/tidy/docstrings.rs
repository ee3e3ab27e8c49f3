//! Docstrings open with their noun, and comments fit the width of the code.

use vswitch_tests::repository::{self, Document};

/// Words that a docstring does not open with: they point at a noun in place of naming it.
const POINTERS: &[&str] =
    &["Those", "That of", "That which", "What", "Whatever", "Who", "Whoever", "The same"];

/// The text of a comment line, and whether it is a docstring; `None` for a line of code.
fn comment(line: &str) -> Option<(bool, &str)> {
    let line = line.trim_start();
    let docstring = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
    let plain = line.strip_prefix("//").map(|text| (false, text.trim_start()));
    docstring.map(|text| (true, text.trim_start())).or(plain)
}

/// The word that a comment opens with and should not.
fn pointer(text: &str) -> Option<&'static str> {
    let opens = |word: &&&str| {
        text.strip_prefix(**word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    POINTERS.iter().rev().find(opens).copied()
}

/// The width of lines that `rustfmt.toml` says, in characters.
fn width() -> usize {
    let settings = repository::document("rustfmt.toml").text;
    let setting = settings.lines().find_map(|line| line.strip_prefix("max_width = "));
    setting.and_then(|width| width.parse().ok()).expect("rustfmt.toml says max_width")
}

/// Complaints about the comments of a source. Rows of tables cannot be broken, so they may be longer.
fn complaints(source: &Document, width: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut before = None;
    for (number, line) in source.lines() {
        let comment = comment(line);
        if let Some((docstring, text)) = comment {
            let opens = before != Some(docstring);
            if let Some(word) = pointer(text).filter(|_| opens) {
                complaints.push(format!("{}:{number}: opens with {word:?}", source.path));
            }
            if line.chars().count() > width && !text.starts_with('|') {
                complaints.push(format!("{}:{number}: wider than {width} characters", source.path));
            }
        }
        before = comment.map(|(docstring, _)| docstring);
    }
    complaints
}

#[test]
fn comments_open_with_their_noun_and_fit() {
    let (width, sources) = (width(), repository::documents("rs"));
    super::report(&sources.iter().flat_map(|source| complaints(source, width)).collect::<Vec<_>>());
}

#[test]
fn openings_are_told_apart() {
    let wrong = |line| comment(line).and_then(|(_, text)| pointer(text));
    assert_eq!(wrong("    /// What it is."), Some("What"));
    assert_eq!(wrong("//! Whatever it is."), Some("Whatever"));
    assert_eq!(wrong("// The same, again."), Some("The same"));
    assert_eq!(wrong("/// Whole frames."), None);
    assert_eq!(wrong("/// That a frame passes."), None);
    assert_eq!(wrong("let What = 5;"), None);
    let text = "/// A frame.\n/// What it is.\nlet a = 5; // What\n/// Those.\n".to_owned();
    let source = Document { path: "a.rs".to_owned(), text };
    assert_eq!(complaints(&source, 110), ["a.rs:4: opens with \"Those\""]);
    assert_eq!(complaints(&source, 11).len(), 3);
}
