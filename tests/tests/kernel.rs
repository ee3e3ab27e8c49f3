//! Facts of the kernel that the switch relies on, pinned: see docs/kernel.md.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};
use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::{Accepts, Pool};
use vswitch_sys::path_mtu::{self, Tried};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::{packet, tap, udp};
use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::packets::Packet;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;

const BROADCAST: [u8; 6] = [0xff; 6];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MARK: u16 = 0x88b5;
const EBADFD: i32 = 77;

fn is_marked(frame: &[u8]) -> bool {
    frame[12..14] == MARK.to_be_bytes()
}

#[test]
fn a_moved_tap_keeps_working() {
    let (here, there) = (Namespace::new(), Namespace::new());
    let (fd, _) = here.inside(|| tap::create("tap0")).expect("a TAP");
    here.ip(&["link", "set", "tap0", "netns", there.name()]);
    there.ip(&["link", "set", "tap0", "up"]);
    let mut wire = Wire::open(&there.path(), "tap0");

    let out = ethernet(BROADCAST, SENDER, MARK, &[7; 46]);
    let with_header = [&[0; VNET_HEADER_BYTES][..], &out].concat();
    assert_eq!(nix::unistd::write(&fd, &with_header), Ok(with_header.len()));
    assert_eq!(wait::until("the frame inside", || wire.receive(is_marked)), out);

    let answer = ethernet(BROADCAST, wire.mac, MARK, &[8; 46]);
    wire.send(&answer);
    let mut pool = Pool::new(1);
    let mut frame = pool.take().expect("a slot");
    wait::until("the frame outside", || {
        let received = tap::receive(fd.as_fd(), true, &mut frame).expect("readable");
        (received && is_marked(frame.bytes())).then_some(())
    });
    assert_eq!(frame.bytes(), answer);
}

#[test]
fn a_tap_ends_with_its_last_descriptor() {
    let namespace = Namespace::new();
    let (fd, _) = namespace.inside(|| tap::create("tap0")).expect("a TAP");
    assert!(namespace.ip(&["-o", "link"]).contains("tap0"));
    drop(fd);
    assert!(!namespace.ip(&["-o", "link"]).contains("tap0"));
}

#[test]
fn a_tap_keeps_the_namespace_it_was_made_in_until_it_is_deleted_itself() {
    let (namespace, witness) = (Namespace::new(), Namespace::new());
    namespace.ip(&["link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", witness.name()]);
    let (fd, _) = namespace.inside(|| tap::create("tap0")).expect("a TAP");
    let inside = File::open(namespace.path()).expect("its namespace");
    drop(namespace);
    let mut pool = Pool::new(1);
    let mut frame = pool.take().expect("a slot");
    let mut read = || tap::receive(fd.as_fd(), true, &mut frame);
    assert!(read().is_ok());
    let deleted = thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).expect("setns");
        must(Command::new("ip").args(["link", "del", "tap0"]))
    });
    deleted.join().expect("deleted");
    assert_eq!(read().expect_err("it is gone").raw_os_error(), Some(EBADFD));
    assert!(witness.ip(&["-o", "link"]).contains("near0"), "its descriptor keeps the namespace");
    drop(fd);
    wait::until("the namespace goes", || (!witness.ip(&["-o", "link"]).contains("near0")).then_some(()));
}

#[test]
fn a_packet_socket_tells_an_interface_that_is_gone_from_one_that_is_down() {
    let namespace = Namespace::new();
    namespace.ip(&["tuntap", "add", "tap0", "mode", "tap"]);
    namespace.ip(&["link", "set", "tap0", "up"]);
    let socket = namespace.inside(|| packet::open("tap0")).expect("a packet socket");
    let bound = packet::interface(&socket).expect("its interface");
    namespace.ip(&["link", "set", "tap0", "down"]);
    assert_eq!(packet::interface(&socket).expect("its interface"), bound);
    namespace.ip(&["link", "del", "tap0"]);
    assert_eq!(packet::interface(&socket).expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn a_tap_with_packet_information_is_not_taken() {
    type Make = fn(&str, tun_tap::Mode) -> std::io::Result<tun_tap::Iface>;
    let namespace = Namespace::new();
    let this = Pidfd::open(std::process::id()).expect("this process");
    let made = |name: &str, make: Make| {
        let interface = namespace.inside(|| make(name, tun_tap::Mode::Tap)).expect("a TAP");
        this.take(interface.as_raw_fd()).expect("a copy of its descriptor")
    };
    let with = made("tap0", tun_tap::Iface::new);
    let without = made("tap1", tun_tap::Iface::without_packet_info);
    let refused = tap::adopt(&with).expect_err("its frames do not start where frames start");
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    assert_eq!(tap::adopt(&without).expect("a plain TAP"), (false, Accepts::NONE));
}

/// The version of the running kernel, major and minor.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn a_tap_takes_every_offload_of_this_kernel() {
    let namespace = Namespace::new();
    let (_fd, accepts) = namespace.inside(|| tap::create("tap0")).expect("a TAP");
    assert_eq!(accepts, Accepts { uso: kernel() >= (6, 2), ..Accepts::ALL });
}

#[test]
fn a_packet_socket_gets_frames_without_their_tag() {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name()]);
    for end in [&left, &right] {
        end.ip(&["link", "set", "eth0", "up"]);
    }
    let open = |namespace: &Namespace| Wire::open(Path::new(&namespace.path()), "eth0");
    let (mut from, mut to) = (open(&left), open(&right));
    let packet = Packet { tags: vec![(0x8100, 7)], ..Packet::udp(vec![9; 40]) };
    from.send(&packet.bytes());
    let untagged = Packet { tags: vec![], ..packet }.bytes();
    assert_eq!(wait::until("the frame", || to.receive(|frame| frame[12..14] == [8, 0])), untagged);
}

