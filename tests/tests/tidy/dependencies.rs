//! Every dependency has a job written in docs/dependencies.md, and a licence that fits ours.

use std::collections::BTreeSet;

use vswitch_tests::repository;

use super::imports::metadata;

/// Licences under which code may be linked into a program under Apache-2.0.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    // Asks for the source of its own files, which are published, and of nothing linked with them.
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Names in the first column of the table in docs/dependencies.md.
fn documented() -> BTreeSet<String> {
    let document = repository::document("docs/dependencies.md");
    let name = |line: &str| line.strip_prefix("| `")?.split('`').next().map(str::to_owned);
    document.text.lines().filter_map(name).collect()
}

#[test]
fn every_dependency_has_a_job_and_every_job_a_dependency() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let used: BTreeSet<String> = packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.clone())
        .collect();
    let documented = documented();
    let without_job =
        used.difference(&documented).map(|name| format!("{name}: no row in docs/dependencies.md"));
    let without_use = documented.difference(&used).map(|name| format!("{name}: a row, but no crate uses it"));
    super::report(&without_job.chain(without_use).collect::<Vec<_>>());
}

#[test]
fn every_licence_fits() {
    let metadata = metadata();
    let mut complaints = Vec::new();
    for package in &metadata.packages {
        match package.license.as_deref() {
            Some(expression) if Expression::new(expression).allowed() => {}
            Some(expression) => {
                complaints.push(format!("{} {}: {expression}", package.name, package.version))
            }
            None => complaints.push(format!("{} {}: names no licence", package.name, package.version)),
        }
    }
    super::report(&complaints);
}

/// An SPDX licence expression, read from left to right; `AND` binds closer than `OR`.
struct Expression {
    words: Vec<String>,
    at: usize,
}

impl Expression {
    fn new(text: &str) -> Self {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        Self { words: spaced.split_whitespace().map(str::to_owned).collect(), at: 0 }
    }

    fn allowed(mut self) -> bool {
        self.any()
    }

    fn any(&mut self) -> bool {
        let mut allowed = self.all();
        while self.takes("OR") {
            allowed |= self.all();
        }
        allowed
    }

    fn all(&mut self) -> bool {
        let mut allowed = self.one();
        while self.takes("AND") {
            allowed &= self.one();
        }
        allowed
    }

    fn one(&mut self) -> bool {
        if self.takes("(") {
            let allowed = self.any();
            return self.takes(")") && allowed;
        }
        let Some(mut name) = self.words.get(self.at).cloned() else { return false };
        self.at += 1;
        if self.takes("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at).map_or("", String::as_str));
            self.at += 1;
        }
        LICENCES.contains(&name.as_str())
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(found);
        found
    }
}

#[test]
fn expressions_are_read_right() {
    let allowed = |text| Expression::new(text).allowed();
    assert!(allowed("MIT OR Apache-2.0"));
    assert!(allowed("GPL-2.0-only OR MIT"));
    assert!(allowed("MIT/GPL-3.0-only"));
    assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"));
    assert!(!allowed("GPL-2.0-only"));
    assert!(!allowed("MIT AND GPL-2.0-only"));
    assert!(!allowed("(MIT OR Apache-2.0) AND GPL-3.0-only"));
    assert!(!allowed("Apache-2.0 WITH some-exception"));
    assert!(!allowed(""));
}
