//! TCP: real clients on loopback, a simulated container.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proptest::prelude::*;
use smoltcp::socket::tcp::State;
use vswitch_proxy::limits::BUFFER_MIN;
use vswitch_proxy::{Limits, Refused};
use vswitch_sys::stream::prepare;

use crate::world::{World, binding};

pub(crate) const CONTAINER: &str = "172.17.0.2";

pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    prepare(listener.as_fd()).expect("options");
    listener
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n * 31 % 251).expect("a byte")).collect()
}

/// Reads as a client that does not block: some bytes, the end (`None` and no error), or nothing yet.
pub(crate) fn read(client: &mut TcpStream, into: &mut Vec<u8>) -> Result<bool, ErrorKind> {
    let mut room = [0; 65_536];
    match client.read(&mut room) {
        Ok(0) => Ok(true),
        Ok(length) => {
            into.extend(&room[..length]);
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.kind()),
    }
}

/// The only connection's stack, once the container has accepted it.
pub(crate) fn accepted(world: &mut World) -> SocketAddr {
    world.until(|world| {
        let (source, stack) = world.stacks.iter_mut().next()?;
        (stack.socket().state() == State::Established).then_some(*source)
    })
}

/// Sends `question` and then its end; the container answers `answer` after that end. Checks that both arrive.
fn converse(world: &mut World, client: &mut TcpStream, source: SocketAddr, question: &[u8], answer: &[u8]) {
    let (mut sent, mut asked) = (0, Vec::new());
    world.until(|world| {
        if sent < question.len() {
            sent += client.write(&question[sent..]).unwrap_or(0);
            if sent == question.len() {
                client.shutdown(Shutdown::Write).expect("end");
            }
        }
        let stack = world.stacks.get_mut(&source).expect("connected");
        asked.extend(stack.read());
        (stack.socket().state() == State::CloseWait && !stack.socket().can_recv()).then_some(())
    });
    assert!(asked == question, "the question arrives as sent");
    let (mut sent, mut answered) = (0, Vec::new());
    world.until(|world| {
        let socket = world.stacks.get_mut(&source).expect("connected").socket();
        if sent < answer.len() {
            sent += socket.send_slice(&answer[sent..]).unwrap_or(0);
        } else {
            socket.close();
        }
        read(client, &mut answered).expect("no reset").then_some(())
    });
    assert!(answered == answer, "the answer arrives as sent");
    world.until(|world| (world.proxy.counts().relays == 0).then_some(()));
    assert_eq!((world.proxy.counts().ended, world.proxy.counts().broken), (1, 0));
}

#[test]
fn an_end_is_carried_through_and_the_other_direction_goes_on() {
    let mut world = World::new(Limits::default());
    world.window = 1 << 20;
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    assert_eq!(source.ip().to_string(), "172.17.0.1", "the gateway speaks for loopback");
    converse(&mut world, &mut client, source, &pattern(3_000_000), &pattern(2_000_000));
    assert!(world.largest > 32_000, "super-frames: {}", world.largest);
}

#[test]
fn a_client_of_the_other_family_reaches_the_container() {
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("listen");
    for (listener, container, seen) in [(six, CONTAINER, "172.17.0.1"), (listen(), "fd00::2", "fd00::1")] {
        let mut world = World::new(Limits::default());
        let (mut client, _) = world.connect(&listener, binding(container));
        let source = accepted(&mut world);
        assert_eq!(source.ip().to_string(), seen);
        converse(&mut world, &mut client, source, &pattern(100_000), &pattern(200_000));
    }
}

#[test]
fn a_routable_client_is_seen_by_the_container() {
    let mut world = World::new(Limits::default());
    let listener = listen();
    let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    client.set_nonblocking(true).expect("non-blocking");
    let (stream, _) =
        vswitch_sys::stream::Stream::accept(std::os::fd::AsFd::as_fd(&listener)).expect("accept");
    let routable: SocketAddr = "198.51.100.7:1234".parse().expect("address");
    // As a socket of both families shows it.
    let mapped: SocketAddr = "[::ffff:198.51.100.7]:1234".parse().expect("address");
    world.accept(binding(CONTAINER), stream, mapped).expect("relayed");
    assert_eq!(accepted(&mut world), routable);
    converse(&mut world, &mut client, routable, &pattern(1000), &pattern(1000));
}

#[test]
fn a_container_that_does_not_listen_resets_the_client() {
    let mut world = World::new(Limits::default());
    world.listens = false;
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!((world.proxy.counts().relays, world.proxy.counts().broken), (0, 1));
}

#[test]
fn a_container_that_is_silent_resets_the_client_in_time() {
    let mut world = World::new(Limits::default());
    world.fate = Box::new(|| None);
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    let begun = world.now;
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
    let took = world.now.since(begun);
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn a_container_that_vanished_is_noticed_and_one_that_is_idle_stays() {
    let mut world = World::new(Limits::default());
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    accepted(&mut world);
    for _ in 0..250_000 {
        world.step();
    }
    assert_eq!(world.proxy.counts().relays, 1, "idle for 250 s");
    let next = world.proxy.poll_at().expect("a keep-alive");
    assert!(next.since(world.now).as_secs() > 1, "nothing spins");
    world.fate = Box::new(|| None);
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
}

#[test]
fn resets_are_carried_through() {
    let mut world = World::new(Limits::default());
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    world.stacks.get_mut(&source).expect("connected").socket().abort();
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset, "the container's");

    let mut world = World::new(Limits::default());
    let (client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &now).expect("option");
    drop(client);
    world.until(|world| {
        let state = world.stacks.get_mut(&source).expect("connected").socket().state();
        (state == State::Closed).then_some(())
    });
    assert_eq!(world.proxy.counts().relays, 0);
}

