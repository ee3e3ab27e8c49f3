//! Signals: those that ask for an end stop the daemon, also when it hangs; no other ends it.

use std::process::Command;

use nix::sys::signal::Signal;
use vswitch_tests::disk::Disk;
use vswitch_tests::namespace::must;
use vswitch_tests::wait;
use vswitch_tests::world::send_signal;

use super::world;

/// Signals that a process ends by, unless it says otherwise.
const OTHERS: [&str; 14] = [
    "HUP", "USR1", "USR2", "PIPE", "ALRM", "STKFLT", "XCPU", "XFSZ", "VTALRM", "PROF", "IO", "PWR", "RTMIN",
    "RTMAX",
];

#[test]
fn no_signal_but_those_that_ask_for_an_end_ends_control() {
    let mut world = world();
    let container = world.sandbox("made", &[]);
    let pids = (world.control_pid(), world.datapath_pid());
    for signal in OTHERS {
        must(Command::new("kill").arg(format!("-{signal}")).arg(pids.0.to_string()));
        world.vswitch(&["network", "ls"]);
    }
    assert_eq!((world.control_pid(), world.datapath_pid()), pids);
    for said in ["SIGHUP changes nothing", "SIGUSR1 changes nothing", "a realtime signal changes nothing"] {
        wait::until(said, || world.logged().contains(said).then_some(()));
    }
    // As a terminal's Ctrl-\ does.
    assert!(world.stop(Signal::SIGQUIT).success());
    assert!(!container.path.exists() && !world.socket().exists(), "everything is removed");
}

#[test]
fn a_job_that_hangs_does_not_delay_the_end() {
    let mut world = world();
    assert!(world.stop(Signal::SIGTERM).success());
    let mut disk = Disk::ext4(&world.state_dir(), &world.folder().join("image"));
    world.start_again();
    disk.freeze();
    let name = world.global_name("hangs");
    let mut client = world.command(&["sandbox", "create", &name]).spawn().expect("a client");
    // It waits for the disk, and all changes with it.
    let mut next = world.command(&["network", "create", "next"]).spawn().expect("a client");
    world.vswitch(&["network", "ls"]);
    send_signal(world.control_pid(), Signal::SIGTERM);
    wait::until("the socket is gone", || (!world.socket().exists()).then_some(()));
    for client in [&mut client, &mut next] {
        assert!(!wait::until("the client is told", || client.try_wait().expect("our child")).success());
    }
    // The kernel lets no process go that waits for a disk.
    disk.thaw();
    assert!(world.stop(Signal::SIGTERM).success());
}
