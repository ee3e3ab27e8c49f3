//! Bad input: one clear line and an exit status on the command line, a stable code on the socket, and
//! no half-made state.

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use serde_json::Value;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::world::World;

use super::world;

/// Everything there is, as far as the switch tells and the kernel knows.
fn state(world: &World, namespaces: &[&Namespace]) -> (Vec<Value>, Vec<String>) {
    let told = [&["network", "ls"][..], &["sandbox", "ls"], &["ps"], &["fdb"], &["rule", "ls"]];
    let links = namespaces.iter().map(|namespace| namespace.ip(&["-br", "link"]));
    let host = world.host().ip(&["-br", "link"]);
    (told.iter().map(|arguments| world.json(arguments)).collect(), links.chain([host]).collect())
}

/// A world with two networks and two containers, and a namespace to attach.
fn prepared() -> (World, Namespace) {
    let world = world();
    world.network("net1", &["--subnet", "10.1.0.0/24"]);
    world.network("net2", &["--subnet", "10.2.0.0/24"]);
    (world, Namespace::new())
}

#[test]
fn refusals_are_one_line_that_names_the_thing_and_change_nothing() {
    let (world, namespace) = prepared();
    let taken = world.attach("taken", &["--network", "net1", "--ip", "10.1.0.9"]);
    namespace.ip(&["tuntap", "add", "eth7", "mode", "tap"]);
    let free = namespace.name();
    let attach = |rest: &[&'static str]| -> Vec<String> {
        ["attach", "x", "--netns", free].iter().chain(rest).map(|&word| word.to_owned()).collect()
    };
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let cases: Vec<(Vec<String>, &str)> = vec![
        (attach(&["--network", "nowhere"]), "nowhere"),
        (attach(&["--network", "net1", "--ip", "10.9.0.1"]), "10.9.0.1"),
        (attach(&["--network", "net1", "--ip", "10.1.0.9"]), "10.1.0.9"),
        (attach(&["--network", "net1", "--ifname", "eth7"]), "eth7"),
        (attach(&["--network", "net1", "--ifname", "a-name-that-is-too-long"]), "a-name-that-is-too-long"),
        (words("attach x --netns vst-nothing-here --network net1"), "vst-nothing-here"),
        (words("attach x --pid 4194304 --network net1"), "4194304"),
        (words(&format!("attach taken --netns {free} --network net1")), "taken"),
        (words("attach x --fd 4194304:3 --network net1"), "4194304"),
        (words("detach nobody"), "nobody"),
        (words("exec nobody -- true"), "nobody"),
        (words("sandbox rm nobody"), "nobody"),
        (words("sandbox inspect nobody"), "nobody"),
        (words("sandbox create x --network nowhere"), "nowhere"),
        (words("network create net1"), "net1"),
        (words("network create x --subnet 10.1.0.0/16"), "10.1.0.0/16"),
        (words("network create x --subnet 10.3.0.0/24 --gateway 10.4.0.1"), "10.4.0.1"),
        (words("network create x --driver macvlan"), "macvlan"),
        (words("network create x -o com.docker.network.bridge.enable_ic=false"), "enable_icc"),
        (words("network create x -o com.docker.network.driver.mtu=many"), "many"),
        (words("network create x -o com.docker.network.driver.mtu=40"), "40"),
        (words("network rm nowhere"), "nowhere"),
        (words("network rm net1"), "net1"),
        (words("network rm bridge"), "bridge"),
        (words("network inspect nowhere"), "nowhere"),
        (words("network connect nowhere taken"), "nowhere"),
        (words("network connect net2 nobody"), "nobody"),
        (words("network connect net1 taken"), "net1"),
        (words("network disconnect net2 taken"), "net2"),
        (words("fdb nowhere"), "nowhere"),
        (words("publish nobody 80"), "nobody"),
        (words("publish taken http"), "invalid containerPort: http"),
        (words("publish taken 8080:"), "no port specified: 8080:<empty>"),
        (
            words("publish taken 80:80 8080-8081:80-82"),
            "invalid ranges specified for container and host Ports",
        ),
        (words("publish taken 80/icmp"), "invalid proto: icmp"),
        (words("publish taken ::1:80:80"), "::1:80:80"),
        (words("publish taken 81:80/sctp"), "80:80/sctp"),
        (words("publish taken 192.0.2.7:8080:80"), "192.0.2.7:8080"),
        (words("publish taken 8080:80 8080:81"), "port is already allocated"),
        (words("unpublish taken 80"), "80/tcp"),
        (words("unpublish nobody 80"), "nobody"),
        (words("port nobody"), "nobody"),
        (words("port taken 80"), "80/tcp"),
        (attach(&["--network", "net1", "-p", "99999:80"]), "99999"),
        (attach(&["--network", "net1", "-p", "192.0.2.7:80:80"]), "192.0.2.7:80"),
        (words("sandbox create x --expose http"), "http"),
    ];
    refuse_each(&world, &namespace, cases);
    drop(taken);
}

