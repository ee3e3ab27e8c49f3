//! Networks as Docker users know them: making, listing, inspecting, pruning, options, refusals.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};
use vswitch_tests::world::World;

use super::world;

/// The names of the networks that `network ls` shows with these arguments.
fn names(world: &World, arguments: &[&str]) -> Vec<String> {
    let networks = world.json(&[&["network", "ls"], arguments].concat());
    let networks = networks.as_array().cloned().unwrap_or_default();
    networks.iter().map(|network| network["Name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn inspect(world: &World, name: &str) -> Value {
    world.json(&["network", "inspect", name])[0].clone()
}

/// The MTU and the addresses of an interface, as `ip -j address` tells; `None` without it.
fn link(addresses: &str, interface: &str) -> Option<(u64, Vec<String>)> {
    let all: Value = serde_json::from_str(addresses).expect("JSON");
    let found = all.as_array()?.iter().find(|link| link["ifname"] == interface)?.clone();
    let infos = found["addr_info"].as_array().cloned().unwrap_or_default();
    let global = infos.iter().filter(|info| info["scope"] == "global");
    let addresses =
        global.map(|info| format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"]));
    Some((found["mtu"].as_u64()?, addresses.collect()))
}

#[test]
fn inspect_shows_what_docker_shows() {
    let world = world();
    let options = ["--subnet", "10.1.0.0/24", "--ip-range", "10.1.0.64/26", "--aux-address", "nas=10.1.0.9"];
    let more = ["--subnet", "fd00:1::/64", "--internal", "--attachable", "--scope", "local", "-d", "bridge"];
    let labels = ["--label", "owner=me", "-o", "com.docker.network.driver.mtu=1400"];
    world.network("lan", &[&options[..], &more, &labels].concat());
    let a = world.attach("a", &["--network", "lan", "--ip", "10.1.0.5"]);
    let shown = inspect(&world, "lan");
    let endpoint = &world.json(&["ps"])[0];
    let sandbox = &world.json(&["sandbox", "inspect", "a"])[0];
    let expected = json!({
        "Name": "lan",
        "Id": shown["Id"],
        "Created": shown["Created"],
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": true,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": "10.1.0.0/24",
                    "Gateway": "10.1.0.1",
                    "IPRange": "10.1.0.64/26",
                    "AuxiliaryAddresses": {"nas": "10.1.0.9"}
                },
                {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"}
            ]
        },
        "Internal": true,
        "Attachable": true,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {
            sandbox["Id"].as_str().expect("an identifier"): {
                "Name": "a",
                "EndpointID": endpoint["EndpointID"],
                "MacAddress": a.mac().to_string(),
                "IPv4Address": "10.1.0.5/24",
                "IPv6Address": format!("{}/64", a.ipv6())
            }
        },
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"owner": "me"}
    });
    assert_eq!(shown, expected);
    assert_eq!(shown["Id"].as_str().map(str::len), Some(64));
}

