//! Commands in documents work as they stand there.
//!
//! They run in private mount and network namespaces with an empty `/run`, so that names and the default
//! socket are their own, with a fresh daemon and `vswitch` in the path.

use std::fs;
use std::process::Command;

use vswitch_tests::namespace::unique_name;
use vswitch_tests::repository;

/// Runs a script as a newcomer would, on a host where nothing runs but a fresh daemon.
fn run(script: &str) -> (bool, String) {
    let folder = std::env::temp_dir().join(unique_name());
    fs::create_dir(&folder).expect("a folder");
    std::os::unix::fs::symlink(super::VSWITCH, folder.join("vswitch")).expect("a link");
    let prologue = "set -eu\n\
        mount -t tmpfs tmpfs /run\n\
        ip link set lo up\n\
        vswitch run --state-dir /run/state 2>/run/log & daemon=$!\n\
        trap 'kill $daemon; wait $daemon; cat /run/log' EXIT\n\
        until vswitch version >/dev/null 2>&1; do kill -0 $daemon || { cat /run/log >&2; exit 1; }; done\n\
        export SOCK=/run/vswitch/control.sock\n";
    fs::write(folder.join("script"), format!("{prologue}{script}")).expect("a script");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "bash"]);
    let output = command.arg(folder.join("script")).env("PATH", path).output().expect("unshare");
    fs::remove_dir_all(&folder).expect("removed");
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// The `vswitch` commands of a document's `sh` blocks.
fn commands(path: &str) -> String {
    let shell = blocks(path).into_iter().filter(|(kind, _)| kind == "sh");
    let text: String = shell.map(|(_, text)| text).collect();
    let is_command = |line: &&str| line.starts_with("vswitch ") && !line.starts_with("vswitch run");
    text.lines().filter(is_command).map(|line| format!("{line}\n")).collect()
}

/// A document's fenced blocks: language and text.
fn blocks(path: &str) -> Vec<(String, String)> {
    let text = repository::document(path).text;
    let fenced = text.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .map(|(kind, text)| (kind.to_owned(), text.to_owned()))
        .collect()
}

/// A script of the `sh` blocks, in which each line of a `json` block must be found in what the `sh` block
/// before it printed.
fn checked(path: &str) -> String {
    let mut script = String::new();
    for (kind, text) in blocks(path) {
        match kind.as_str() {
            "sh" => {
                let quoted = text.replace('\'', "'\\''");
                script += &format!(
                    "{{ {text} }} >/run/out 2>&1 || {{ cat /run/out; echo failed: '{quoted}'; exit 1; }}\n"
                );
            }
            "json" => {
                for line in text.lines().map(|line| line.trim().replace('\'', "'\\''")) {
                    let missing = format!("{{ cat /run/out; echo missing: '{line}'; exit 1; }}");
                    script += &format!("grep -qF -e '{line}' /run/out || {missing}\n");
                }
            }
            _ => {}
        }
    }
    script
}

#[test]
fn the_examples_of_the_api_work() {
    let script = checked("docs/api.md");
    assert!(script.matches("curl").count() > 10 && script.matches("grep").count() > 10, "{script}");
    let (succeeded, output) = run(&script);
    assert!(succeeded, "{output}");
}

#[test]
fn the_examples_of_names_work() {
    let (succeeded, output) = run(&checked("docs/names.md"));
    assert!(succeeded, "{output}");
}

#[test]
fn the_two_hosts_reach_each_other() {
    let script = checked("docs/overlay.md");
    assert!(script.matches("on two").count() > 5 && script.matches("grep").count() > 3, "{script}");
    let (succeeded, output) = run(&script);
    assert!(succeeded, "{output}");
}

#[test]
fn the_tour_of_the_readme_works() {
    let script = commands("README.md");
    assert!(script.lines().count() > 5, "the tour is gone: {script}");
    let (succeeded, output) = run(&script);
    assert!(succeeded, "{script}\n{output}");
    assert!(output.contains(" 0% packet loss"), "{output}");
}

#[test]
fn the_walk_through_networks_works() {
    let script = checked("docs/networks.md");
    assert!(script.matches("vswitch ").count() > 40 && script.matches("grep").count() > 20, "{script}");
    let (succeeded, output) = run(&script);
    assert!(succeeded, "{output}");
}
