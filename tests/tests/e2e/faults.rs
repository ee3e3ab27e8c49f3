//! More to tell than fits a packet, and datapaths that refuse, or do not answer.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::{Range, RangeInclusive};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_tests::outside::{FAR, HOST, Outside, UPLINK};
use vswitch_tests::world::{Container, World, send_signal};
use vswitch_tests::{talk, wait};

use super::{VSWITCH, world};

/// Addresses of the host beside the uplink's.
const ADDRESSES: u16 = 5000;
/// Flows that each need a port of the host: so many that the ranges of ports do not fit a packet.
const FLOWS: usize = 3000;
/// Ports of which every second one is somebody's, the last of those that are claimed first.
const SPLINTERED: RangeInclusive<u16> = 54_000..=65_535;
const RULES: u16 = 700;
/// As many rules as there may be.
const RULES_MAX: u16 = 1000;
const FIRST_PORT: u16 = 10_000;
/// The log of a datapath that is waited for in vain.
const SILENCE: &str = "it has not answered for";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Kills the datapath and waits until there is another.
fn kill_datapath(world: &World) {
    let (restarts, pid) = (world.restarts(), world.datapath_pid());
    send_signal(pid, Signal::SIGKILL);
    wait::until_equal("another datapath", &(restarts + 1), || world.restarts());
    assert_ne!(world.datapath_pid(), pid);
}

/// Kills control; the next one takes up with the datapath.
fn kill_control(world: &mut World) {
    let pid = world.datapath_pid();
    world.stop(Signal::SIGKILL);
    world.start_again();
    assert_eq!((world.datapath_pid(), world.restarts()), (pid, 0), "the datapath was replaced");
}

/// Both processes.
fn pids(world: &World) -> (u32, u32) {
    (world.control_pid(), world.datapath_pid())
}

/// The state of a process (proc_pid_stat(5)), if it has not ended.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next().filter(|state| *state != 'Z')
}

/// Whether a process has not ended; nobody need have asked how it did.
fn runs(pid: u32) -> bool {
    state(pid).is_some()
}

/// Containers of every kind of port on one network.
fn every_kind(world: &World) -> [Container; 4] {
    world.network("net1", &[]);
    let attach = |name: &str, kind| world.attach(name, &["--network", "net1", "--port-type", kind]);
    let made = world.sandbox("made", &["--network", "net1"]);
    [made, attach("tap", "tap"), attach("veth", "veth"), attach("moved", "tap-moved")]
}

fn all_reach_the_first(containers: &[Container]) {
    containers[1..].iter().for_each(|container| container.pings(containers[0].ipv4()));
}

#[test]
fn a_host_may_have_thousands_of_addresses() {
    let (mut world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &[]);
    let container = world.sandbox("one", &["--network", "net1"]);
    let before = pids(&world);
    let nth = |number: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(number) + 0x0a63_0001));
    let batch: String =
        (0..ADDRESSES).map(|number| format!("address add {}/32 dev {UPLINK}\n", nth(number))).collect();
    let file = world.folder().join("batch");
    fs::write(&file, batch).expect("write");
    world.host().ip(&["-batch", file.to_str().expect("a path")]);
    let last = nth(ADDRESSES - 1);
    let reaches_all = || {
        let at_once = |to| talk::ping(&container.path, to, &["-c", "1", "-W", "1"]);
        for to in [last, nth(0), address(HOST[0]), address(FAR[0])] {
            wait::until("the host answers", || at_once(to).then_some(()));
        }
    };
    reaches_all();
    assert_eq!((pids(&world), world.restarts()), (before, 0), "{}", world.logged());
    kill_datapath(&world);
    reaches_all();
    kill_control(&mut world);
    reaches_all();
    kill_datapath(&world);
    reaches_all();
    drop(outside);
}

/// Clients in a container, each with a flow of its own to one server outside.
struct Flows {
    server: UdpSocket,
    clients: Vec<UdpSocket>,
}

