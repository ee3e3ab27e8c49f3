//! Many short connections through relays, one after another, as a server of HTTP/1.0 has them: it ends each
//! of them first, so that the container remembers every pair of ends for a minute. A source that comes back
//! meanwhile must not be taken for a late segment.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::{iter, thread};

use nix::sys::signal::Signal;
use vswitch_tests::namespace::{inside, must};
use vswitch_tests::talk;
use vswitch_tests::wait;
use vswitch_tests::world::{World, send_signal};

use super::world;

/// Requests of each client: three of them are more than there are ports that relays speak from.
const REQUESTS: usize = 12_000;
const CLIENTS: usize = 3;
const AT_ONCE: usize = 50;
const END: &[u8] = b"END\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

/// Counts of the kernel's that stay at zero where no segment is lost or taken for a late one.
const TROUBLE: [&str; 6] =
    ["TCPChallengeACK", "TCPACKSkippedTimeWait", "TCPSynRetrans", "TCPTimeouts", "ListenDrops", "PAWSActive"];

/// Answers a request and ends the connection; says what it was.
fn answer(mut connection: TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut heard, mut room) = (Vec::new(), [0; 1024]);
    while !heard.ends_with(b"\r\n\r\n") {
        match connection.read(&mut room)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => heard.extend(&room[..length]),
        }
    }
    connection.write_all(ANSWER)?;
    Ok(heard)
}

/// Serves until it is told to end; says how many requests it answered. `ab` opens a few more connections in
/// the end, over which it says nothing.
fn serve(listener: &TcpListener) -> usize {
    let served = || listener.accept().and_then(|(connection, _)| answer(connection));
    let requests = iter::repeat_with(served).filter_map(Result::ok);
    requests.take_while(|request| request != END).count()
}

/// Connections of a namespace that have not ended.
fn open(namespace: &Path) -> usize {
    let states = ["established", "fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack"];
    let filter = states.iter().flat_map(|state| ["state", state]);
    let mut command = Command::new("ss");
    inside(namespace, || must(command.args(["-H", "-n", "-t"]).args(filter))).lines().count()
}

/// Counts of a namespace's TCP, by name.
fn counts(namespace: &Path) -> BTreeMap<String, u64> {
    let tables = ["/proc/net/netstat", "/proc/net/snmp"];
    let text = inside(namespace, || must(Command::new("cat").args(tables)));
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let named = lines.chunks_exact(2).filter(|pair| matches!(pair[0][0], "TcpExt:" | "Tcp:"));
    let counts = named.flat_map(|pair| iter::zip(&pair[0], &pair[1]).skip(1));
    counts.map(|(name, count)| ((*name).to_owned(), count.parse().unwrap_or(0))).collect()
}

/// Asserts that nothing has gone wrong in a namespace.
fn no_trouble(namespace: &Path) {
    let counts = counts(namespace);
    let trouble: BTreeMap<&str, u64> = TROUBLE.iter().map(|&name| (name, counts[name])).collect();
    assert!(trouble.values().all(|&count| count == 0), "{}: {trouble:?}", namespace.display());
}

/// Segments that ask for a connection, of either family, that a namespace has seen since this was asked
/// first.
fn asked(namespace: &Path) -> u64 {
    let rule = ["INPUT", "-p", "tcp", "--syn"];
    let of = |program: &str| {
        let run = |words: &[&str]| inside(namespace, || must(Command::new(program).args(words)));
        let shown = run(&["-n", "-v", "-x", "-L", "INPUT"]);
        let Some(line) = shown.lines().nth(2) else {
            run(&[&["-A"], &rule[..]].concat());
            return 0;
        };
        line.split_whitespace().next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    ["iptables", "ip6tables"].into_iter().map(of).sum()
}

/// Runs `ab` on the host; all of its requests must be answered.
fn ask(world: &World, requests: usize, url: &str) {
    let (requests, at_once) = (requests.to_string(), AT_ONCE.to_string());
    let mut command = Command::new("ab");
    command.args(["-q", "-n", &requests, "-c", &at_once, url]);
    let said = world.host().inside(|| must(&mut command));
    let line = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    };
    assert_eq!([line("Complete requests:"), line("Failed requests:")], [requests, "0".to_owned()], "{said}");
}

#[test]
fn a_source_comes_back_before_it_is_forgotten() {
    let world = world();
    world.network("net1", &["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "8080:80"]);
    let listener = web.inside(|| TcpListener::bind("[::]:80")).expect("bind");
    assert_eq!(asked(&web.path), 0);
    thread::scope(|scope| {
        let served = scope.spawn(|| serve(&listener));
        for nth in 0..CLIENTS {
            ask(&world, REQUESTS, "http://127.0.0.1:8080/");
            wait::until_equal("all have ended", &0, || open(&web.path));
            // Another datapath begins elsewhere, and finds ports that the last one has used.
            let restarts = u64::try_from(nth).expect("few") + 1;
            send_signal(world.datapath_pid(), Signal::SIGKILL);
            wait::until_equal("another datapath", &restarts, || world.restarts());
        }
        ask(&world, REQUESTS, "http://[::1]:8080/");
        let at = (web.ipv4(), 80).into();
        talk::connect(&web.path, at).write_all(END).expect("send");
        assert_eq!(served.join().expect("no panic"), (CLIENTS + 1) * REQUESTS);
    });
    assert_eq!(asked(&web.path), counts(&web.path)["PassiveOpens"], "each source was accepted at once");
    no_trouble(&web.path);
    no_trouble(&world.host().path());
}