#[test]
fn filters_choose_what_is_listed() {
    let world = world();
    world.network("lan-one", &["--label", "owner=me", "--label", "test"]);
    world.network("lan-two", &["--label", "owner=you"]);
    let container = world.attach("a", &["--network", "lan-two"]);
    let id = inspect(&world, "lan-one")["Id"].as_str().expect("an identifier").to_owned();
    let by_id = format!("id={}", &id[..20]);
    let cases: [(&[&str], &[&str]); 11] = [
        (&[], &["bridge", "host", "lan-one", "lan-two", "none"]),
        (&["-f", "type=custom"], &["lan-one", "lan-two"]),
        (&["-f", "type=builtin"], &["bridge", "host", "none"]),
        (&["-f", "name=lan", "-f", "name=host"], &["host", "lan-one", "lan-two"]),
        (&["-f", "name=lan", "-f", "label=owner"], &["lan-one", "lan-two"]),
        (&["-f", "label=owner=me"], &["lan-one"]),
        (&["-f", "label=owner", "-f", "label=test"], &["lan-one"]),
        (&["-f", "driver=null"], &["none"]),
        (&["-f", &by_id], &["lan-one"]),
        (&["-f", "scope=swarm"], &[]),
        (&["-f", "dangling=true"], &["lan-one"]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(names(&world, arguments), expected, "{arguments:?}");
    }
    let (status, found) = world.curl("GET", "/networks?filters=%7B%22name%22%3A%5B%22lan-one%22%5D%7D", None);
    assert_eq!((status, &found[0]["Name"], found[1].is_null()), (200, &json!("lan-one"), true));
    assert_eq!(world.vswitch(&["network", "ls", "-q", "-f", "name=lan-one"]), format!("{}\n", &id[..12]));
    let arguments = ["network", "ls", "--quiet", "--no-trunc", "--filter", "name=lan-one"];
    assert_eq!(world.vswitch(&arguments), format!("{id}\n"));
    assert!(world.vswitch(&["network", "ls", "--no-trunc"]).contains(&id));
    drop(container);
}

#[test]
fn prune_removes_what_is_unused_and_matches() {
    let world = world();
    for (name, label) in [("keep", "keep"), ("used", "x"), ("old", "x"), ("other", "y")] {
        world.network(name, &["--label", label]);
    }
    let container = world.attach("a", &["--network", "used"]);
    let custom = |world: &World| names(world, &["-f", "type=custom"]);
    let mut asked = world.command(&["network", "prune"]);
    let mut asked = asked.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    asked.stdin.take().expect("piped").write_all(b"n\n").expect("an answer");
    let output = asked.wait_with_output().expect("its end");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("[y/N]"));
    assert_eq!(world.vswitch(&["network", "prune", "-f", "--filter", "until=1h"]), "");
    assert_eq!(custom(&world), ["keep", "old", "other", "used"]);
    let pruned = world.vswitch(&["network", "prune", "--force", "--filter", "label=x"]);
    assert_eq!(pruned, "Deleted Networks:\nold\n");
    let answer = world.curl("POST", "/networks/prune?filters=%7B%22label%21%22%3A%5B%22keep%22%5D%7D", None);
    assert_eq!(answer, (200, json!({"NetworksDeleted": ["other"]})));
    assert_eq!(custom(&world), ["keep", "used"]);
    world.vswitch(&["detach", "a"]);
    world.vswitch(&["network", "prune", "-f"]);
    assert_eq!(names(&world, &[]), ["bridge", "host", "none"]);
    drop(container);
}

#[test]
fn names_and_beginnings_of_identifiers_work_and_several_at_once() {
    let world = world();
    world.network("one", &[]);
    world.network("two", &[]);
    let id = inspect(&world, "one")["Id"].as_str().expect("an identifier").to_owned();
    assert_eq!(inspect(&world, &id)["Name"], "one");
    assert_eq!(inspect(&world, &id[..16])["Name"], "one");
    let host = inspect(&world, "host");
    assert_eq!(inspect(&world, host["Id"].as_str().expect("an identifier")), host);
    let output = world.command(&["network", "inspect", "two", "nowhere", "one"]).output().expect("it starts");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown[0]["Name"], &shown[1]["Name"]), (&json!("two"), &json!("one")));
    assert_eq!(output.status.code(), Some(1));
    let output =
        world.command(&["network", "rm", "nowhere", &id[..16], "bridge", "two"]).output().expect("rm");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\ntwo\n", &id[..16]));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 2);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(&world, &["-f", "type=custom"]), Vec::<String>::new());
}

#[test]
fn the_way_out_gives_the_mtu() {
    let world = world();
    let host = world.host();
    host.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
    host.ip(&["link", "set", "up0", "mtu", "1400", "up"]);
    host.ip(&["link", "set", "up1", "up"]);
    host.ip(&["address", "add", "192.0.2.1/24", "dev", "up0"]);
    host.ip(&["route", "add", "default", "via", "192.0.2.254"]);
    world.network("derived", &[]);
    world.network("chosen", &["-o", "com.docker.network.driver.mtu=1500"]);
    let mtu = |name: &str| inspect(&world, name)["Options"]["com.docker.network.driver.mtu"].clone();
    assert_eq!((mtu("derived"), mtu("chosen"), mtu("bridge")), (json!("1400"), json!("1500"), Value::Null));
    for (name, expected) in [("derived", 1400), ("chosen", 1500)] {
        let container = world.attach(name, &["--network", name]);
        assert_eq!(container.interface()["mtu"], expected);
    }
}