impl Flows {
    fn new(container: &Container, outside: &Outside) -> Self {
        let server = outside.namespace().inside(|| UdpSocket::bind((FAR[0], 0))).expect("bind");
        let client = |to: SocketAddr| {
            let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
            client.connect(to).expect("connect");
            client.set_nonblocking(true).expect("a flag");
            client
        };
        server.set_nonblocking(true).expect("a flag");
        let to = server.local_addr().expect("bound");
        let clients = container.inside(|| (0..FLOWS).map(|_| client(to)).collect());
        Self { server, clients }
    }

    /// Has every client ask until it is answered; says at which ports of the host the server saw them. What
    /// is asked is a number of this round's: answers to that before may be late.
    fn talk(&self, round: u8) -> BTreeSet<u16> {
        let (mut seen, mut buffer) = (BTreeSet::new(), [0]);
        let mut unanswered: Vec<&UdpSocket> = self.clients.iter().collect();
        let is_answered = |client: &UdpSocket| {
            let mut answer = [0];
            while client.recv(&mut answer).is_ok() {
                if answer == [round] {
                    return true;
                }
            }
            false
        };
        wait::until("every flow is answered", || {
            for some in unanswered.chunks(64) {
                for client in some {
                    // One without a port may be told so.
                    let _ = client.send(&[round]);
                }
                while let Ok((_, peer)) = self.server.recv_from(&mut buffer) {
                    if buffer == [round] {
                        seen.insert(peer.port());
                    }
                    let _ = self.server.send_to(&buffer, peer);
                }
            }
            unanswered.retain(|client| !is_answered(client));
            unanswered.is_empty().then_some(())
        });
        seen
    }
}

#[test]
fn claimed_ports_may_be_in_thousands_of_splinters() {
    let (mut world, (outside, taken)) = World::start_prepared(VSWITCH, |host| {
        let outside = Outside::behind(host);
        let bind = |port| UdpSocket::bind((HOST[0], port)).expect("bind");
        (outside, host.inside(|| SPLINTERED.step_by(2).map(bind).collect::<Vec<_>>()))
    });
    let container = world.sandbox("one", &[]);
    let before = pids(&world);
    container.pings(address(FAR[0]));
    let flows = Flows::new(&container, &outside);
    let ports = flows.talk(1);
    assert!(ports.len() >= FLOWS, "{} ports", ports.len());
    assert!(
        ports.iter().zip(ports.iter().skip(1)).all(|(one, next)| next - one > 1),
        "no two of them make a range"
    );
    assert_eq!((pids(&world), world.restarts()), (before, 0), "{}", world.logged());
    kill_datapath(&world);
    assert!(flows.talk(2) == ports, "every flow goes on where it was");
    kill_control(&mut world);
    assert!(flows.talk(3) == ports, "every flow goes on where it was");
    kill_datapath(&world);
    assert!(flows.talk(4) == ports, "every flow goes on where it was");
    let other = world.sandbox("other", &[]);
    other.pings(address(FAR[0]));
    drop((outside, taken));
}

/// How many of the rules have decided about a frame.
fn counted(world: &World) -> usize {
    let rules = world.json(&["rule", "ls"]);
    let rules = rules.as_array().cloned().unwrap_or_default();
    rules.iter().filter(|rule| rule["Frames"].as_u64() > Some(0)).count()
}

fn add_rules(world: &World, numbers: Range<u16>) {
    for number in numbers {
        let port = (FIRST_PORT + number).to_string();
        world.vswitch(&["rule", "add", "--proto", "udp", "--dport", &port, "--action", "drop"]);
    }
}

#[test]
fn hundreds_of_rules_are_applied_and_outlive_both_processes() {
    let mut world = world();
    world.network("net1", &[]);
    let [a, b] = ["a", "b"].map(|name| world.sandbox(name, &["--network", "net1"]));
    let before = pids(&world);
    add_rules(&world, 0..RULES);
    let socket = a.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
    let (to, ports) = (b.ipv4(), FIRST_PORT..FIRST_PORT + RULES);
    let each_decides = || {
        a.pings(to);
        wait::until_equal("every rule has decided about a frame", &usize::from(RULES), || {
            for port in ports.clone() {
                socket.send_to(b"hello", (to, port)).expect("sent");
            }
            counted(&world)
        });
    };
    each_decides();
    assert_eq!((pids(&world), world.restarts()), (before, 0), "{}", world.logged());
    kill_datapath(&world);
    each_decides();
    kill_control(&mut world);
    assert_eq!(counted(&world), usize::from(RULES), "what was counted is there");

    add_rules(&world, RULES..RULES_MAX);
    let before = pids(&world);
    let refusal = world.refused(&["rule", "add", "--proto", "udp", "--dport", "9", "--action", "drop"]);
    assert_eq!(refusal.message, "vswitch: 1000 rules is the most there can be: remove one\n");
    assert_eq!(pids(&world), before);
    assert_eq!(world.json(&["rule", "ls"]).as_array().map(Vec::len), Some(usize::from(RULES_MAX)));
    a.pings(to);
}

