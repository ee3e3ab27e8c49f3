//! Uplinks that go and come back, under connections of real programs.

use std::net::{SocketAddr, UdpSocket};

use vswitch_tests::namespace::Namespace;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS, UPLINK};
use vswitch_tests::wait;
use vswitch_tests::web::{Visits, Web, visit};
use vswitch_tests::world::{Container, World};

use super::VSWITCH;

/// Visits that need more ports than are claimed at first.
const VISITS: u32 = 1000;
/// Questions that are asked after each change.
const QUESTIONS: usize = 50;

/// The world with a server of pages and one that answers datagrams.
struct Servers {
    web: Web,
    echo: UdpSocket,
}

impl Servers {
    fn start(outside: &Outside) -> Self {
        let far = |port| SocketAddr::new(FAR[0].parse().expect("an address"), port);
        let echo = outside.namespace().inside(|| UdpSocket::bind(far(53))).expect("bind");
        echo.set_read_timeout(Some(wait::DEADLINE)).expect("time-out");
        Self { web: Web::serve(&outside.path(), far(80)), echo }
    }

    /// Has a container visit, and ask questions, each from a socket of its own: all must get through.
    fn serve(&self, container: &Container, when: &str) {
        let visits = visit(&container.path, self.web.address(), VISITS, 20);
        assert_eq!(visits, Visits { complete: u64::from(VISITS), failed: 0 }, "{when}");
        let to = self.echo.local_addr().expect("bound");
        for number in 0..QUESTIONS {
            let client = container.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
            client.set_read_timeout(Some(wait::DEADLINE)).expect("time-out");
            client.send_to(b"question", to).expect("send");
            let mut buffer = [0; 16];
            let (_, from) = self.echo.recv_from(&mut buffer).expect("the question");
            self.echo.send_to(b"answer", from).expect("send");
            let heard = client.recv(&mut buffer);
            assert_eq!(heard.expect("the answer"), 6, "question {number} {when}");
        }
    }
}

/// Both sides have the same claims, and nobody was refused.
fn agree(world: &World, when: &str) {
    assert!(
        !world.logged().contains("ports are claimed, and the datapath uses"),
        "{when}: {}",
        world.logged()
    );
    let count = world.json(&["flows", "--count"]);
    assert_eq!(count["Refused"], 0, "{when}: {count}");
    // Descriptors of control: one for each claim, and some hundred others.
    let claimed = usize::try_from(count["PortsClaimed"].as_u64().expect("a number")).expect("few");
    let folder = format!("/proc/{}/fd", world.control_pid());
    let held = std::fs::read_dir(folder).expect("its descriptors").count();
    assert!((claimed..claimed + 200).contains(&held), "{when}: {held} descriptors, {claimed} claims");
}

/// Waits until the first ping gets through again.
fn wait_for_a_way_out(container: &Container) {
    let far = FAR[0].parse().expect("an address");
    wait::until("a way out", || vswitch_tests::talk::answers(&container.path, far).then_some(()));
}

fn change(host: &Namespace, commands: &[&[&str]]) {
    commands.iter().for_each(|words| drop(host.ip(words)));
}

#[test]
fn an_uplink_may_do_what_it_likes_and_containers_reach_the_world_afterwards() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let container = world.attach("one", &[]);
    let servers = Servers::start(&outside);
    servers.serve(&container, "at first");
    agree(&world, "at first");
    let (address, other) = (format!("{}/24", HOST[0]), "203.0.113.77/24");
    let route = ["route", "replace", "default", "via", ROUTERS[0]];
    let (down, up) = (["link", "set", UPLINK, "down"], ["link", "set", UPLINK, "up"]);
    let steps: [(&str, &[&[&str]]); 4] = [
        ("after it was down", &[&down, &up, &route]),
        ("with another MTU", &[&["link", "set", UPLINK, "mtu", "1400"]]),
        (
            "by another name",
            &[&down, &["link", "set", UPLINK, "name", "other0"], &["link", "set", "other0", "up"], &route],
        ),
        (
            "with another address",
            &[
                &["address", "delete", &address, "dev", "other0"],
                &["address", "add", other, "dev", "other0"],
                &route,
            ],
        ),
    ];
    for (when, commands) in steps {
        change(world.host(), commands);
        wait_for_a_way_out(&container);
        servers.serve(&container, when);
        agree(&world, when);
    }
    change(world.host(), &[&["address", "delete", other, "dev", "other0"]]);
    change(world.host(), &[&["address", "add", &address, "dev", "other0"], &route]);
    wait_for_a_way_out(&container);
    servers.serve(&container, "with its first address again");
    agree(&world, "with its first address again");
}

#[test]
fn an_uplink_may_be_deleted_and_made_again() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let container = world.attach("one", &[]);
    let servers = Servers::start(&outside);
    servers.serve(&container, "at first");
    drop(servers);
    world.host().ip(&["link", "delete", UPLINK]);
    let again = Outside::behind(world.host());
    wait_for_a_way_out(&container);
    Servers::start(&again).serve(&container, "made again");
    agree(&world, "made again");
    drop(outside);
}