#[test]
fn options_of_a_network_take_effect() {
    let world = world();
    let option = |text: &str| format!("com.docker.network.bridge.{text}");
    world.network("named", &["--subnet", "10.1.0.0/24", "-o", &option("name=lan0")]);
    let shared = ["--subnet", "10.2.0.0/24", "--subnet", "fd00:2::/64", "-o", &option("inhibit_ipv4=true")];
    world.network("inhibited", &[&shared[..], &["-o", &option("name=lan1")]].concat());
    let isolated = [option("gateway_mode_ipv4=isolated"), option("name=lan2")];
    world.network("isolated", &["--internal", "-o", &isolated[0], "-o", &isolated[1]]);
    let addresses = world.host().ip(&["-j", "address"]);
    assert_eq!(link(&addresses, "lan0"), Some((1500, vec!["10.1.0.1/24".to_owned()])));
    assert_eq!(link(&addresses, "lan1"), Some((1500, vec!["fd00:2::1/64".to_owned()])));
    assert_eq!(link(&addresses, "lan2"), None);
    let prefix = "com.docker.network.container_iface_prefix=net";
    world.network("prefixed", &["-o", prefix, "-o", "com.docker.network.internal=true"]);
    let mac = "com.docker.network.endpoint.macaddress=02:00:00:00:00:07";
    let container = world.attach("a", &["--network", "prefixed", "--driver-opt", mac]);
    assert_eq!(
        (container.ifname().as_str(), container.mac().to_string().as_str()),
        ("net0", "02:00:00:00:00:07")
    );
    assert_eq!(container.ip(&["route", "show", "default"]), "");
    assert_eq!(inspect(&world, "prefixed")["Internal"], true);
}

