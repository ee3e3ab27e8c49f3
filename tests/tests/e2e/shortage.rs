//! More flows to one destination than the host lends ports.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use vswitch_tests::outside::{FAR, Outside};
use vswitch_tests::web::{Visits, Web, visit};
use vswitch_tests::world::World;

use super::VSWITCH;

/// Time after which a question is lost.
const PATIENCE: Duration = Duration::from_secs(5);

fn far(port: u16) -> SocketAddr {
    SocketAddr::new(FAR[0].parse().expect("an address"), port)
}

#[test]
fn short_connections_to_one_destination_do_not_run_out_of_ports() {
    const VISITS: u32 = 25_000;
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let [one, two] = ["one", "two"].map(|name| world.attach(name, &[]));
    let web = Web::serve(&outside.path(), far(80));
    let visits = visit(&one.path, web.address(), VISITS, 50);
    assert_eq!(visits, Visits { complete: u64::from(VISITS), failed: 0 });
    let other = visit(&two.path, web.address(), 500, 10);
    assert_eq!(other, Visits { complete: 500, failed: 0 }, "what one does costs the other nothing");
    let count = world.json(&["flows", "--count"]);
    assert!(count["Recycled"].as_u64() > Some(0), "{count}");
}

/// Asks from new sockets, one after another; how many got no answer.
fn ask(questions: usize) -> usize {
    let unanswered = (0..questions).filter(|_| {
        let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
        client.set_read_timeout(Some(PATIENCE)).expect("time-out");
        client.connect(far(53)).expect("connect");
        client.send(b"question").expect("send");
        client.recv(&mut [0; 16]).is_err()
    });
    unanswered.count()
}

#[test]
fn questions_from_new_sockets_do_not_run_out_of_ports() {
    const THREADS: usize = 50;
    const EACH: usize = 1000;
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let one = world.attach("one", &[]);
    let server = outside.namespace().inside(|| UdpSocket::bind(far(53))).expect("bind");
    let answering = thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            if length == 0 {
                break;
            }
            server.send_to(b"answer", from).expect("send");
        }
    });
    let unanswered: usize = thread::scope(|scope| {
        let askers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| one.inside(|| ask(EACH)))).collect();
        askers.into_iter().map(|asker| asker.join().expect("no panic")).sum()
    });
    let drops = &world.counters(&one)["Drops"];
    let count = world.json(&["flows", "--count"]);
    outside.namespace().inside(|| UdpSocket::bind("0.0.0.0:0")?.send_to(&[], far(53))).expect("send");
    answering.join().expect("no panic");
    assert_eq!(
        (unanswered, &count["Refused"]),
        (0, &0.into()),
        "{count} {drops} {}",
        world.vswitch(&["stats"])
    );
}