/// Has each of these commands refused, in one line that names something, with everything as it was.
fn refuse_each(world: &World, namespace: &Namespace, cases: Vec<(Vec<String>, &str)>) {
    let before = state(world, &[namespace]);
    for (arguments, named) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refusal = world.refused(&arguments);
        assert_eq!(refusal.code, 1, "{arguments:?}: {}", refusal.message);
        assert_eq!(refusal.message.lines().count(), 1, "{arguments:?}: {}", refusal.message);
        assert!(refusal.message.contains(named), "{arguments:?} must name {named}: {}", refusal.message);
        assert_eq!(state(world, &[namespace]), before, "{arguments:?} left something");
    }
}

#[test]
fn rules_that_make_no_sense_are_refused_in_a_line() {
    let (world, namespace) = prepared();
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let cases = vec![
        (words("rule add --from nowhere --action drop"), "nowhere"),
        (words("rule add --from sandbox:nobody --action drop"), "nobody"),
        (words("rule add --network !nowhere --action drop"), "nowhere"),
        (words("rule add --dport 80 --action drop"), "--proto tcp"),
        (words("rule add --proto tcp --dport 80,http --action drop"), "http"),
        (words("rule add --published-port 80 --action drop"), "--proto tcp"),
        (words("rule add --in-interface eth7 --action drop"), "eth7"),
        (words("rule add --proto udp --limit 10 --action drop"), "10/second"),
        (words("rule add --limit-burst 10 --action drop"), "--limit"),
        (words("rule add --limit 1/day --state established --action drop"), "limit"),
        (words("rule add --network net1 --from net2 --to net2 --action drop"), "net1"),
        (words("rule add --from 10.0.0.0/8 --to fd00::1 --action drop"), "IPv4 and IPv6"),
        (words("rule add --before 7 --action drop"), "rule 7"),
        (words("rule import /dev/null"), "DOCKER-USER"),
        (words("rule import /nowhere"), "/nowhere"),
    ];
    refuse_each(&world, &namespace, cases);
}

#[test]
fn wrong_usage_is_another_status() {
    let world = world();
    for arguments in [
        &["network"][..],
        &["attach"],
        &["nonsense"],
        &["ps", "--colour"],
        &["attach", "x", "--fd", "7"],
        &["network", "create", "x", "--aux-address", "nas"],
        &["network", "create", "x", "--subnet", "ten"],
        &["rule", "add", "--proto", "gre", "--action", "drop"],
        &["rule", "add"],
    ] {
        let refusal = world.refused(arguments);
        assert_eq!(refusal.code, 2, "{arguments:?}: {}", refusal.message);
        assert!(!refusal.message.is_empty());
    }
}

#[test]
fn a_missing_daemon_is_named_by_its_socket() {
    let mut world = world();
    world.stop(nix::sys::signal::Signal::SIGTERM);
    let refusal = world.refused(&["network", "ls"]);
    assert_eq!((refusal.code, refusal.message.lines().count()), (1, 1), "{}", refusal.message);
    assert!(
        refusal.message.contains("control.sock") && refusal.message.contains("vswitch run"),
        "{}",
        refusal.message
    );
}