#[test]
fn a_reset_behind_an_end_is_noticed() {
    let mut world = World::new(Limits::default());
    let (client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    client.shutdown(Shutdown::Write).expect("end");
    world.until(|world| {
        let state = world.stacks.get_mut(&source).expect("connected").socket().state();
        (state == State::CloseWait).then_some(())
    });
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &now).expect("option");
    drop(client);
    world.until(|world| (world.proxy.counts().broken == 1).then_some(()));
}

#[test]
fn who_is_ahead_is_no_longer_read_from() {
    let mut world = World::new(Limits { relays: 1, bytes: 2 * BUFFER_MIN, sessions: 0 });
    world.window = 4096;
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    let piece = [1; 65_536];
    let mut quiet = 0;
    let mut written = 0;
    world.until(|_| {
        let length = client.write(&piece).unwrap_or(0);
        (quiet, written) = if length == 0 { (quiet + 1, written) } else { (0, written + length) };
        (quiet > 500).then_some(())
    });
    // The rest is in the kernel's buffers of the two sockets, whose size is the kernel's.
    assert!(written < 32 << 20, "{written}");
    let mut arrived = 0;
    world.until(|world| {
        let length = world.stacks.get_mut(&source).expect("connected").read().len();
        arrived += length;
        (arrived == written).then_some(())
    });
    assert_eq!(world.proxy.counts().relays, 1);
}

#[test]
fn without_a_place_a_client_is_reset() {
    let mut world = World::new(Limits { relays: 1, ..Limits::default() });
    let listener = listen();
    let (_first, _) = world.connect(&listener, binding(CONTAINER));
    let (mut second, refused) = world.try_connect(&listener, binding(CONTAINER));
    assert_eq!(refused, Err(Refused::Full));
    let error = world.until(|_| read(&mut second, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!((world.proxy.counts().relays, world.proxy.counts().refused), (1, 1));
}

#[test]
fn a_released_binding_resets_both_sides() {
    let mut world = World::new(Limits::default());
    let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
    accepted(&mut world);
    let mut out = Vec::new();
    world.proxy.release(
        |binding| binding.network == crate::world::NETWORK,
        &mut world.pool,
        &mut out,
        world.now,
    );
    assert_eq!(out.len(), 1, "a reset for the container");
    out.into_iter().for_each(|(_, frame)| world.pool.free(frame));
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!(world.proxy.poll_at(), None);
}

/// How many relays this process has descriptors for: one each, and one for a client that stays.
fn relays_possible() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("raise the limit");
    if most >= 20_000 { 10_000 } else { usize::try_from(most / 4).expect("a number") }
}

#[test]
fn ten_thousand_relays_at_once() {
    let count = relays_possible();
    let mut world = World::new(Limits::default());
    world.window = 2048;
    let listener = listen();
    let mut clients: Vec<TcpStream> = Vec::new();
    for n in 0..count {
        let (mut client, _) = world.connect(&listener, binding(CONTAINER));
        client.write_all(b"four").expect("write");
        // One in ten ends its direction and lets go; the relay stays, and saves us a descriptor.
        if n % 10 != 0 {
            clients.push(client);
        }
        if n % 64 == 0 {
            world.step();
        }
    }
    let mut arrived = 0;
    world.until(|world| {
        arrived += world.stacks.values_mut().map(|stack| stack.read().len()).sum::<usize>();
        (arrived == 4 * count).then_some(())
    });
    assert_eq!((world.proxy.counts().relays, world.stacks.len()), (count, count));
    clients.iter_mut().for_each(|client| client.write_all(b"four").expect("write"));
    world.until(|world| {
        arrived += world.stacks.values_mut().map(|stack| stack.read().len()).sum::<usize>();
        (arrived == 4 * (count + clients.len())).then_some(())
    });
    drop(clients);
    world.proxy.release(|_| true, &mut world.pool, &mut Vec::new(), world.now);
    assert_eq!((world.proxy.counts().relays, world.proxy.poll_at()), (0, None));
}

/// Bytes that a proxy must survive: frames of a relay with some bytes changed.
#[test]
fn garbage_is_survived() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut world = World::new(Limits::default());
    let (_client, _) = world.connect(&listen(), binding(CONTAINER));
    let source = accepted(&mut world);
    let mut good = vec![4; 6];
    good.extend([2; 6]);
    good.extend([8, 0, 0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 172, 17, 0, 2, 172, 17, 0, 1, 0, 80]);
    good.extend(source.port().to_be_bytes());
    good.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x12, 1, 0, 0, 0, 0, 0, 2, 4, 0, 0]);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let cell = std::cell::RefCell::new(world);
    runner
        .run(&changes, |changes| {
            let mut bytes = good.clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let mut world = cell.borrow_mut();
            world.returns_frame(&bytes);
            world.step();
            Ok(())
        })
        .expect("survived");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn bytes_arrive_as_sent_whatever_is_lost_or_late(
        seed in any::<u32>(),
        lost in 0..15u32,
        late in 0..30u32,
        length in 1..60_000usize,
    ) {
        let mut world = World::new(Limits::default());
        let mut random = seed | 1;
        world.fate = Box::new(move || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let percent = (random >> 16) % 100;
            if percent < lost { None } else { Some(if percent < lost + late { 3 } else { 0 }) }
        });
        let (mut client, _) = world.connect(&listen(), binding(CONTAINER));
        let source = accepted(&mut world);
        converse(&mut world, &mut client, source, &pattern(length), &pattern(length / 2));
    }
}
