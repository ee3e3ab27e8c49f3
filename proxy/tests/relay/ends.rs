//! Ends of relays: who reads late loses nothing, however late, and nobody takes a part for the whole.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::sys::socket::sockopt::{RcvBuf, SndBuf};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket};
use smoltcp::socket::tcp::State;
use vswitch_proxy::{Limits, Token};
use vswitch_sys::stream::Stream;

use crate::tcp::{CONTAINER, accepted, listen, pattern, read};
use crate::world::{NETWORK, World, binding};

/// Bytes of the kernel's buffers between relay and client, so that what a client does not read stays with the
/// relay.
const SMALL: usize = 4096;
/// Longer than any timer of TCP's but that by which a vanished container is noticed, in milliseconds.
const LONG: usize = 150_000;

/// A listener whose connections have small buffers.
fn listen_small() -> TcpListener {
    let listener = listen();
    setsockopt(&listener, SndBuf, &SMALL).expect("option");
    listener
}

/// A client with small buffers, and its relay.
fn connect_small(world: &mut World, listener: &TcpListener) -> (TcpStream, Token) {
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("socket");
    setsockopt(&client, RcvBuf, &SMALL).expect("option");
    let SocketAddr::V4(address) = listener.local_addr().expect("address") else { panic!("IPv4") };
    connect(std::os::fd::AsRawFd::as_raw_fd(&client), &SockaddrIn::from(address)).expect("connect");
    let client = TcpStream::from(client);
    client.set_nonblocking(true).expect("non-blocking");
    let (stream, address) = Stream::accept(listener.as_fd()).expect("accept");
    let token = world.accept(binding(CONTAINER), stream, address).expect("relayed");
    (client, token)
}

fn state(world: &mut World, source: SocketAddr) -> State {
    world.stacks.get_mut(&source).expect("connected").socket().state()
}

/// Has the container send `answer` and its end. Answers once all of it is on its way.
fn answer(world: &mut World, source: SocketAddr, answer: &[u8]) {
    let mut sent = 0;
    world.until(|world| {
        let socket = world.stacks.get_mut(&source).expect("connected").socket();
        sent += socket.send_slice(&answer[sent..]).unwrap_or(0);
        (sent == answer.len()).then(|| socket.close())
    });
}

/// Lets a long time pass.
fn wait_long(world: &mut World) {
    (0..LONG).for_each(|_| drop(world.step()));
}

/// Reads to the end.
fn rest(world: &mut World, client: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    world.until(|_| read(client, &mut all).map(|ended| ended.then_some(())).transpose()).map(|()| all)
}

#[test]
fn a_client_that_has_ended_and_reads_late_gets_every_byte() {
    for length in [150_000, 1 << 20] {
        let mut world = World::new(Limits::default());
        world.window = 2 << 20;
        let (mut client, _) = connect_small(&mut world, &listen_small());
        let source = accepted(&mut world);
        client.write_all(b"question").expect("write");
        client.shutdown(Shutdown::Write).expect("end");
        world.until(|world| (state(world, source) == State::CloseWait).then_some(()));
        assert_eq!(world.stacks.get_mut(&source).expect("connected").read(), b"question");
        answer(&mut world, source, &pattern(length));
        wait_long(&mut world);
        let heard = rest(&mut world, &mut client).expect("no reset");
        assert!(heard == pattern(length), "{} of {length} bytes, and an end", heard.len());
        world.until(|world| (world.proxy.counts().relays == 0).then_some(()));
        assert_eq!((world.proxy.counts().ended, world.proxy.counts().broken), (1, 0));
    }
}

