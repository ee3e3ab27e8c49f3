//! The harness itself, on a cable without a switch: what it says of traffic can be believed.

use std::io::Cursor;
use std::net::IpAddr;

use vswitch_tests::namespace::Namespace;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::{talk, wait};

const LEFT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const RIGHT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Two namespaces joined by a kernel veth pair.
fn cable() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name()]);
    for (end, address) in [(&left, LEFT), (&right, RIGHT)] {
        end.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        end.ip(&["link", "set", "eth0", "up"]);
    }
    (left, right)
}

#[test]
fn traffic_over_a_cable_is_found_right() {
    let (left, right) = cable();
    assert!(talk::answers(&left.path(), RIGHT));
    talk::transfer(&left.path(), &right.path(), RIGHT, 3_000_001);
    talk::datagrams(&left.path(), &right.path(), RIGHT, &[1, 18, 18, 0, 1472, 9000]);
}

#[test]
fn silence_is_noticed() {
    let (left, _right) = cable();
    assert!(talk::is_silent(&left.path(), IpAddr::from([192, 0, 2, 3])));
}

#[test]
fn frames_arrive_as_they_were_sent() {
    let (left, right) = cable();
    let (mut from, mut to) = (Wire::open(&left.path(), "eth0"), Wire::open(&right.path(), "eth0"));
    let frame = ethernet(to.mac, from.mac, 0x88b5, b"forty-six bytes make a frame of sixty bytes....");
    // A fresh pair drops frames until the kernel has noticed that both ends are up.
    let arrived = wait::until("the frame", || {
        from.send(&frame);
        to.receive(|frame| frame[12..14] == [0x88, 0xb5])
    });
    assert_eq!(arrived, frame);
}

#[test]
fn a_wrong_byte_is_found() {
    let mut content = Vec::new();
    talk::send(&mut content, 3, 200_000).expect("memory");
    talk::check(&mut Cursor::new(&content), 3, content.len()).expect("all right");
    talk::check(&mut Cursor::new(&content), 4, content.len()).expect_err("another stream");
    talk::check(&mut Cursor::new(&content), 3, content.len() + 1).expect_err("too short");
    content[150_000] ^= 1;
    let error = talk::check(&mut Cursor::new(&content), 3, content.len()).expect_err("one bit");
    assert_eq!(error.to_string(), "byte 150000 is wrong");
}
