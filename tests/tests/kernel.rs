//! Facts of the kernel that the switch relies on, pinned: see docs/kernel.md.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};
use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::{Accepts, Pool};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::{packet, tap};
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
