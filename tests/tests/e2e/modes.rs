//! Network modes: no network, the host's, another sandbox's.

use vswitch_tests::world::World;

use super::world;

/// The names of the interfaces that a command inside a sandbox sees.
fn interfaces(world: &World, sandbox: &str) -> Vec<String> {
    let links = world.vswitch(&["exec", sandbox, "--", "ip", "-br", "link"]);
    links.lines().filter_map(|line| Some(line.split([' ', '@']).next()?.to_owned())).collect()
}

fn mode(world: &World, sandbox: &str) -> String {
    let sandbox = &world.json(&["sandbox", "inspect", sandbox])[0];
    sandbox["NetworkMode"].as_str().expect("a mode").to_owned()
}

#[test]
fn none_has_loopback_only_until_it_is_connected() {
    let world = world();
    world.network("net1", &[]);
    let alone = world.sandbox("alone", &["--network", "none"]);
    let other = world.sandbox("other", &["--network", "net1"]);
    assert_eq!(interfaces(&world, &alone.name), ["lo"]);
    assert_eq!(mode(&world, &alone.name), "none");
    alone.pings([127, 0, 0, 1].into());
    world.vswitch(&["network", "connect", "net1", &alone.name]);
    assert_eq!(mode(&world, &alone.name), "net1");
    alone.pings(other.ipv4());
}

#[test]
fn host_is_the_network_of_the_daemon() {
    let world = world();
    world.host().ip(&["tuntap", "add", "marker", "mode", "tap"]);
    let name = world.global_name("host");
    world.vswitch(&["sandbox", "create", &name, "--network", "host", "--hostname", "inside"]);
    assert!(interfaces(&world, &name).contains(&"marker".to_owned()));
    assert_eq!(world.vswitch(&["exec", &name, "--", "hostname"]), "inside\n");
    assert_eq!(mode(&world, &name), "host");
    for command in ["connect", "disconnect"] {
        let refusal = world.refused(&["network", command, "bridge", &name]);
        assert!(refusal.message.contains("uses the host's network"), "{}", refusal.message);
    }
    world.vswitch(&["sandbox", "rm", &name]);
    world.host().ip(&["link", "show", "marker"]);
    assert_eq!(world.json(&["sandbox", "ls"]), serde_json::json!([]));
}

#[test]
fn a_shared_network_is_one_stack_with_one_host_name() {
    let world = world();
    world.network("net1", &[]);
    let owner = world.sandbox("owner", &["--network", "net1", "--hostname", "one"]);
    let guest = world.attach("guest", &["--network", "net1"]);
    let [first, second, third] = ["first", "second", "third"].map(|name| world.global_name(name));
    world.vswitch(&["sandbox", "create", &first, "--network", &format!("container:{}", owner.name)]);
    // Sharing with who shares is sharing with the same.
    world.vswitch(&["sandbox", "create", &second, "--network", &format!("container:{first}")]);
    world.vswitch(&["sandbox", "create", &third, "--network", "container:guest"]);
    for name in [&first, &second] {
        assert_eq!(mode(&world, name), format!("container:{}", owner.name));
        assert_eq!(interfaces(&world, name), ["lo", "eth0"]);
        assert_eq!(world.vswitch(&["exec", name, "--", "hostname"]), "one\n");
    }
    let address = guest.ipv4().to_string();
    world.vswitch(&["exec", &first, "--", "ping", "-c", "1", "-W", "5", &address]);
    // Networks that the owner is connected to later are everybody's.
    world.vswitch(&["network", "connect", "bridge", &owner.name]);
    assert_eq!(interfaces(&world, &second), ["lo", "eth0", "eth1"]);

    for command in ["connect", "disconnect"] {
        let refusal = world.refused(&["network", command, "bridge", &first]);
        let expected = format!("shares the network of {:?}", owner.name);
        assert!(refusal.message.contains(&expected), "{}", refusal.message);
    }
    for (command, owner, sharer) in
        [(&["sandbox", "rm"][..], owner.name.as_str(), &second), (&["detach"], "guest", &third)]
    {
        let refusal = world.refused(&[command, &[owner]].concat());
        assert!(refusal.message.contains(sharer), "{}", refusal.message);
    }
    world.vswitch(&["sandbox", "rm", &first, &second, &third]);
    assert!(owner.path.exists(), "the namespace is its owner's");
    world.vswitch(&["detach", "guest"]);
    world.vswitch(&["sandbox", "rm", &owner.name]);
    assert!(!owner.path.exists());
}

