//! No circle of files: where a file of a crate imports another, no road of imports leads back.
//!
//! A file imports the files that its paths lead to: those of `use` and those written out in code, where
//! they begin with `crate`, `self`, `super` or a module declared in the file. A path leads to the file of the
//! deepest module on it, so `crate::a::Name` is of the file of `a`, even if that only re-exports the
//! name. `mod a;` imports nothing, and code that only tests see is passed over.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_tests::repository;

use super::paths::{Path, Source};

/// Folders of crates that are not yet free of circles.
const KNOWN: &[&str] = &[];

/// Which file imports which, and the first path by which it does.
type Arrows = BTreeMap<(String, String), String>;

/// The files of every crate, with its folder and the paths of its roots.
fn crates(sources: &BTreeMap<String, String>) -> Vec<(String, Vec<&str>)> {
    let manifests = repository::documents("toml").into_iter();
    let folders = manifests.filter_map(|file| Some(file.path.strip_suffix("/Cargo.toml")?.to_owned()));
    let is_root = |folder: &str, path: &str| {
        let inner = path.strip_prefix(folder).and_then(|path| path.strip_prefix("/src/"));
        inner.is_some_and(|inner| match inner.strip_prefix("bin/") {
            Some(binary) => !binary.contains('/') || binary.ends_with("/main.rs"),
            None => inner == "lib.rs" || inner == "main.rs",
        })
    };
    let roots =
        |folder: &str| sources.keys().map(String::as_str).filter(|path| is_root(folder, path)).collect();
    folders.map(|folder| (folder.clone(), roots(&folder))).collect()
}

/// Every module of a crate that has a file, with that file's path and content read.
fn modules(root: &str, sources: &BTreeMap<String, String>) -> BTreeMap<Path, (String, Source)> {
    let mut found = BTreeMap::new();
    let mut open = vec![(Path::new(), root.to_owned())];
    while let Some((module, path)) = open.pop() {
        let source = Source::read(&sources[&path], &module);
        let stem = path.strip_suffix(".rs").unwrap_or(&path);
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = if module.is_empty() || name == "mod" { parent } else { stem };
        for child in &source.files {
            let inner = child[module.len()..].join("/");
            let places = [format!("{folder}/{inner}.rs"), format!("{folder}/{inner}/mod.rs")];
            open.extend(
                places.into_iter().find(|path| sources.contains_key(path)).map(|path| (child.clone(), path)),
            );
        }
        found.insert(module, (path, source));
    }
    found
}

/// Notes which file of a crate imports which other.
fn draw(root: &str, sources: &BTreeMap<String, String>, arrows: &mut Arrows) {
    let modules = modules(root, sources);
    for (path, source) in modules.values() {
        for (written, mut target) in source.imports() {
            while !modules.contains_key(&target) {
                target.pop();
            }
            let file = &modules[&target].0;
            if file != path {
                arrows.entry((path.clone(), file.clone())).or_insert(written);
            }
        }
    }
}

/// The sets of files of which each leads to each other.
fn circles(arrows: &Arrows) -> BTreeSet<BTreeSet<&str>> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(file) = open.pop() {
            let next = arrows.keys().filter(|(from, _)| *from == file).map(|(_, to)| to.as_str());
            open.extend(next.filter(|to| reached.insert(*to)).map(str::to_owned));
        }
        reached
    };
    let files: BTreeSet<&str> = arrows.keys().map(|(from, _)| from.as_str()).collect();
    let all: BTreeMap<&str, BTreeSet<&str>> = files.iter().map(|file| (*file, reached(file))).collect();
    let circle = |file: &&str| -> BTreeSet<&str> {
        all[*file]
            .iter()
            .copied()
            .filter(|other| all.get(other).is_some_and(|back| back.contains(*file)))
            .collect()
    };
    files.iter().map(circle).filter(|circle| !circle.is_empty()).collect()
}

/// A circle with its arrows, one to a line.
fn describe(circle: &BTreeSet<&str>, arrows: &Arrows) -> String {
    let within =
        |(from, to): &(String, String)| circle.contains(from.as_str()) && circle.contains(to.as_str());
    let lines = arrows.iter().filter(|(ends, _)| within(ends));
    let lines = lines.map(|((from, to), written)| format!("    {from} -> {to}  ({written})\n"));
    format!("a circle of {} files\n{}", circle.len(), lines.collect::<String>())
}

/// Prints every circle, those of crates that may still have some, too.
#[test]
fn no_file_imports_one_that_leads_back_to_it() {
    let sources = repository::documents("rs").into_iter().map(|file| (file.path, file.text)).collect();
    let mut complaints = Vec::new();
    let crates = crates(&sources);
    for (folder, roots) in &crates {
        let mut arrows = Arrows::new();
        roots.iter().for_each(|root| draw(root, &sources, &mut arrows));
        let circles: Vec<String> = circles(&arrows).iter().map(|circle| describe(circle, &arrows)).collect();
        circles.iter().for_each(|circle| println!("{folder}: {circle}"));
        match (KNOWN.contains(&folder.as_str()), circles.is_empty()) {
            (true, true) => complaints.push(format!("{folder}: free of circles, so no longer one of KNOWN")),
            (false, false) => complaints.extend(circles.iter().map(|circle| format!("{folder}: {circle}"))),
            _ => {}
        }
    }
    let gone = KNOWN.iter().filter(|known| crates.iter().all(|(folder, _)| folder != *known));
    complaints.extend(gone.map(|known| format!("{known}: one of KNOWN, but no crate")));
    super::report(&complaints);
}

/// The circles of a crate with these files, as their names.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let mut arrows = Arrows::new();
    draw("src/lib.rs", &sources, &mut arrows);
    circles(&arrows).iter().map(|circle| circle.iter().copied().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn circles_are_found() {
    let lib = ("src/lib.rs", "mod a; mod b; pub use a::A;");
    let b = ("src/b.rs", "use crate::a::inner::Inner;");
    let inner = ("src/a/inner.rs", "fn f() { crate::b::g() }");
    let a = ("src/a/mod.rs", "mod inner; pub use inner::Inner;");
    assert_eq!(circles_of(&[lib, a, b, inner]), ["src/a/inner.rs src/b.rs"]);
    let inner = ("src/a/inner.rs", "#[cfg(test)] mod tests { use crate::b; }");
    assert!(circles_of(&[lib, a, b, inner]).is_empty());
    let inner = ("src/a/inner.rs", "use super::Parent;");
    assert_eq!(circles_of(&[lib, a, b, inner]), ["src/a/inner.rs src/a/mod.rs"]);
    let inner = ("src/a/inner.rs", "use crate::Name;");
    assert_eq!(circles_of(&[lib, a, inner]), ["src/a/inner.rs src/a/mod.rs src/lib.rs"]);
}