#[test]
fn what_the_datapath_refuses_is_told_in_one_line_and_costs_nothing() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &[]);
    let [a, b] = ["a", "b"].map(|name| world.sandbox(name, &["--network", "net1"]));
    let before = pids(&world);
    let wide = |peers: &str| {
        let words = ["network", "create", "wide", "-d", "overlay", "--subnet", "10.9.0.0/24", "-o"];
        let options = ["vswitch.vni=5".to_owned(), format!("vswitch.peers={peers}")];
        let words = words.into_iter().chain([options[0].as_str(), "-o", &options[1]]);
        world.command(&words.collect::<Vec<_>>()).output().expect("vswitch starts")
    };
    for own in [format!("203.0.113.1,{}", HOST[0]), "203.0.113.1,224.0.0.9".to_owned()] {
        let output = wide(&own);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{own}");
        assert_eq!(message.lines().count(), 1, "{message}");
        let named = own.split_once(',').expect("two").1;
        assert!(message.contains(named), "{message}");
        assert!(!world.vswitch(&["network", "ls"]).contains("wide"), "nothing is left");
        assert_eq!((pids(&world), world.restarts()), (before, 0), "{}", world.logged());
        a.pings(b.ipv4());
        a.pings(address(FAR[0]));
    }
    let output = wide("203.0.113.1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let c = world.sandbox("c", &["--network", "wide", "--ip", "10.9.0.2"]);
    kill_datapath(&world);
    c.pings("10.9.0.1".parse().expect("an address"));
    drop(outside);
}

#[test]
fn a_stopped_datapath_is_replaced_with_nobody_asking() {
    let world = world();
    let containers = every_kind(&world);
    let stopped = world.datapath_pid();
    send_signal(stopped, Signal::SIGSTOP);
    wait::until("another one moves frames", || {
        talk::ping(&containers[1].path, containers[0].ipv4(), &["-c", "1", "-W", "1"]).then_some(())
    });
    assert!(!runs(stopped), "it does not go on beside the next");
    assert!(world.logged().contains(SILENCE), "{}", world.logged());
    assert_eq!(world.restarts(), 1);
    all_reach_the_first(&containers);
}

#[test]
fn who_asks_while_the_datapath_is_stopped_is_answered() {
    let world = world();
    let containers = every_kind(&world);
    for name in ["one", "other"] {
        let stopped = world.datapath_pid();
        send_signal(stopped, Signal::SIGSTOP);
        thread::scope(|scope| {
            scope.spawn(|| world.network(name, &[]));
            scope.spawn(|| world.vswitch(&["network", "ls"]));
            scope.spawn(|| world.vswitch(&["rule", "ls"]));
        });
        assert!(!runs(stopped), "it does not go on beside the next");
        let late = world.sandbox(name, &["--network", name]);
        world.vswitch(&["network", "connect", "net1", &late.name]);
        all_reach_the_first(&containers);
    }
    assert_eq!(world.restarts(), 2);
}

