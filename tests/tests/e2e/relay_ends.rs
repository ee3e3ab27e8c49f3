//! Ends of relays that nobody asked for: a client never takes a part for the whole, and memory comes back.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use nix::sys::signal::Signal;
use vswitch_tests::talk;
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{Container, World, send_signal};

use super::world;

fn server(world: &World) -> (Container, TcpListener) {
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "8080:80"]);
    let listener = web.inside(|| TcpListener::bind("0.0.0.0:80")).expect("bind");
    (web, listener)
}

/// A client's connection through a relay, and the server's end of it.
fn accepted(world: &World, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = talk::connect(&world.host().path(), ([127, 0, 0, 1], 8080).into());
    let (served, _) = listener.accept().expect("accept");
    served.set_read_timeout(Some(DEADLINE)).expect("time-out");
    served.set_write_timeout(Some(DEADLINE)).expect("time-out");
    (client, served)
}

#[test]
fn a_download_is_not_whole_when_the_datapath_dies() {
    const CLIENTS: usize = 20;
    const AT_LEAST: usize = 1 << 20;
    let world = world();
    let (_web, listener) = server(&world);
    let pairs: Vec<_> = (0..CLIENTS).map(|_| accepted(&world, &listener)).collect();
    thread::scope(|scope| {
        let downloads: Vec<_> = pairs
            .into_iter()
            .map(|(mut client, mut served)| {
                // It ends when nobody takes any more.
                scope.spawn(move || drop(talk::send(&mut served, 1, 1 << 40)));
                talk::check(&mut client, 1, AT_LEAST).expect("a part");
                scope.spawn(move || client.read_to_end(&mut Vec::new()))
            })
            .collect();
        send_signal(world.datapath_pid(), Signal::SIGKILL);
        for download in downloads {
            let error = download.join().expect("no panic").expect_err("it is not whole");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn an_unpublished_port_resets_both_ends() {
    let world = world();
    let (web, listener) = server(&world);
    let (mut client, mut served) = accepted(&world, &listener);
    client.write_all(b"hello").expect("send");
    served.read_exact(&mut [0; 5]).expect("receive");
    let (mut idle, mut waiting) = accepted(&world, &listener);
    world.vswitch(&["unpublish", &web.name, "8080:80"]);
    for end in [&mut client, &mut served, &mut idle, &mut waiting] {
        assert_eq!(end.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }
}

/// Memory of a process that is there, in KiB.
fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn memory_comes_back_when_relays_have_ended() {
    const CLIENTS: usize = 400;
    let world = world();
    let (_web, listener) = server(&world);
    let pid = world.datapath_pid();
    drop(accepted(&world, &listener));
    let before = resident(pid);
    // Nobody reads, so that buffers fill.
    let fill = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).expect("non-blocking");
        let mut sent = 0;
        while let Ok(length) = stream.write(&[7; 65_536]) {
            sent += length;
        }
        sent
    };
    let pairs: Vec<_> = (0..CLIENTS).map(|_| accepted(&world, &listener)).collect();
    wait::until("full buffers", || {
        let _: usize = pairs.iter().map(|(client, served)| fill(client) + fill(served)).sum();
        (resident(pid) > before + 60 * 1024).then_some(())
    });
    drop(pairs);
    wait::until("memory that comes back", || (resident(pid) < before + 10 * 1024).then_some(()));
}
