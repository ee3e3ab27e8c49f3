//! Starting, stopping, and what a crash of the datapath costs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::{inside, must};
use vswitch_tests::world::send_signal;
use vswitch_tests::{talk, wait};

use super::world;

#[test]
fn a_killed_datapath_costs_no_connection() {
    for port_type in ["tap", "veth"] {
        let world = world();
        world.network("net1", &[]);
        let options = ["--network", "net1", "--port-type", port_type];
        let a = world.attach("a", &options);
        let b = world.attach("b", &options);
        let counted = |name: &str| world.counters(&a)[name].as_u64().expect("a counter");
        thread::scope(|scope| {
            let transfer = scope.spawn(|| a.transfers(&b, b.ipv4(), 512 << 20));
            for killed in 1..=3 {
                let received = counted("ReceivedBytes");
                wait::until("traffic", || (counted("ReceivedBytes") > received + (8 << 20)).then_some(()));
                assert!(!transfer.is_finished(), "the transfer was over before the datapath was killed");
                let pid = world.datapath_pid();
                send_signal(pid, Signal::SIGKILL);
                wait::until_equal("started again", &killed, || world.restarts());
                assert_ne!(world.datapath_pid(), pid);
            }
            transfer.join().expect("the transfer survives");
        });
        a.pings(b.ipv4());
    }
}

#[test]
fn a_stop_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = world();
        world.network("net1", &[]);
        let sandbox = world.sandbox("a", &["--network", "net1"]);
        let taps = world.attach("b", &["--network", "net1"]);
        let veths = world.attach("c", &["--network", "net1", "--port-type", "veth"]);
        let moved = world.attach("d", &["--network", "net1", "--port-type", "tap-moved"]);
        let datapath = world.datapath_pid();
        assert!(world.stop(signal).success(), "{}", world.logged());
        assert!(!Path::new(&format!("/proc/{datapath}")).exists(), "the datapath is left over");
        assert!(!sandbox.path.exists(), "the sandbox is left over");
        assert!(!world.socket().exists(), "the socket is left over");
        for container in [&taps, &veths, &moved] {
            let links = container.ip(&["-o", "link"]);
            assert_eq!(links.lines().count(), 1, "{links}");
        }
        let links = world.host().ip(&["-o", "link"]);
        assert_eq!(links.lines().count(), 1, "{links}");
        let left: Vec<_> = fs::read_dir(world.folder()).expect("its folder").flatten().collect();
        assert_eq!(left.len(), 2, "only the log and the state: {left:?}");
    }
}

#[test]
fn a_second_daemon_on_the_socket_is_refused() {
    let world = world();
    let output = inside(&world.host().path(), || world.command(&["run"]).output()).expect("it starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(&world.socket().display().to_string()), "{message}");
    world.vswitch(&["network", "ls"]);
}

#[test]
fn a_socket_left_by_a_killed_daemon_is_replaced() {
    let mut world = world();
    world.stop(Signal::SIGKILL);
    assert!(world.socket().exists());
    world.start_again();
    world.vswitch(&["network", "ls"]);
    assert!(world.stop(Signal::SIGTERM).success());
}

#[test]
fn a_daemon_without_privileges_says_what_it_lacks() {
    let world = world();
    let socket = world.folder().join("other.sock");
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command.arg(super::VSWITCH).arg("run").arg("--socket").arg(&socket);
    fs::set_permissions(world.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
    let output = command.output().expect("setpriv");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("root"), "{message}");
    assert!(!socket.exists());
}

#[test]
fn a_namespace_that_vanishes_takes_only_its_port_with_it() {
    let world = world();
    world.network("net1", &[]);
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net1"]);
    let c = world.attach("c", &["--network", "net1"]);
    drop(c);
    a.pings(b.ipv4());
    world.vswitch(&["detach", "c"]);
    assert!(talk::answers(&b.path, a.ipv4()));
    assert_eq!(world.restarts(), 0);
    must(&mut world.command(&["ps"]));
}
