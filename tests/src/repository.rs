//! The repository's own files, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its path from the repository's root, with `/` between folders.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl Document {
    /// The lines with their numbers, counted from one.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The repository's root.
///
/// # Panics
/// When this crate no longer lies in a folder of it.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate is a folder of the root")
        .to_owned()
}

/// One file of the repository.
///
/// # Panics
/// When it is not there or is no text.
pub fn document(path: &str) -> Document {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Document { path: path.to_owned(), text }
}

/// Every file whose name ends in `.` and `extension`, sorted by path; build folders and dot folders are
/// passed over.
///
/// # Panics
/// When a folder cannot be read.
pub fn documents(extension: &str) -> Vec<Document> {
    let mut paths = Vec::new();
    walk(&root(), extension, &mut paths);
    paths.sort();
    let root = root();
    let relative = |path: &PathBuf| path.strip_prefix(&root).expect("below the root").display().to_string();
    paths.iter().map(|path| document(&relative(path))).collect()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}
