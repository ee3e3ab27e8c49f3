//! Traces of a daemon outside of the switch: names of namespaces, and files beside its socket.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::wait;
use vswitch_tests::world::{World, send_signal};

use super::{VSWITCH, world};

#[test]
fn a_daemon_with_private_mounts_says_so_once_and_its_sandboxes_are_found() {
    let (mut world, ()) = World::start_wrapped(VSWITCH, &["unshare", "--mount"], &[], |_| ());
    let [one, two] = ["one", "two"].map(|name| world.sandbox(name, &[]).name);
    let found = |world: &World| {
        for name in [&one, &two] {
            let seen = Command::new("ip").args(["netns", "exec", name, "true"]).output().expect("ip");
            assert!(!seen.status.success(), "others see it after all");
            assert!(world.vswitch(&["exec", name, "--", "ip", "-o", "link"]).contains("eth0"));
            let netns = world.json(&["sandbox", "inspect", name])[0]["NetNS"].clone();
            let enter = format!("--net={}", netns.as_str().expect("a path"));
            assert!(must(Command::new("nsenter").args([&enter, "ip", "-o", "link"])).contains("eth0"));
        }
        let address = world.json(&["sandbox", "inspect", &two])[0]["Endpoints"][0]["IPAddress"].clone();
        let ping = ["exec", &one, "--", "ping", "-c", "1", "-W", "5", address.as_str().expect("an address")];
        assert!(world.vswitch(&ping).contains(" 0% packet loss"));
    };
    found(&world);
    assert_eq!(world.logged().matches("mount namespace of its own").count(), 1, "{}", world.logged());
    for (signal, said) in [(Signal::SIGTERM, 2), (Signal::SIGKILL, 3)] {
        world.stop(signal);
        world.start_again();
        found(&world);
        assert_eq!(world.logged().matches("mount namespace of its own").count(), said, "{}", world.logged());
    }
    world.vswitch(&["sandbox", "rm", &one, &two]);
}

#[test]
fn a_daemon_whose_mounts_are_seen_says_nothing() {
    let world = world();
    let sandbox = world.sandbox("one", &[]);
    assert!(
        world.json(&["sandbox", "inspect", &sandbox.name])[0]["NetNS"]
            == sandbox.path.to_string_lossy().as_ref()
    );
    assert_eq!(world.logged().matches("mount").count(), 0, "{}", world.logged());
}

#[test]
fn daemons_whose_sockets_are_in_one_folder_leave_each_others_files() {
    let world = world();
    let sandbox = world.sandbox("one", &[]);
    let hosts = world.json(&["sandbox", "inspect", &sandbox.name])[0]["HostsPath"].clone();
    let hosts = Path::new(hosts.as_str().expect("a path")).to_owned();
    assert!(hosts.exists());
    let (host, socket) = (Namespace::new(), world.folder().join("other.sock"));
    let mut command = Command::new(VSWITCH);
    command.arg("run").arg("--socket").arg(&socket).arg("--state-dir").arg(world.folder().join("other"));
    command.arg("--resolv-conf").arg(world.resolv_conf()).stderr(Stdio::piped());
    let mut other = host.inside(|| command.spawn()).expect("vswitch starts");
    let answers = || UnixStream::connect(&socket).ok();
    wait::until("the other one answers", answers);
    must(Command::new(VSWITCH).args(["network", "ls", "--socket"]).arg(&socket));
    assert!(hosts.exists(), "it has removed what is not its own");
    send_signal(other.id(), Signal::SIGTERM);
    let status = other.wait().expect("our child");
    let mut said = String::new();
    other.stderr.take().expect("its log").read_to_string(&mut said).expect("text");
    assert!(status.success() && hosts.exists(), "{said}");
}
