//! The import law: which of our crates may import which, and what pure crates may not touch.

use cargo_metadata::{Metadata, MetadataCommand};
use vswitch_tests::repository;

const ALL: &[&str] = &[
    "vswitch",
    "vswitch-bench",
    "vswitch-cluster",
    "vswitch-contract",
    "vswitch-control",
    "vswitch-datapath",
    "vswitch-engine",
    "vswitch-frame",
    "vswitch-nat",
    "vswitch-proxy",
    "vswitch-sys",
    "vswitch-tests",
    "vswitch-traffic",
    "vswitch-vxlan",
];

/// Crate, and the crates of ours that it may import.
const LAW: &[(&str, &[&str])] = &[
    ("vswitch-frame", &[]),
    ("vswitch-engine", &["vswitch-frame"]),
    ("vswitch-vxlan", &["vswitch-frame"]),
    ("vswitch-nat", &["vswitch-frame"]),
    ("vswitch-sys", &["vswitch-frame"]),
    ("vswitch-proxy", &["vswitch-frame", "vswitch-sys"]),
    ("vswitch-traffic", &["vswitch-frame", "vswitch-sys"]),
    ("vswitch-contract", &["vswitch-engine", "vswitch-frame", "vswitch-nat", "vswitch-sys", "vswitch-vxlan"]),
    (
        "vswitch-datapath",
        &[
            "vswitch-contract",
            "vswitch-engine",
            "vswitch-frame",
            "vswitch-nat",
            "vswitch-proxy",
            "vswitch-sys",
            "vswitch-vxlan",
        ],
    ),
    ("vswitch-cluster", &["vswitch-frame", "vswitch-sys"]),
    ("vswitch-control", &["vswitch-cluster", "vswitch-contract", "vswitch-frame", "vswitch-sys"]),
    (
        "vswitch",
        &[
            "vswitch-cluster",
            "vswitch-contract",
            "vswitch-control",
            "vswitch-datapath",
            "vswitch-frame",
            "vswitch-sys",
            "vswitch-traffic",
        ],
    ),
    ("vswitch-bench", ALL),
    ("vswitch-tests", ALL),
];

/// Crates that make no system call and read no clock and no random source, with their folders.
const PURE: &[(&str, &str)] = &[
    ("vswitch-frame", "switch/frame/src/"),
    ("vswitch-engine", "switch/engine/src/"),
    ("vswitch-vxlan", "vxlan/src/"),
    ("vswitch-nat", "nat/src/"),
];

/// The crates that a pure crate may depend on outside its tests, apart from ours.
const PURE_DEPENDENCIES: &[&str] =
    &["crossbeam", "foldhash", "hashbrown", "ipnet", "serde", "smoltcp", "zerocopy"];

/// Roads to the system that lead through the standard library.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "RandomState",
];

/// The workspace as cargo knows it, without the packages that only other platforms need: those are not
/// downloaded.
pub(crate) fn metadata() -> Metadata {
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(repository::root().join("Cargo.toml"))
        .other_options(vec!["--offline".to_owned(), "--locked".to_owned(), platform])
        .exec()
        .expect("cargo metadata")
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    LAW.iter().find(|(of, _)| *of == name).map(|(_, allowed)| *allowed)
}

#[test]
fn crates_import_only_what_the_law_allows() {
    let metadata = metadata();
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed(&package.name) else {
            complaints.push(format!("{}: a crate the import law does not know", package.name));
            continue;
        };
        let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        for dependency in ours.filter(|dependency| !allowed.contains(&dependency.name.as_str())) {
            complaints.push(format!("{} imports {}", package.name, dependency.name));
        }
    }
    super::report(&complaints);
}

#[test]
fn the_law_names_only_crates_there_are() {
    let metadata = metadata();
    let mut names: Vec<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ALL);
}

#[test]
fn pure_crates_depend_on_nothing_that_reaches_the_system() {
    let metadata = metadata();
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        if !PURE.iter().any(|(name, _)| *name == package.name.as_str()) {
            continue;
        }
        let normal = package.dependencies.iter().filter(|dependency| {
            dependency.path.is_none() && dependency.kind != cargo_metadata::DependencyKind::Development
        });
        for dependency in normal.filter(|dependency| !PURE_DEPENDENCIES.contains(&dependency.name.as_str())) {
            complaints.push(format!("{} depends on {}", package.name, dependency.name));
        }
    }
    super::report(&complaints);
}

#[test]
fn pure_crates_take_no_road_to_the_system() {
    let mut complaints = Vec::new();
    for source in repository::documents("rs") {
        if !PURE.iter().any(|(_, folder)| source.path.starts_with(folder)) {
            continue;
        }
        for (number, line) in source.lines() {
            for road in IMPURE.iter().filter(|road| line.contains(**road)) {
                complaints.push(format!("{}:{number}: {road} in a pure crate", source.path));
            }
        }
    }
    super::report(&complaints);
}