#[test]
fn a_client_that_reads_late_gets_every_byte_though_the_container_has_forgotten_it() {
    let mut world = World::new(Limits::default());
    let (mut client, _) = connect_small(&mut world, &listen_small());
    let source = accepted(&mut world);
    answer(&mut world, source, &pattern(150_000));
    world.until(|world| (state(world, source) == State::FinWait2).then_some(()));
    // A kernel remembers such a connection for a minute, and resets who still speaks of it.
    world.stacks.get_mut(&source).expect("connected").socket().abort();
    wait_long(&mut world);
    assert_eq!(world.proxy.poll_at(), None, "nothing spins");
    let heard = rest(&mut world, &mut client).expect("no reset");
    assert!(heard == pattern(150_000), "{} bytes, and an end", heard.len());
    assert_eq!(world.proxy.counts().relays, 1, "the client may still end");
    client.write_all(b"for nobody").expect("write");
    world.until(|world| (world.proxy.counts().relays == 0).then_some(()));
    assert_eq!((world.proxy.counts().ended, world.proxy.counts().broken), (0, 1));
    client.write_all(b"for nobody").expect_err("reset");
}

/// A client of a container with little room, which has said a word and ended.
fn greeted() -> (World, TcpStream, SocketAddr) {
    let mut world = World::new(Limits::default());
    world.window = 8192;
    let (mut client, _) = connect_small(&mut world, &listen_small());
    let source = accepted(&mut world);
    answer(&mut world, source, b"greeting");
    assert_eq!(rest(&mut world, &mut client).expect("an end"), b"greeting");
    (world, client, source)
}

#[test]
fn a_container_that_has_ended_and_reads_late_gets_every_byte() {
    let (mut world, mut client, source) = greeted();
    let question = pattern(150_000);
    let mut sent = 0;
    world.until(|_| {
        sent += client.write(&question[sent..]).unwrap_or(0);
        (sent == question.len()).then_some(())
    });
    drop(client);
    (0..2).for_each(|_| wait_long(&mut world));
    let mut heard = Vec::new();
    world.until(|world| {
        let stack = world.stacks.get_mut(&source).expect("connected");
        heard.extend(stack.read());
        matches!(stack.socket().state(), State::TimeWait | State::Closed).then_some(())
    });
    assert!(heard == question, "{} of {} bytes", heard.len(), question.len());
    world.until(|world| (world.proxy.counts().relays == 0).then_some(()));
    assert_eq!((world.proxy.counts().ended, world.proxy.counts().broken), (1, 0));
}

#[test]
fn bytes_that_a_container_did_not_take_are_no_clean_end() {
    let (mut world, mut client, source) = greeted();
    client.write_all(&pattern(60_000)[..20_000]).expect("write");
    client.shutdown(Shutdown::Write).expect("end");
    (0..1000).for_each(|_| drop(world.step()));
    world.stacks.get_mut(&source).expect("connected").socket().abort();
    world.until(|world| (world.proxy.counts().relays == 0).then_some(()));
    assert_eq!((world.proxy.counts().ended, world.proxy.counts().broken), (0, 1));
}

#[test]
fn all_that_leads_to_an_address_ends_before_it_is_anothers() {
    let mut world = World::new(Limits::default());
    let listener = listen();
    let (mut client, _) = world.connect(&listener, binding(CONTAINER));
    let (mut other, _) = world.connect(&listener, binding("172.17.0.3"));
    world.until(|world| (world.stacks.len() == 2).then_some(()));
    (0..10).for_each(|_| drop(world.step()));
    client.write_all(b"for the one before").expect("write");
    // Frames that have been made, and wait to enter the switch.
    let mut out = Vec::new();
    world.until(|world| {
        world.step_without_delivery(&mut out);
        (!out.is_empty()).then_some(())
    });
    let address = CONTAINER.parse().expect("address");
    world.proxy.forget(NETWORK, address, &mut world.pool, &mut out);
    assert!(out.is_empty(), "nothing of it reaches the next one");
    let error = world.until(|_| read(&mut client, &mut Vec::new()).err());
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!((world.proxy.counts().relays, world.proxy.counts().broken), (1, 1));
    other.write_all(b"goes on").expect("write");
    let mut heard = Vec::new();
    world.until(|world| {
        heard.extend(world.stacks.values_mut().flat_map(|stack| stack.read()));
        (heard == b"goes on").then_some(())
    });
}