#[test]
fn the_predefined_networks_are_there_and_stay() {
    let world = world();
    let container = world.attach("a", &[]);
    let drivers: Vec<Value> =
        ["bridge", "host", "none"].iter().map(|name| inspect(&world, name)["Driver"].clone()).collect();
    assert_eq!(drivers, ["bridge", "host", "null"]);
    let bridge = inspect(&world, "bridge");
    assert_eq!(bridge["Options"], json!({"com.docker.network.bridge.name": "vsw0"}));
    for name in ["host", "none"] {
        let path = format!("/networks/{name}");
        let (status, answer) = world.curl("DELETE", &path, None);
        assert_eq!((status, &answer["code"]), (403, &json!("network-predefined")), "{answer}");
        let (status, answer) = world.curl("POST", &format!("{path}/connect"), Some(r#"{"Container": "a"}"#));
        assert_eq!((status, &answer["code"]), (403, &json!("network-predefined")), "{answer}");
    }
    drop(container);
}

#[test]
fn networks_that_make_no_sense_are_refused() {
    let world = world();
    world.network("taken", &["--subnet", "10.1.0.0/24", "-o", "com.docker.network.bridge.name=lan0"]);
    let before = world.json(&["network", "ls"]);
    let config = |config: &str| format!(r#""IPAM": {{"Config": [{config}]}}"#);
    let option = |key: &str, value: &str| format!(r#""Options": {{"com.docker.network.{key}": "{value}"}}"#);
    let cases = [
        (
            config(r#"{"Subnet": "10.1.0.128/25"}"#),
            409,
            "pool-overlap",
            "Pool overlaps with other one on this address space",
        ),
        (
            config(r#"{"Subnet": "10.2.0.0/24"}, {"Subnet": "10.2.0.0/25"}"#),
            409,
            "pool-overlap",
            "10.2.0.0/25",
        ),
        (config(r#"{"Subnet": "10.2.0.7/24"}"#), 400, "invalid-argument", "10.2.0.0/24"),
        (config(r#"{"Subnet": "224.0.0.0/24"}"#), 400, "invalid-argument", "224.0.0.0/24"),
        (config(r#"{"Subnet": "0.0.0.0/8"}"#), 409, "pools-exhausted", "/16"),
        (config(r#"{"Subnet": "ten"}"#), 400, "malformed-json", "ten"),
        (config(r#"{"Gateway": "10.2.0.1"}"#), 400, "invalid-argument", "--subnet"),
        (config(r#"{"Subnet": "10.2.0.0/24", "Gateway": "10.3.0.1"}"#), 400, "address-outside", "10.3.0.1"),
        (
            config(r#"{"Subnet": "10.2.0.0/24", "IPRange": "10.3.0.0/25"}"#),
            400,
            "address-outside",
            "10.3.0.0/25",
        ),
        (
            config(
                r#"{"Subnet": "10.2.0.0/24", "Gateway": "10.2.0.9", "AuxiliaryAddresses": {"a": "10.2.0.9"}}"#,
            ),
            409,
            "address-in-use",
            "Address already in use",
        ),
        (r#""EnableIPv4": false"#.to_owned(), 400, "invalid-argument", "IPv6"),
        (r#""IPAM": {"Driver": "dhcp"}"#.to_owned(), 400, "unknown-driver", "dhcp"),
        (r#""IPAM": {"Options": {"a": "b"}}"#.to_owned(), 400, "unknown-option", "a"),
        (r#""Driver": "macvlan""#.to_owned(), 400, "unknown-driver", "macvlan"),
        (r#""Scope": "swarm""#.to_owned(), 400, "invalid-argument", "swarm"),
        (r#""Ingress": true"#.to_owned(), 400, "invalid-argument", "ingress"),
        (r#""ConfigOnly": true"#.to_owned(), 400, "invalid-argument", "--config-only"),
        (r#""ConfigFrom": {"Network": "y"}"#.to_owned(), 400, "invalid-argument", "--config-from"),
        (option("bridge.gateway_mode_ipv4", "isolated"), 400, "invalid-argument", "--internal"),
        (option("bridge.gateway_mode_ipv6", "open"), 400, "invalid-argument", "open"),
        (option("bridge.host_binding_ipv4", "::"), 400, "invalid-argument", "::"),
        (option("bridge.trusted_host_interfaces", "a/b"), 400, "invalid-argument", "a/b"),
        (option("bridge.name", "lan0"), 409, "interface-in-use", "lan0"),
        (option("host_ipv4", "here"), 400, "invalid-argument", "here"),
        (option("driver.mtux", "9"), 400, "unknown-option", "com.docker.network.driver.mtu"),
    ];
    for (body, status, code, named) in cases {
        let body = format!(r#"{{"Name": "x", {body}}}"#);
        let (found, answer) = world.curl("POST", "/networks/create", Some(&body));
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{body}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(named) && !message.contains('\n'), "{body}: {message}");
        assert_eq!(world.json(&["network", "ls"]), before, "{body} left something");
    }
    for (path, named) in
        [("/networks?filters=x", "filters"), ("/networks?filters=%7B%22a%22%3A%5B%5D%7D", "\"a\"")]
    {
        let (status, answer) = world.curl("GET", path, None);
        assert_eq!(status, 400, "{answer}");
        assert!(answer["message"].as_str().unwrap_or_default().contains(named), "{answer}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_with_one_line() {
    let world = world();
    world.network("taken", &["--subnet", "10.1.0.0/24"]);
    let container = world.attach("a", &[]);
    let before = (world.json(&["network", "ls"]), world.json(&["ps"]));
    let cases = [
        ("network create x --subnet 10.3.0.0/24 --ip-range 10.4.0.0/25", "10.4.0.0/25"),
        ("network create x --subnet 10.3.0.0/24 --aux-address nas=10.4.0.1", "10.4.0.1"),
        ("network create x --subnet 10.3.0.0/24 --gateway 10.3.0.1 --gateway 10.3.0.2", "10.3.0.2"),
        ("network create x --ipv4=false", "IPv6"),
        ("network create x --ipv6=false --subnet fd00:3::/64", "switched off"),
        ("network create x --scope swarm", "swarm"),
        ("network create x --config-from taken", "--config-from"),
        ("network create x --ipam-driver dhcp", "dhcp"),
        ("network create x --ipam-opt a=b", "IPAM option a"),
        ("network create host", "host"),
        ("network ls -f colour=red", "colour"),
        ("network ls -f type=any", "type=any"),
        ("network prune -f --filter until=soon", "soon"),
        ("network rm none", "none"),
        ("network connect host a", "host"),
        ("network connect taken a --ip 10.1.0.1", "10.1.0.1"),
        ("network connect taken a --driver-opt com.docker.network.endpoint.sysctls=a=b", "IFNAME"),
        ("network connect taken a --driver-opt com.docker.network.endpoint.macaddress=02", "macaddress=02"),
        ("network connect taken a --driver-opt com.docker.network.advertise_addr_ms=9", "100 to 2000"),
    ];
    for (command, named) in cases {
        let refusal = world.refused(&command.split(' ').collect::<Vec<_>>());
        assert_eq!((refusal.code, refusal.message.lines().count()), (1, 1), "{command}: {}", refusal.message);
        assert!(refusal.message.contains(named), "{command} must name {named}: {}", refusal.message);
        assert_eq!((world.json(&["network", "ls"]), world.json(&["ps"])), before, "{command} left something");
    }
    drop(container);
}