#[test]
fn a_switch_is_stopped_without_waiting_for_a_datapath_that_does_not_answer() {
    // At once, over a request, and while the datapath is already waited for.
    for (moment, asked) in [(0, false), (100, true), (1500, false)] {
        let mut world = world();
        let containers = every_kind(&world);
        let datapath = world.datapath_pid();
        send_signal(datapath, Signal::SIGSTOP);
        let request =
            asked.then(|| world.command(&["network", "create", "late"]).spawn().expect("it starts"));
        // A moment to come, not a time to wait for something.
        let _moment = crossbeam::channel::after(Duration::from_millis(moment)).recv();
        assert!(world.stop(Signal::SIGTERM).success(), "{}", world.logged());
        assert!(!world.logged().contains(SILENCE), "it was waited for:\n{}", world.logged());
        assert!(!runs(datapath), "the datapath is left over");
        if let Some(mut request) = request {
            request.wait().expect("our child");
        }
        assert!(!containers[0].path.exists(), "the sandbox is left over");
        for container in &containers[1..] {
            let links = container.ip(&["-o", "link"]);
            assert_eq!(links.lines().count(), 1, "{links}");
        }
        let links = world.host().ip(&["-o", "link"]);
        assert_eq!(links.lines().count(), 1, "{links}");
        let left: Vec<_> = fs::read_dir(world.folder()).expect("its folder").flatten().collect();
        assert_eq!(left.len(), 2, "only the log and the state: {left:?}");
        // Nor is anything left in the state that another could not go on with.
        world.start_again();
        all_reach_the_first(&containers);
    }
}

#[test]
fn a_request_in_flight_is_done_before_a_switch_stops() {
    let mut world = world();
    for number in 0..5 {
        let name = format!("late{number}");
        let mut request = world.command(&["network", "create", &name]).spawn().expect("it starts");
        // A moment to come, not a time to wait for something.
        let _moment = crossbeam::channel::after(Duration::from_millis(4 * number)).recv();
        assert!(world.stop(Signal::SIGTERM).success(), "{}", world.logged());
        let is_promised = request.wait().expect("our child").success();
        assert!(!world.logged().contains("taken for dead"), "{}", world.logged());
        world.start_again();
        assert!(!is_promised || world.vswitch(&["network", "ls"]).contains(&name), "{name} is lost");
    }
}

#[test]
fn a_stopped_datapath_is_no_obstacle_to_the_next_control() {
    let mut world = world();
    let containers = every_kind(&world);
    let addresses: Vec<IpAddr> = containers.iter().map(Container::ipv4).collect();
    // One that is stopped when its control ends is woken by the kernel, and ignores that it is hung up on.
    for stopped_first in [false, true] {
        let stopped = world.datapath_pid();
        if stopped_first {
            send_signal(stopped, Signal::SIGSTOP);
            wait::until_equal("it is stopped", &Some('T'), || state(stopped));
        }
        world.stop(Signal::SIGKILL);
        if !stopped_first {
            send_signal(stopped, Signal::SIGSTOP);
        }
        world.start_again();
        if stopped_first {
            assert_eq!(world.datapath_pid(), stopped, "it goes on");
        } else {
            assert!(!runs(stopped), "it does not go on beside the next");
            assert!(world.logged().contains(SILENCE), "{}", world.logged());
        }
        assert_eq!(containers.iter().map(Container::ipv4).collect::<Vec<_>>(), addresses);
        all_reach_the_first(&containers);
        // The next one is a child like any other, and its facts are all there.
        kill_datapath(&world);
        all_reach_the_first(&containers);
    }
}

#[test]
fn a_thousand_published_ports_are_taken_up_by_the_next_control() {
    const PUBLISHED: u16 = 1000;
    let mut world = world();
    world.network("net1", &[]);
    let ports: Vec<String> = (FIRST_PORT..).take(PUBLISHED.into()).map(|port| format!("{port}:80")).collect();
    let published = ports.iter().flat_map(|port| ["-p", port]).collect::<Vec<_>>();
    let web = world.sandbox("web", &[&["--network", "net1"][..], &published].concat());
    let shown = world.json(&["ps"]);
    kill_control(&mut world);
    assert_eq!(world.json(&["ps"]), shown);
    let listener = web.inside(|| TcpListener::bind("0.0.0.0:80")).expect("bind");
    let visit = || {
        for port in [FIRST_PORT, FIRST_PORT + PUBLISHED - 1] {
            let mut visitor = talk::connect(&world.host().path(), (address("127.0.0.1"), port).into());
            let (mut connection, _) = listener.accept().expect("accept");
            talk::send(&mut connection, port.into(), 1000).expect("sent");
            talk::check(&mut visitor, port.into(), 1000).expect("whole");
        }
    };
    visit();
    kill_datapath(&world);
    visit();
}