#[test]
fn lists_show_the_mode_of_who_has_no_endpoint() {
    let world = world();
    let owner = world.sandbox("owner", &[]);
    let shared = format!("container:{}", owner.name);
    for (name, network) in [("a", "none"), ("b", "host"), ("c", &shared)] {
        world.vswitch(&["sandbox", "create", &world.global_name(name), "--network", network]);
    }
    for command in [&["ps"][..], &["sandbox", "ls"]] {
        let table = world.vswitch(command);
        assert_eq!(table.lines().count(), 5, "{table}");
        for mode in ["none", "host", &shared, "bridge"] {
            assert!(table.contains(mode), "{command:?}: {table}");
        }
    }
    let endpoints = world.json(&["ps"]);
    assert_eq!(endpoints.as_array().map(Vec::len), Some(1), "{endpoints}");
}

#[test]
fn modes_that_make_no_sense_are_refused() {
    let world = world();
    world.network("net1", &[]);
    let tap = world.attach("taken", &["--network", "net1"]);
    let name = world.global_name("x");
    let before = [world.json(&["sandbox", "ls"]), world.json(&["ps"])];
    let cases: [(&[&str], &str); 12] = [
        (&["--network", "host", "--network", "net1"], "conflicting options: another network"),
        (&["--network", "net1", "--network", "none"], "conflicting options: another network"),
        (&["--network", "container:taken", "--network", "host"], "conflicting options: another network"),
        (&["--network", "host", "--ip", "10.1.0.9"], "conflicting options: an address"),
        (&["--network", "none", "--alias", "a"], "--network none"),
        (
            &["--network", "container:taken", "--mac-address", "02:00:00:00:00:01"],
            "--network container:taken",
        ),
        (&["--network", "container:taken", "--hostname", "h"], "conflicting options: a host name"),
        (&["--network", "container:nobody"], "\"nobody\" not found"),
        (&["--network", "container:"], "write container:NAME"),
        (
            &["--network", "name=net1,gw-priority=1", "--ip", "10.1.0.9"],
            "conflicting options: endpoint flags",
        ),
        (&["--network", "net1", "--network", "net1"], "already connected"),
        (&["--network", "net1", "--network", "nowhere"], "nowhere"),
    ];
    for (options, named) in cases {
        let refusal = world.refused(&[&["sandbox", "create", &name], options].concat());
        assert_eq!((refusal.code, refusal.message.lines().count()), (1, 1), "{}", refusal.message);
        assert!(refusal.message.contains(named), "{options:?} must say {named:?}: {}", refusal.message);
        assert_eq!(
            [world.json(&["sandbox", "ls"]), world.json(&["ps"])],
            before,
            "{options:?} left something"
        );
    }
    drop(tap);
}

#[test]
fn codes_of_modes_are_stable() {
    let world = world();
    let owner = world.sandbox("owner", &[]);
    let name = world.global_name("guest");
    let create = |networks: &str| Some(format!(r#"{{"Name": "{name}", "Networks": [{networks}]}}"#));
    let share = create(&format!(r#"{{"Network": "container:{}"}}"#, owner.name));
    let (status, made) = world.curl("POST", "/sandboxes/create", share.as_deref());
    assert_eq!((status, made["NetNS"].as_str()), (201, owner.path.to_str()), "{made}");
    let connect = format!(r#"{{"Container": "{name}"}}"#);
    let owner_path = format!("/sandboxes/{}", owner.name);
    let cases = [
        ("POST", "/networks/bridge/connect", Some(connect.clone()), 409, "network-mode"),
        ("POST", "/networks/bridge/disconnect", Some(connect), 409, "network-mode"),
        ("DELETE", owner_path.as_str(), None, 409, "sandbox-in-use"),
        (
            "POST",
            "/sandboxes/create",
            Some(r#"{"Name": "x", "Networks": [{"Network": "host"}, {"Network": "none"}]}"#.to_owned()),
            400,
            "invalid-argument",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let (found, answer) = world.curl(method, path, body.as_deref());
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
    }
}
