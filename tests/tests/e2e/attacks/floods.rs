//! One container sends as much as it can; the others go on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;
use simple_dns::{RCODE, TYPE};
use vswitch_frame::DropReason;
use vswitch_tests::names::{Answer, ask_stream, found};
use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{FAR, Outside};
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use super::super::{VSWITCH, world};

/// Containers that a flood reaches beside those that look at it.
const CROWD: usize = 24;
const BYTES: usize = 4 << 20;

/// Sends what `next` makes of a number, again and again, while `work` goes on.
fn flooded(from: &Container, mut next: impl FnMut(u32, [u8; 6]) -> Vec<u8> + Send, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let mut wire = Wire::open(&from.path, &from.ifname());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Relaxed) {
                wire.offer(&next(number, wire.mac));
                number = number.wrapping_add(1);
            }
        });
        // However the work ends, the flood does.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _end = End(&over);
        work();
    });
}

/// The datapath's process, and how often it had to be started.
fn datapath(world: &World) -> (u32, u64) {
    (world.datapath_pid(), world.restarts())
}

/// The sum of a container's drops but those that are its receiver's.
fn own_drops(world: &World, container: &Container) -> u64 {
    let counted =
        |(reason, count): (&String, &Value)| (!reason.starts_with("tx-")).then(|| count.as_u64())?;
    let counters = world.counters(container);
    let drops = counters["Drops"].as_object().into_iter().flatten();
    drops.filter_map(counted).sum()
}

/// Two containers exchange while a third floods and a crowd hears it: the flood is counted at who sends it,
/// and the datapath lives.
fn others_go_on(options: &[&str], next: impl FnMut(u32, [u8; 6]) -> Vec<u8> + Send) {
    let world = world();
    world.network("net1", options);
    let attach = |name: &str| world.attach(name, &["--network", "net1"]);
    let flooder = attach("flooder");
    let [a, b] = [attach("a"), attach("b")];
    let _crowd: Vec<Container> = (0..CROWD).map(|number| attach(&format!("c{number}"))).collect();
    a.pings(b.ipv4());
    let (before, dropped) = (datapath(&world), [own_drops(&world, &a), own_drops(&world, &b)]);
    let received = || world.counters(&flooder)["ReceivedFrames"].as_u64().unwrap_or(0);
    flooded(&flooder, next, || {
        wait::until("the flood", || (received() > 10_000).then_some(()));
        for _ in 0..3 {
            a.transfers(&b, b.ipv4(), BYTES);
            b.pings(a.ipv4());
        }
        // It has not been shut out either: alone, it has all that others leave.
        let then = received();
        wait::until("more of the flood", || (received() > then).then_some(()));
    });
    assert_eq!(datapath(&world), before);
    assert_eq!([own_drops(&world, &a), own_drops(&world, &b)], dropped, "nothing is counted at others");
}

#[test]
fn others_exchange_under_a_broadcast_flood() {
    let arp = |_, mac: [u8; 6]| {
        let body =
            [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &[10, 68, 0, 2], &[0; 6], &[10, 68, 3, 250]].concat();
        ethernet([0xff; 6], mac, 0x0806, &body)
    };
    others_go_on(&["--subnet", "10.68.0.0/22"], arp);
}

#[test]
fn others_exchange_under_a_flood_of_addresses() {
    let random = |number: u32, _: [u8; 6]| {
        let bytes = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let from = [&[2, 1][..], &bytes].concat().try_into().expect("six bytes");
        let to = [&[2, 2][..], &bytes].concat().try_into().expect("six bytes");
        ethernet(to, from, 0x88b5, &[0; 46])
    };
    others_go_on(&["-o", "vswitch.port_security=off"], random);
}

#[test]
fn absent_neighbours_do_not_starve_the_router() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--subnet", "10.69.0.0/24"]);
    let attach = |name: &str| world.attach(name, &["--network", "net1"]);
    let (scanner, other) = (attach("scanner"), attach("other"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = inside(&scanner.path, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("bind");
            while !over.load(Relaxed) {
                // Errors of the gateway's come back by the next send: they are no matter.
                for last in 10..250 {
                    let _ = socket.send_to(&[7; 100], (Ipv4Addr::new(203, 0, 113, last), 9));
                }
            }
        });
        let scanned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let missed = || world.drops(&scanner, DropReason::NoNeighbour);
            wait::until("packets that may not wait", || (missed() > 1000).then_some(()));
            // Nobody has needed the router yet.
            let listener = talk::listen(&outside.path(), FAR[0].parse().expect("an address"));
            let mut connection = talk::connect(&other.path, listener.local_addr().expect("bound"));
            let (mut incoming, _) = listener.accept().expect("accept");
            connection.write_all(b"hello").expect("send");
            let mut said = [0; 5];
            incoming.read_exact(&mut said).expect("receive");
            assert_eq!(world.drops(&other, DropReason::NoNeighbour), 0);
        }));
        over.store(true, Relaxed);
        scanned.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Connections to port 53 of a gateway on each of which a message came that is no question.
fn hold(container: &Container, gateway: Ipv4Addr) -> Vec<TcpStream> {
    let connect = || {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((gateway, 53)), wait::DEADLINE);
        let mut stream = stream.ok()?;
        stream.write_all(&[0, 6, 1, 2, 3, 4, 5, 6]).ok()?;
        Some(stream)
    };
    inside(&container.path, || (0..16).filter_map(|_| connect()).collect())
}

#[test]
fn names_are_answered_while_others_hold_every_connection() {
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 1);
    let world = world();
    world.network("lan", &["--subnet", "10.70.0.0/24"]);
    let holders: Vec<Container> =
        (0..5).map(|number| world.attach(&format!("h{number}"), &["--network", "lan"])).collect();
    let asker = world.sandbox("asker", &["--network", "lan"]);
    let questions = [(asker.name.as_str(), TYPE::A)];
    let answered = vec![found(&[&asker.ipv4().to_string()])];
    let streams: Vec<TcpStream> = holders.iter().flat_map(|holder| hold(holder, GATEWAY)).collect();
    assert!(streams.len() >= 64, "{} connections", streams.len());
    let ask = || -> Vec<Answer> { ask_stream(&asker.path, GATEWAY.into(), &questions) };
    assert_eq!(ask(), answered);
    assert!(ask().iter().all(|answer| answer.code == RCODE::NoError));
    // They were no questions, so nobody waits for their answers.
    for mut stream in streams {
        stream.set_read_timeout(Some(wait::DEADLINE)).expect("a time-out");
        let ended = match stream.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ended);
    }
}
