//! Uplinks: none, one by name, or several.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS, UPLINK};
use vswitch_tests::talk;
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{World, send_signal};

use super::VSWITCH;

/// Uplinks that are shown as there.
fn uplinks(world: &World) -> Vec<Value> {
    ports_of(world, "(uplink)").into_iter().filter(|port| port["Gone"] == false).collect()
}

/// The interface that is shown as the uplink.
fn uplink(world: &World) -> Option<String> {
    uplinks(world).first().and_then(|port| port["Interface"].as_str().map(str::to_owned))
}

#[test]
fn without_an_uplink_containers_reach_this_host_only() {
    let (world, outside) = World::start_with(VSWITCH, &["--uplink", "none"], Outside::behind);
    let [one, two] = ["one", "two"].map(|name| world.attach(name, &[]));
    assert_eq!(uplink(&world), None);
    one.pings(two.ipv4());
    one.pings(HOST[0].parse().expect("an address"));
    for far in [ROUTERS[0], FAR[0]] {
        one.cannot_ping(far.parse().expect("an address"));
    }
    let drops = world.counters(&one)["Drops"].clone();
    assert!(drops["no-route"].as_u64() > Some(0), "{drops}");
    assert_eq!(ports_of(&world, "(uplink)"), [] as [Value; 0]);
    drop(outside);
}

#[test]
fn an_uplink_that_is_not_there_is_waited_for_and_said_once() {
    let (world, ()) = World::start_with(VSWITCH, &["--uplink", "up0"], |_| ());
    let why = "uplink up0 is not there";
    let said = || world.logged().matches(why).count();
    let gone = || ports_of(&world, "(uplink)").iter().map(|port| port["Gone"].clone()).collect::<Vec<_>>();
    assert_eq!((said(), gone()), (1, vec![Value::Bool(true)]), "{}", world.logged());
    assert!(world.vswitch(&["stats"]).contains("(gone)"));
    let one = world.attach("one", &[]);
    world.host().ip(&["link", "add", "bystander", "type", "veth", "peer", "name", "other"]);
    let outside = Outside::behind(world.host());
    wait::until_equal("it is taken", &vec![Value::Bool(false)], gone);
    // Address and route came one after the other, and each is followed by itself.
    let far = FAR[0].parse().expect("an address");
    wait::until("the world answers", || talk::ping(&one.path, far, &["-c", "1", "-W", "1"]).then_some(()));
    assert_eq!(said(), 1);
    drop(outside);
    wait::until_equal("it is missed", &2, said);
    wait::until_equal("it is shown as gone", &vec![Value::Bool(true)], gone);
}

#[test]
fn what_can_be_no_uplink_is_refused() {
    let (world, ()) = World::start_prepared(VSWITCH, |_| ());
    for name in ["sixteen-bytes-xx", "a/b", "a b", "eth0:1", ".."] {
        let refusal = world.refused(&["run", "--uplink", name]);
        assert!(refusal.message.contains(&format!("--uplink {name:?} is no name")), "{}", refusal.message);
        assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
    }
}

fn ports_of(world: &World, sandbox: &str) -> Vec<Value> {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    ports.into_iter().filter(|port| port["Sandbox"] == sandbox).collect()
}

/// A host with two uplinks: the default routes lead through the first, a net behind the second is said by a
/// route.
fn two_ways(host: &Namespace) -> (Outside, Namespace) {
    let outside = Outside::behind(host);
    let second = Namespace::new();
    let peer = ["type", "veth", "peer", "name", "s0", "netns", second.name()];
    host.ip(&[&["link", "add", "up1"][..], &peer].concat());
    for (own, interface, address) in [(host, "up1", "198.18.0.1/24"), (&second, "s0", "198.18.0.2/24")] {
        own.ip(&["link", "set", interface, "up"]);
        own.ip(&["address", "add", address, "dev", interface]);
    }
    second.ip(&["address", "add", "198.51.100.9/32", "dev", "lo"]);
    host.ip(&["route", "add", "198.51.100.0/24", "via", "198.18.0.2"]);
    (outside, second)
}

#[test]
fn an_uplink_by_name_need_not_have_the_default_route() {
    let (world, (outside, second)) = World::start_with(VSWITCH, &["--uplink", "up1"], two_ways);
    let container = world.sandbox("one", &["-p", "8080:80"]);
    assert_eq!(uplink(&world).as_deref(), Some("up1"));
    for target in ["198.18.0.2", "198.51.100.9"] {
        container.pings(target.parse().expect("an address"));
    }
    container.cannot_ping(FAR[0].parse().expect("an address"));
    let listener = talk::listen(&second.path(), "198.51.100.9".parse().expect("an address"));
    let connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
    let (_, peer) = listener.accept().expect("accept");
    assert_eq!(peer.ip().to_string(), "198.18.0.1", "as the host is known there");
    drop((connection, outside));
}