/// A sending socket of tunnels on a cable, and a socket at its other end, over either version of IP. By its
/// route the path takes no more than 1300 bytes.
fn narrow_path(ipv6: bool) -> ([Namespace; 2], OwnedFd, UdpSocket) {
    let ends = [Namespace::new(), Namespace::new()];
    ends[0].ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", ends[1].name()]);
    let (net, more) = if ipv6 { ("2001:db8::", &["nodad"][..]) } else { ("192.0.2.", &[][..]) };
    let length = if ipv6 { 64 } else { 24 };
    for (number, end) in (1..).zip(&ends) {
        let address = format!("{net}{number}/{length}");
        end.ip(&[&["address", "add", &address, "dev", "eth0"][..], more].concat());
        end.ip(&["link", "set", "eth0", "up"]);
    }
    ends[0].ip(&["route", "add", &format!("{net}2"), "dev", "eth0", "mtu", "1300"]);
    let at = |number: u8| -> SocketAddr {
        SocketAddr::new(format!("{net}{number}").parse().expect("an address"), 0)
    };
    let bound = wait::until("the address is there", || ends[0].inside(|| udp::open_sender(at(1))).ok());
    let ear = wait::until("the address is there", || ends[1].inside(|| UdpSocket::bind(at(2))).ok());
    ear.set_read_timeout(Some(wait::DEADLINE)).expect("a time-out");
    (ends, bound, ear)
}

#[test]
fn a_datagram_that_is_too_large_tells_the_mtu_of_its_path() {
    for ipv6 in [false, true] {
        let (ends, socket, ear) = narrow_path(ipv6);
        let to = ear.local_addr().expect("bound");
        let room = if ipv6 { 1300 - 48 } else { 1300 - 28 };
        let mut heard = [0; 4000];
        let tried =
            |bytes: usize| path_mtu::try_datagram(socket.as_fd(), to, &[&[1; 8], &vec![2; bytes - 8]]);
        assert_eq!(tried(room), Ok(Tried::Sent));
        assert_eq!(ear.recv(&mut heard).expect("it fits"), room);
        assert_eq!(tried(room + 1), Ok(Tried::TooBig(Some(1300))));
        // Nobody reads what strangers send to the socket; it does not get in the way.
        let own: nix::sys::socket::SockaddrStorage =
            nix::sys::socket::getsockname(socket.as_raw_fd()).expect("a name");
        let own: SocketAddr = own.to_string().parse().expect("an address");
        let stranger = ends[1].inside(|| UdpSocket::bind(SocketAddr::new(to.ip(), 0))).expect("bind");
        for _ in 0..100 {
            stranger.send_to(&[0; 1000], own).expect("sent");
        }
        assert_eq!(tried(room + 1), Ok(Tried::TooBig(Some(1300))));
        // Nor do errors about other datagrams: nobody is at that port.
        let nowhere = SocketAddr::new(to.ip(), 9);
        for _ in 0..10 {
            assert_eq!(path_mtu::try_datagram(socket.as_fd(), nowhere, &[&[0; 8]]), Ok(Tried::Sent));
        }
        assert_eq!(tried(room + 1), Ok(Tried::TooBig(Some(1300))));
    }
}

#[test]
fn what_is_larger_than_its_path_is_cut_up_only_where_that_is_allowed() {
    for ipv6 in [false, true] {
        let (_ends, socket, ear) = narrow_path(ipv6);
        let to = ear.local_addr().expect("bound");
        let content = vec![7; 2 * 1400];
        let mut sender = udp::Sender::new();
        let mut send = |segment: Option<u16>| {
            let pieces = std::iter::once(content.as_slice());
            sender.send(socket.as_fd(), std::iter::once(udp::Message { to, segment, pieces }))
        };
        assert_eq!(send(None), Err(nix::errno::Errno::EMSGSIZE));
        let refused = send(Some(1400)).expect_err("none of its datagrams fits");
        assert!(matches!(refused, nix::errno::Errno::EMSGSIZE | nix::errno::Errno::EINVAL), "{refused}");
        path_mtu::allow_cutting(socket.as_fd(), to, true).expect("allowed");
        assert_eq!(send(None), Ok(1));
        let mut heard = [0; 4000];
        assert_eq!(ear.recv(&mut heard).expect("all of it"), content.len());
        assert_eq!(heard[..content.len()], content);
        path_mtu::allow_cutting(socket.as_fd(), to, false).expect("forbidden");
        assert_eq!(send(None), Err(nix::errno::Errno::EMSGSIZE));
    }
}
