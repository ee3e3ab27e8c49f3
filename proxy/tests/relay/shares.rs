//! Shares of relays and sessions: who fills the table gives way, and nobody else does.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use smoltcp::socket::tcp::State;
use vswitch_proxy::shares::IDLE_MIN;
use vswitch_proxy::{Limits, Refused, Token};
use vswitch_sys::stream::Stream;

use crate::tcp::{CONTAINER, listen, read};
use crate::udp;
use crate::world::{World, binding};

/// A connection that is said to be of this client.
fn connect(world: &mut World, listener: &TcpListener, from: &str) -> (TcpStream, Result<Token, Refused>) {
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    client.set_nonblocking(true).expect("non-blocking");
    let (stream, _) = Stream::accept(listener.as_fd()).expect("accept");
    let token = world.accept(binding(CONTAINER), stream, from.parse().expect("address"));
    (client, token)
}

#[test]
fn who_takes_all_relays_gives_way_to_another_client() {
    let mut world = World::new(Limits { relays: 4, ..Limits::default() });
    let listener = listen();
    let mut filler: Vec<TcpStream> = (0..4u16)
        .map(|n| {
            let (client, token) = connect(&mut world, &listener, &format!("198.51.100.7:{}", 1000 + n));
            token.expect("a place");
            client
        })
        .collect();
    world.until(|world| {
        let open = |stack: &mut crate::world::Stack| stack.socket().state() == State::Established;
        (world.stacks.len() == 4 && world.stacks.values_mut().all(open)).then_some(())
    });
    // All but the second say something.
    [0, 2, 3].into_iter().for_each(|n: usize| filler[n].write_all(b"still here").expect("write"));
    (0..100).for_each(|_| drop(world.step()));
    let (mut again, refused) = connect(&mut world, &listener, "198.51.100.7:2000");
    assert_eq!(refused, Err(Refused::Full), "a filler has nobody else's place");
    assert_eq!(read(&mut again, &mut Vec::new()), Err(ErrorKind::ConnectionReset));
    let (_other, token) = connect(&mut world, &listener, "198.51.100.8:1000");
    token.expect("a place");
    let errors: Vec<_> = filler.iter_mut().map(|client| read(client, &mut Vec::new()).err()).collect();
    assert_eq!(errors, [None, Some(ErrorKind::ConnectionReset), None, None], "the silent one gave way");
    world.until(|world| {
        let closed = |stack: &mut crate::world::Stack| stack.socket().state() == State::Closed;
        (world.stacks.values_mut().filter_map(|stack| closed(stack).then_some(())).count() == 1).then_some(())
    });
    assert_eq!((world.proxy.counts().relays, world.proxy.counts().full), (4, 2));
}

#[test]
fn a_lack_of_descriptors_is_shared_alike() {
    let mut world = World::new(Limits::default());
    let listener = listen();
    let filler: Vec<_> = (0..3).map(|_| connect(&mut world, &listener, "198.51.100.7:0").0).collect();
    world.proxy.set_most(3);
    assert_eq!(connect(&mut world, &listener, "198.51.100.7:0").1, Err(Refused::Full));
    connect(&mut world, &listener, "198.51.100.8:0").1.expect("a place");
    assert_eq!(world.proxy.counts().relays, 3);
    world.proxy.set_most(usize::MAX);
    connect(&mut world, &listener, "198.51.100.7:0").1.expect("a place");
    drop(filler);
}

#[test]
fn who_takes_all_sessions_gives_way_to_another_client() {
    let mut world = World::new(Limits { sessions: 3, ..Limits::default() });
    let (_, port) = udp::listen(&mut world, "127.0.0.1:0", CONTAINER);
    let ask = |world: &mut World, from: &str, question: &[u8]| {
        let client = UdpSocket::bind((from, 0)).expect("bind");
        client.send_to(question, ("127.0.0.1", port)).expect("send");
        (0..10).flat_map(|_| world.step()).filter(|packet| packet.ends_with(question)).count()
    };
    for _ in 0..3 {
        assert_eq!(ask(&mut world, "127.0.0.1", b"one"), 1);
    }
    assert_eq!(ask(&mut world, "127.0.0.1", b"four"), 0, "a filler has nobody else's place");
    assert_eq!(ask(&mut world, "127.0.0.2", b"another"), 1);
    assert_eq!((world.proxy.counts().sessions, world.proxy.counts().full), (3, 2));
    world.now = world.now + IDLE_MIN;
    assert_eq!(ask(&mut world, "127.0.0.1", b"later"), 1, "in place of its own that was silent");
    assert_eq!((world.proxy.counts().sessions, world.proxy.counts().full), (3, 3));
}
