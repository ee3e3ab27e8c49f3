//! More flows to one destination than the host lends ports.

use std::net::{SocketAddr, UdpSocket};

use vswitch_tests::outside::{FAR, Outside};
use vswitch_tests::wait;
use vswitch_tests::web::{Visits, Web, visit};
use vswitch_tests::world::World;

use super::VSWITCH;

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

#[test]
fn questions_from_new_sockets_do_not_run_out_of_ports() {
    const QUESTIONS: usize = 25_000;
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let one = world.attach("one", &[]);
    let server = outside.namespace().inside(|| UdpSocket::bind(far(53))).expect("bind");
    server.set_read_timeout(Some(wait::DEADLINE)).expect("time-out");
    one.inside(|| {
        for number in 0..QUESTIONS {
            let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
            client.set_read_timeout(Some(wait::DEADLINE)).expect("time-out");
            client.send_to(b"question", far(53)).expect("send");
            let mut buffer = [0; 16];
            let (_, from) = server.recv_from(&mut buffer).expect("the question");
            server.send_to(b"answer", from).expect("send");
            assert_eq!(client.recv(&mut buffer).expect("the answer"), 6, "question {number}");
        }
    });
    assert_eq!(world.json(&["flows", "--count"])["Refused"], 0);
}
