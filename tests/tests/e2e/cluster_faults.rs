//! Clusters that are cut in two, and clients that do not wait: no address is lost, and none is given twice
//! in silence.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World, send_signal};

use super::VSWITCH;
use super::cluster::{Underlay, answers, container, look_up, removes, sees, span};
use super::cluster_networks::problems;

/// Whether a host has written something down.
fn journaled(world: &World, text: &str) -> bool {
    fs::read_to_string(world.state_dir().join("journal")).unwrap_or_default().contains(text)
}

/// Attaches a container with this address, if the host has it.
fn attach_at(world: &World, name: &str, address: &str) -> Result<Container, String> {
    let namespace = Namespace::new();
    let attach = ["attach", name, "--netns", namespace.name(), "--network", "wide", "--ip", address];
    let output = world.command(&attach).output().expect("vswitch starts");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(Container::attached(name, namespace)) } else { Err(message) }
}

/// Asks for something and hangs up before it is answered, while something that the answer needs is stopped.
fn ask_and_hang_up(world: &World, path: &str, body: &str) {
    let mut client = UnixStream::connect(world.socket()).expect("connects");
    let head = format!("POST {path} HTTP/1.1\r\nHost: vswitch\r\nContent-Type: application/json\r\n");
    write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
    // It has been read when the next ones are answered, and the end of the connection seen likewise.
    world.vswitch(&["network", "ls"]);
    world.vswitch(&["ps"]);
    drop(client);
    world.vswitch(&["network", "ls"]);
}