#[test]
fn a_descriptor_that_is_no_interface_is_refused() {
    let (world, _) = prepared();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let fd = format!("{}:{}", std::process::id(), listener.as_raw_fd());
    let gone = format!("{}:999999", std::process::id());
    for fd in [fd, gone] {
        let refusal = world.refused(&["attach", "x", "--fd", &fd, "--network", "net1"]);
        assert_eq!((refusal.code, refusal.message.lines().count()), (1, 1), "{}", refusal.message);
        assert_eq!(world.json(&["ps"]), serde_json::json!([]));
    }
}

#[test]
fn errors_on_the_socket_have_stable_codes() {
    let (world, namespace) = prepared();
    let before = state(&world, &[&namespace]);
    let path = namespace.path().display().to_string();
    let attach = |network: &str, address: &str| {
        let addresses = format!(r#"{{"IPAMConfig": {{"IPv4Address": "{address}"}}}}"#);
        let body = format!(r#""Name": "x", "NetNS": "{path}", "Network": "{network}""#);
        Some(format!(r#"{{{body}, "EndpointConfig": {addresses}}}"#))
    };
    let cases = [
        ("GET", "/nothing", None, 404, "route-not-found"),
        ("PUT", "/networks", None, 405, "method-not-allowed"),
        ("POST", "/networks/create", Some("{".to_owned()), 400, "malformed-json"),
        ("POST", "/networks/create", Some(r#"{"Name": 7}"#.to_owned()), 400, "malformed-json"),
        ("POST", "/networks/create", Some(r#"{"Name": "net1"}"#.to_owned()), 409, "name-in-use"),
        (
            "POST",
            "/networks/create",
            Some(r#"{"Name": "x", "Driver": "y"}"#.to_owned()),
            400,
            "unknown-driver",
        ),
        ("GET", "/networks/nowhere", None, 404, "network-not-found"),
        ("DELETE", "/networks/bridge", None, 403, "network-predefined"),
        ("GET", "/sandboxes/nobody", None, 404, "sandbox-not-found"),
        ("GET", "/sandboxes/nobody/ports", None, 404, "sandbox-not-found"),
        ("POST", "/sandboxes/nobody/publish", Some("{}".to_owned()), 400, "malformed-json"),
        (
            "POST",
            "/sandboxes/nobody/publish",
            Some(r#"{"Specs": ["80"]}"#.to_owned()),
            404,
            "sandbox-not-found",
        ),
        (
            "POST",
            "/sandboxes/nobody/publish",
            Some(r#"{"Specs": ["x"]}"#.to_owned()),
            400,
            "invalid-argument",
        ),
        ("POST", "/rules", Some(r#"{"Action": "drop", "Ports": "80"}"#.to_owned()), 400, "malformed-json"),
        ("POST", "/rules", Some(r#"{"Action": "deny"}"#.to_owned()), 400, "invalid-argument"),
        (
            "POST",
            "/rules",
            Some(r#"{"Action": "drop", "From": "nobody"}"#.to_owned()),
            404,
            "network-not-found",
        ),
        ("POST", "/rules/import", Some(r#"{"Text": ""}"#.to_owned()), 400, "invalid-argument"),
        ("POST", "/sandboxes/attach", attach("nowhere", ""), 404, "network-not-found"),
        ("POST", "/sandboxes/attach", attach("net1", "10.9.0.1"), 400, "address-outside"),
        ("POST", "/sandboxes/attach", attach("net1", "10.1.0.1"), 409, "address-in-use"),
        ("POST", "/sandboxes/attach", attach("net1", "nonsense"), 400, "malformed-json"),
    ];
    for (method, path, body, status, code) in cases {
        let (found, answer) = world.curl(method, path, body.as_deref());
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
        let message = answer["message"].as_str().expect("a message");
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    }
    assert_eq!(state(&world, &[&namespace]), before);
}
