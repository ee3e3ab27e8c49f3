//! Confinement: what the datapath cannot do, as the kernel sees it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use vswitch_sys::confine::USER;
use vswitch_tests::namespace::{inside, must};

use super::world;

#[test]
fn the_datapath_has_no_privileges() {
    let world = world();
    let a = world.sandbox("a", &[]);
    let b = world.sandbox("b", &[]);
    a.transfers(&b, b.ipv4(), 1 << 20);
    let process = PathBuf::from(format!("/proc/{}", world.datapath_pid()));
    let status = fs::read_to_string(process.join("status")).expect("status");
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{status}"));
        line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"]);
    let own = USER.to_string();
    assert!(field("Uid").iter().chain(&field("Gid")).all(|id| *id == own), "{status}");
    assert_eq!(field("Groups"), [""; 0]);
    assert_eq!(field("Threads"), ["1"]);

    let links = inside(&process.join("ns/net"), || must(Command::new("ip").args(["-o", "link"])));
    assert_eq!(links.lines().count(), 1, "more than a loopback: {links}");
    let root: Vec<_> = fs::read_dir(process.join("root")).expect("its root").flatten().collect();
    assert!(root.is_empty(), "it sees files: {root:?}");
    let mounts = fs::read_to_string(process.join("mounts")).expect("its mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
}
