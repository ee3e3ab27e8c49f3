//! The datapath's cage: who is outside does not reach in, and what reaches out is what the document says.
//! Arguments of system calls are tried one by one beside the filter (`switch/sys/src/confine/calls`).

use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sys::socket::{MsgFlags, SockaddrStorage, getsockname, sendto};
use vswitch_sys::packet;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;

use crate::world;

#[test]
fn a_daemon_that_runs_as_nobody_cannot_signal_the_datapath() {
    let world = world();
    let (a, b) = (world.sandbox("a", &[]), world.sandbox("b", &[]));
    let pid = world.datapath_pid().to_string();
    for signal in ["-0", "-TERM", "-KILL"] {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "kill", signal, &pid];
        let output = Command::new("setpriv").args(nobody).output().expect("setpriv");
        assert!(!output.status.success(), "{signal} reaches it");
    }
    a.transfers(&b, b.ipv4(), 1 << 20);
    assert_eq!(world.restarts(), 0);
}

/// The kernel's fact that limits the cage, and why the document says so: it is the message that says by which
/// interface a packet socket sends.
#[test]
fn a_packet_socket_sends_by_the_interface_that_the_message_names() {
    let (host, far) = (Namespace::new(), Namespace::new());
    for (near, its_far) in [("one", "far1"), ("two", "far2")] {
        host.ip(&["link", "add", near, "type", "veth", "peer", "name", its_far, "netns", far.name()]);
        host.ip(&["link", "set", near, "up"]);
        far.ip(&["link", "set", its_far, "up"]);
    }
    let [bound, other] = ["one", "two"].map(|name| host.inside(|| packet::open(name)).expect("a socket"));
    let elsewhere: SockaddrStorage = getsockname(other.as_raw_fd()).expect("its address");
    let mut wire = Wire::open(&far.path(), "far2");
    const VNET_HEADER: [u8; 10] = [0; 10];
    let frame = ethernet(wire.mac, wire.mac, 0x88b5, b"forty-six bytes make a frame of sixty bytes....");
    let message = [&VNET_HEADER[..], &frame].concat();
    wait::until("the frame", || {
        sendto(bound.as_raw_fd(), &message, &elsewhere, MsgFlags::empty()).expect("send");
        wire.receive(|heard| heard == frame)
    });
}