/// The body of a wish to attach a namespace at this address.
fn attach_body(namespace: &Namespace, address: &str) -> String {
    let path = namespace.path();
    let wish = format!(r#"{{"IPAMConfig":{{"IPv4Address":"{address}"}}}}"#);
    format!(r#"{{"Name":"b","NetNS":"{}","Network":"wide","EndpointConfig":{wish}}}"#, path.display())
}

#[test]
fn addresses_that_another_host_gave_to_a_client_that_hung_up_are_not_lost() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    let spare = Namespace::new();
    send_signal(worlds[0].control_pid(), Signal::SIGSTOP);
    ask_and_hang_up(&worlds[1], "/sandboxes/attach", &attach_body(&spare, "10.9.0.200"));
    send_signal(worlds[0].control_pid(), Signal::SIGCONT);
    wait::until("what was given is taken in", || journaled(&worlds[1], "/10.9.0.200").then_some(()));
    underlay.set(1, "down");
    let b = attach_at(&worlds[1], "b", "10.9.0.200").expect("it is this host's");
    assert_eq!(b.ipv4(), IpAddr::from([10, 9, 0, 200]));
}

#[test]
fn what_a_client_claimed_in_an_etcd_before_it_hung_up_is_not_lost() {
    let underlay = Underlay::new();
    underlay.bridge.ip(&["address", "add", "192.0.2.100/24", "dev", "br0"]);
    let etcd = Etcd::start(&underlay.bridge, "192.0.2.100");
    let arguments = ["--uplink", "none", "--cluster", &etcd.url(), "--cluster-host", "host1"];
    let world = World::start_with(VSWITCH, &arguments, |host| underlay.connect(host, 1)).0;
    wait::until("etcd is known", || {
        let created = world.command(&["network", "create", "first", "-d", "overlay"]).output();
        created.expect("vswitch starts").status.success().then_some(())
    });
    let while_stopped = |path: &str, body: &str| {
        etcd.signal(Signal::SIGSTOP);
        ask_and_hang_up(&world, path, body);
        etcd.signal(Signal::SIGCONT);
    };
    let subnet = r#"{"Config":[{"Subnet":"10.9.0.0/24"}]}"#;
    let network = format!(r#"{{"Name":"wide","Driver":"overlay","IPAM":{subnet}}}"#);
    while_stopped("/networks/create", &network);
    wait::until("the network is there", || world.vswitch(&["network", "ls"]).contains("wide").then_some(()));
    let spare = Namespace::new();
    while_stopped("/sandboxes/attach", &attach_body(&spare, "10.9.0.200"));
    wait::until("what was given is taken in", || journaled(&world, "/10.9.0.200").then_some(()));
}

#[test]
fn a_removed_network_that_somebody_is_on_comes_back_with_its_addresses() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    let own = attach_at(&worlds[1], "own", "10.9.0.200").expect("attached");
    drop(own);
    worlds[1].vswitch(&["detach", "own"]);
    wait::until("the other one knows", || {
        worlds[0].json(&["cluster", "ls"])["Hosts"]
            .as_array()
            .is_some_and(|hosts| hosts.iter().all(|host| host["Endpoints"] == 0))
            .then_some(())
    });
    underlay.set(2, "down");
    worlds.iter().for_each(|world| sees(world, 0));
    let b = attach_at(&worlds[1], "b", "10.9.0.200").expect("it is this host's");
    removes(&worlds[0]);
    assert!(!worlds[0].vswitch(&["network", "ls"]).contains("wide"));
    underlay.set(2, "up");
    worlds.iter().for_each(|world| sees(world, 1));
    wait::until("it is back", || worlds[0].vswitch(&["network", "ls"]).contains("wide").then_some(()));
    let a = wait::until("it has addresses", || attach_at(&worlds[0], "a", "10.9.0.50").ok());
    let c = container(&worlds[1], "c", &[]);
    answers(&a, b.ipv4());
    answers(&c, a.ipv4());
}

#[test]
fn a_host_that_was_given_up_while_it_was_cut_off_keeps_its_containers_and_all_see_what_two_have() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<3>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let b = container(&worlds[1], "b", &[]);
    let c = container(&worlds[2], "c", &[]);
    let d = container(&worlds[2], "d", &[]);
    answers(&a, c.ipv4());
    underlay.set(3, "down");
    sees(&worlds[2], 0);
    sees(&worlds[0], 1);
    // A host that is cut off gives up on nobody.
    let message = worlds[2].refused(&["cluster", "forget", "host1"]).message;
    assert!(message.contains("this host reaches 0 of 1 others") && message.contains("--force"), "{message}");
    worlds[0].vswitch(&["cluster", "forget", "host3"]);
    let address = c.ipv4().to_string();
    let twin = attach_at(&worlds[0], "twin", &address).expect("the address is this host's now");
    answers(&b, twin.ipv4());
    underlay.set(3, "up");
    worlds.iter().for_each(|world| sees(world, 2));
    for (world, own, other) in
        [(&worlds[0], "twin", "c on host host3"), (&worlds[2], "c", "twin on host host1")]
    {
        let line = format!("{address} is the address of {own} here and of {other}");
        wait::until("it is shown", || {
            problems(world).iter().any(|shown| shown.contains(&line)).then_some(())
        });
        assert!(world.logged().contains(&line), "{}", world.logged());
    }
    // The others' word holds, on every host; c's container is left alone, and d is found as ever.
    answers(&b, twin.ipv4());
    answers(&a, d.ipv4());
    answers(&d, c.ipv4());
    wait::until_equal("a name", &Some(d.ipv4()), || look_up(&b, "d"));
    // Neither address is given to anybody else, not even when its twin goes.
    let message = attach_at(&worlds[0], "third", &d.ipv4().to_string()).expect_err("taken");
    assert!(message.contains("is taken by d on host host3"), "{message}");
    worlds[0].vswitch(&["detach", "twin"]);
    let message = attach_at(&worlds[0], "third", &address).expect_err("taken");
    assert!(message.contains("is taken by c on host host3"), "{message}");
    answers(&b, c.ipv4());
    wait::until_equal("its name", &Some(c.ipv4()), || look_up(&b, "c"));
    for world in [&worlds[0], &worlds[2]] {
        wait::until_equal("nothing is wrong", &Vec::<String>::new(), || problems(world));
    }
}
