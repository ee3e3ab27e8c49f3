//! Relays: who reads late gets every byte, nobody takes them all, and they end with their container.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket};
use vswitch_sys::clock;
use vswitch_tests::talk;
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{Container, World};

use crate::{VSWITCH, world};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than a relay's stack stays in TIME-WAIT. Nothing announces the end of that.
const TIME_WAIT: Duration = Duration::from_secs(11);

fn server(world: &World) -> (Container, TcpListener) {
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "8080:80"]);
    let listener = web.inside(|| TcpListener::bind("0.0.0.0:80")).expect("bind");
    (web, listener)
}

/// A client on the host for which the kernel keeps little, so that the relay has what it does not read.
fn small_client(world: &World) -> TcpStream {
    let made = world.host().inside(|| {
        // For sockets that are accepted from now on, and those of programs.
        fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 8192 8192")?;
        let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        setsockopt(&made, RcvBuf, &4096)?;
        connect(made.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 8080))?;
        Ok::<_, std::io::Error>(made)
    });
    let client = TcpStream::from(made.expect("connected"));
    client.set_read_timeout(Some(DEADLINE)).expect("time-out");
    client.set_write_timeout(Some(DEADLINE)).expect("time-out");
    client
}

#[test]
fn a_client_that_has_ended_and_reads_late_gets_every_byte() {
    let world = world();
    let (_web, listener) = server(&world);
    let sizes = [200_000, 1 << 20];
    let mut clients = sizes.map(|bytes| {
        let mut client = small_client(&world);
        let (mut served, _) = listener.accept().expect("accept");
        client.write_all(b"question").expect("send");
        client.shutdown(Shutdown::Write).expect("shut down");
        let mut question = String::new();
        served.read_to_string(&mut question).expect("receive");
        assert_eq!(question, "question");
        // Its kernel sends the rest after it has closed.
        talk::send(&mut served, 5, bytes).expect("send");
        client
    });
    let since = clock::now();
    wait::until("the end of TIME-WAIT", || (clock::now().since(since) > TIME_WAIT).then_some(()));
    for (client, bytes) in clients.iter_mut().zip(sizes) {
        talk::check(client, 5, bytes).expect("every byte");
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    }
}

#[test]
fn a_container_that_has_ended_and_reads_late_gets_every_byte() {
    const BYTES: usize = 1 << 20;
    let world = world();
    let (_web, listener) = server(&world);
    let mut client = talk::connect(&world.host().path(), SocketAddr::new(HOST, 8080));
    let (mut served, _) = listener.accept().expect("accept");
    served.write_all(b"greeting").expect("send");
    served.shutdown(Shutdown::Write).expect("shut down");
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).expect("receive");
    assert_eq!(greeting, "greeting");
    talk::send(&mut client, 6, BYTES).expect("send");
    drop(client);
    let since = clock::now();
    wait::until("the end of TIME-WAIT", || (clock::now().since(since) > TIME_WAIT).then_some(()));
    talk::check(&mut served, 6, BYTES).expect("every byte");
    assert_eq!(served.read(&mut [0]).expect("an end"), 0);
}

#[test]
fn relays_that_were_to_go_on_end_before_their_address_is_anothers() {
    let world = world();
    let (web, listener) = server(&world);
    let address = web.ipv4().to_string();
    let mut client = talk::connect(&world.host().path(), SocketAddr::new(HOST, 8080));
    let (mut served, _) = listener.accept().expect("accept");
    client.write_all(b"hello").expect("send");
    served.read_exact(&mut [0; 5]).expect("receive");
    world.vswitch(&["unpublish", "--drain", &web.name, "8080:80"]);
    client.write_all(b"again").expect("send");
    served.read_exact(&mut [0; 5]).expect("it goes on");
    world.vswitch(&["network", "disconnect", "net1", &web.name]);
    assert_eq!(client.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    let next = world.sandbox("next", &["--network", "net1", "--ip", &address]);
    let listener = next.inside(|| TcpListener::bind("0.0.0.0:80")).expect("bind");
    world.vswitch(&["publish", &next.name, "8081:80"]);
    let mut client = talk::connect(&world.host().path(), SocketAddr::new(HOST, 8081));
    client.write_all(b"hello").expect("send");
    listener.accept().expect("accept").0.read_exact(&mut [0; 5]).expect("receive");
}

/// A client that comes from one of the host's addresses.
fn connect_from(world: &World, from: u8) -> std::io::Result<TcpStream> {
    world.host().inside(|| {
        let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        bind(made.as_raw_fd(), &SockaddrIn::new(127, 0, 0, from, 0))?;
        connect(made.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 8080))?;
        let client = TcpStream::from(made);
        client.set_read_timeout(Some(DEADLINE))?;
        Ok(client)
    })
}

/// Says something to a server that says it again.
fn echo(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"hello")?;
    client.read_exact(&mut [0; 5])
}

#[test]
fn a_client_that_takes_all_relays_leaves_room_for_others() {
    const DESCRIPTORS: usize = 400;
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let (world, ()) = World::start_wrapped(VSWITCH, &["prlimit", &limit], &[], |_| ());
    let (_web, listener) = server(&world);
    thread::spawn(move || {
        while let Ok((mut served, _)) = listener.accept() {
            thread::spawn(move || {
                let mut heard = [0; 5];
                while served.read_exact(&mut heard).and_then(|()| served.write_all(&heard)).is_ok() {}
            });
        }
    });
    let mut filler = Vec::new();
    // It takes what it gets, until it gets nothing.
    while filler.len() < 2 * DESCRIPTORS {
        let mut client = connect_from(&world, 1).expect("accepted by the kernel");
        if echo(&mut client).is_err() {
            break;
        }
        filler.push(client);
    }
    assert!((DESCRIPTORS / 2..DESCRIPTORS).contains(&filler.len()), "{}", filler.len());
    let mut held = Vec::new();
    for from in 2..50 {
        let mut others = [(); 3].map(|()| connect_from(&world, from).expect("accepted by the kernel"));
        others.iter_mut().for_each(|other| echo(other).expect("its share"));
        held.push(others);
    }
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().expect("ports");
    let relay = ports.iter().find(|port| port["Sandbox"] == "(relay)").expect("relays");
    assert!(relay["Drops"]["relay-full"].as_u64() > Some(40), "an operator sees it: {relay}");
    assert_eq!(world.restarts(), 0);
}