#[test]
fn an_uplink_by_name_may_come_and_go() {
    let (world, outside) = World::start_with(VSWITCH, &["--uplink", "later0"], Outside::behind);
    let container = world.attach("one", &[]);
    let far = FAR[0].parse().expect("an address");
    container.cannot_ping(far);
    assert_eq!(uplink(&world), None);
    world.host().ip(&["link", "set", UPLINK, "down"]);
    world.host().ip(&["link", "set", UPLINK, "name", "later0"]);
    world.host().ip(&["link", "set", "later0", "up"]);
    world.host().ip(&["route", "replace", "default", "via", ROUTERS[0]]);
    wait::until("a way out", || talk::answers(&container.path, far).then_some(()));
    assert_eq!(uplink(&world).as_deref(), Some("later0"));
    drop(outside);
}

/// The address from which a server hears a datagram of a container's.
fn heard_from(server: &UdpSocket, client: &UdpSocket) -> IpAddr {
    server.set_read_timeout(Some(DEADLINE)).expect("time-out");
    client.set_read_timeout(Some(DEADLINE)).expect("time-out");
    client.send_to(b"question", server.local_addr().expect("bound")).expect("send");
    let mut buffer = [0; 16];
    let (_, peer) = server.recv_from(&mut buffer).expect("the question");
    server.send_to(b"answer", peer).expect("send");
    let (_, from) = client.recv_from(&mut buffer).expect("the answer");
    assert_eq!(Ok(from), server.local_addr().map_err(|error| error.kind()));
    peer.ip()
}

/// Visits a published port of the host from somewhere, and says whom the container sees.
fn visit(from: &Namespace, own: &str, host: &str, server: &TcpListener) -> IpAddr {
    let bound = from.inside(|| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--interface", own, &format!("http://{host}:8080/")]);
        command.stdout(Stdio::piped()).spawn()
    });
    let mut curl = bound.expect("curl is installed");
    let (mut connection, peer) = server.accept().expect("accept");
    let answer = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    connection.write_all(answer.as_bytes()).expect("send");
    // Read to the end, so that closing does not reset.
    connection.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let _ = connection.read_to_end(&mut Vec::new());
    assert!(curl.wait().expect("our child").success(), "{own} to {host}");
    peer.ip()
}

#[test]
fn of_several_uplinks_routes_choose_and_answers_go_the_way_they_came() {
    let (world, (outside, second)) = World::start_with(VSWITCH, &["--uplink", "up0,up1"], |host| {
        let both = two_ways(host);
        host.ip(&["route", "add", "default", "via", "198.18.0.2", "metric", "200"]);
        both.1.ip(&["address", "add", "198.51.101.9/32", "dev", "lo"]);
        both
    });
    let names: Vec<_> = ports_of(&world, "(uplink)").iter().map(|port| port["Interface"].clone()).collect();
    assert_eq!(names, ["up0", "up1"]);
    let web = world.sandbox("web", &["-p", "8080:80"]);
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    // One end of a container's has two addresses outside.
    let client = web.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
    for _ in 0..2 {
        for (namespace, there, host) in
            [(outside.namespace(), FAR[0], HOST[0]), (&second, "198.51.100.9", "198.18.0.1")]
        {
            let server = namespace.inside(|| UdpSocket::bind((there, 0))).expect("bind");
            assert_eq!(heard_from(&server, &client), address(host));
        }
    }
    let server = web.inside(|| TcpListener::bind("0.0.0.0:80")).expect("bind");
    for (namespace, own, host) in [
        (outside.namespace(), ROUTERS[0], HOST[0]),
        (&second, "198.18.0.2", "198.18.0.1"),
        (&second, "198.51.100.9", "198.18.0.1"),
        // By the host's first route the answer would go to who does not know this one.
        (&second, "198.51.101.9", "198.18.0.1"),
    ] {
        assert_eq!(visit(namespace, own, host, &server), address(own), "{own} to {host}");
    }
    world.host().ip(&["link", "set", "up1", "down"]);
    wait::until("one uplink less", || (uplinks(&world).len() == 1).then_some(()));
    web.pings(address(FAR[0]));
    world.host().ip(&["link", "set", "up1", "up"]);
    wait::until("two again", || (uplinks(&world).len() == 2).then_some(()));
    let restarts = world.restarts();
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    for target in [FAR[0], "198.18.0.2"] {
        web.pings(address(target));
    }
}

#[test]
fn uplinks_that_contradict_each_other_are_refused() {
    let world = super::world();
    for (words, named) in
        [("up0,none", "none stands alone"), ("up0,up0", "twice"), ("a,b,c,d,e", "5 uplinks")]
    {
        let refusal = world.refused(&["run", "--uplink", words]);
        assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
        assert!(refusal.message.contains(named), "{words}: {}", refusal.message);
    }
}
