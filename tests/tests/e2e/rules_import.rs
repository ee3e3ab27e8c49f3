//! A chain of iptables, as iptables itself prints it, becomes rules.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use vswitch_tests::namespace::{Namespace, inside, must};
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS};
use vswitch_tests::talk;
use vswitch_tests::world::World;

use super::VSWITCH;

/// The file of a chain `DOCKER-USER` of these rules, as `iptables-save` or `ip6tables-save` prints it.
fn saved(world: &World, tool: &str, rules: &[&[&str]]) -> String {
    let namespace = Namespace::new();
    let run = |name: &str, words: &[&str]| inside(&namespace.path(), || must(Command::new(name).args(words)));
    run(tool, &["-N", "DOCKER-USER"]);
    for rule in rules {
        run(tool, &[&["-A", "DOCKER-USER"][..], rule].concat());
    }
    let path = std::env::temp_dir().join(format!("{}-{tool}", world.host().name()));
    fs::write(&path, run(&format!("{tool}-save"), &[])).expect("written");
    path.display().to_string()
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_chain_is_imported_whole_and_does_what_it_did() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "5353:53/udp"]);
    let lines = [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-i up0 ! -s 192.0.2.0/24 -p udp -m conntrack --ctorigdstport 5353 -j DROP",
        "-p tcp -m multiport --dports 22,80,8000:8080 -m limit --limit 10/second --limit-burst 20 \
         -m comment --comment slowly -j ACCEPT",
        "-p tcp --syn -m multiport --dports 22,80,8000:8080 -j REJECT --reject-with tcp-reset",
        "-p sctp ! --dport 80 -o up+ -j DROP",
        "-j RETURN",
    ];
    let rules: Vec<Vec<&str>> = lines.iter().map(|line| words(line)).collect();
    let file = saved(&world, "iptables", &rules.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let shown = world.vswitch(&["rule", "import", "--dry-run", &file]);
    assert_eq!(shown.lines().count(), 6, "{shown}");
    assert!(shown.contains("!192.0.2.0/24") && shown.contains("10/second burst 20"), "{shown}");
    assert_eq!(world.json(&["rule", "ls"]), serde_json::json!([]), "only shown");
    let last = world.vswitch(&["rule", "add", "--proto", "icmpv6", "--action", "drop"]);
    let before = ["rule", "import", "--before", last.trim(), &file];
    assert_eq!(world.vswitch(&before).lines().count(), 5);
    let rules = world.json(&["rule", "ls"]);
    let actions: Vec<&str> =
        rules.as_array().expect("a list").iter().filter_map(|rule| rule["Action"].as_str()).collect();
    assert_eq!(actions, ["accept", "drop", "accept", "reject", "drop", "drop"], "{rules}");
    assert_eq!((&rules[1]["PublishedPort"], &rules[2]["Comment"]), (&"5353".into(), &"slowly".into()));
    let socket = talk::bind_at(&web.path, ([0; 4], 53).into());
    socket.set_read_timeout(Some(Duration::from_millis(400))).expect("timeout");
    for (from, arrives) in [(ROUTERS[0], false), (FAR[0], true)] {
        let (from, host): (IpAddr, IpAddr) =
            (from.parse().expect("an address"), HOST[0].parse().expect("an address"));
        let client = inside(&outside.path(), || UdpSocket::bind((from, 0))).expect("bind");
        client.send_to(b"hello", (host, 5353)).expect("send");
        assert_eq!(socket.recv_from(&mut [0; 16]).is_ok(), arrives, "{from}");
    }
    web.pings(FAR[0].parse().expect("an address"));
    fs::remove_file(file).expect("removed");
}

#[test]
fn a_chain_that_cannot_be_expressed_is_refused_line_by_line() {
    let world = super::world();
    let rules: [&[&str]; 4] = [
        &["-s", "2001:db8::/32", "-j", "DROP"],
        &["-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"],
        &["-p", "icmpv6", "-j", "ACCEPT"],
        &["-p", "gre", "-m", "comment", "--comment", "a tunnel", "-j", "DROP"],
    ];
    let file = saved(&world, "ip6tables", &rules);
    let refusal = world.refused(&["rule", "import", &file]);
    let lines: Vec<&str> = refusal.message.lines().collect();
    assert_eq!((refusal.code, lines.len()), (1, 3), "{}", refusal.message);
    assert_eq!(lines[0], "vswitch: 2 of 4 lines cannot be imported, and none was:");
    assert!(lines[1].contains("--ctstate INVALID -j DROP: ") && lines[2].contains("\"a tunnel\" -j DROP: "));
    assert_eq!(world.json(&["rule", "ls"]), serde_json::json!([]), "all or nothing");
    let without: String = fs::read_to_string(&file)
        .expect("a file")
        .lines()
        .filter(|line| !line.contains("gre") && !line.contains("INVALID"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&file, without).expect("written");
    world.vswitch(&["rule", "import", &file]);
    let rules = world.json(&["rule", "ls"]);
    assert_eq!(
        (&rules[0]["From"], &rules[1]["Protocol"]),
        (&"2001:db8::/32".into(), &"icmpv6".into()),
        "{rules}"
    );
    fs::remove_file(file).expect("removed");
}
