//! The project's habits, as tests: who may import whom, what source files look like, and that the
//! documents tell the truth about the code.

#![forbid(unsafe_code)]

mod absences;
mod changelog;
mod circles;
mod confinement;
mod counters;
mod dependencies;
mod docstrings;
mod documents;
mod imports;
mod paths;
mod sources;
mod tokens;

/// Fails with every complaint at once, one per line.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
