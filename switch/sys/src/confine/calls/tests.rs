//! The filter in a child: what the datapath does passes, and each narrowed argument ends the process.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::*;
use crate::datagrams::Datagrams;
use crate::path_mtu;
use crate::poll::Poller;
use crate::seqpacket::Channel;
use crate::stream::{Stream, prepare};
use crate::udp;

/// The end of a child that does something under the filter.
fn end_of(act: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child is this thread alone, and does nothing that waits for another one.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => waitpid(child, None).expect("its end"),
        ForkResult::Child => {
            let filter = program().expect("a filter");
            let confined = seccompiler::apply_filter(&filter);
            if confined.is_ok() {
                act();
            }
            // SAFETY: `_exit` takes a number.
            unsafe { libc::_exit(i32::from(confined.is_err())) }
        }
    }
}

fn is_killed(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
}

fn lives(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(_, 0))
}

/// A system call by its name, with six arguments.
fn made(name: &str, arguments: [i64; 6]) -> WaitStatus {
    let call = ALLOWED.iter().find(|call| call.name == name).expect("a call");
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: descriptors are -1 and pointers null, so that the kernel refuses each call, or it is harmless.
    end_of(|| _ = unsafe { libc::syscall(call.number, a, b, c, d, e, f) })
}

const NONE: i64 = -1;

#[test]
fn each_narrowed_argument_ends_the_process() {
    let own = i64::from(std::process::id());
    let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let options = [
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_DETACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
        (libc::SOL_SOCKET, libc::SO_MARK),
        (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP),
        (libc::SOL_PACKET, libc::PACKET_TX_RING),
        (libc::IPPROTO_TCP, libc::TCP_REPAIR),
        (libc::IPPROTO_TCP, libc::TCP_ULP),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
        (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        (libc::IPPROTO_IP, libc::IP_HDRINCL),
        (libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM),
        // The number of an option that is allowed, at another level.
        (libc::IPPROTO_TCP, libc::SO_LINGER),
        (libc::SOL_PACKET, libc::IP_PKTINFO),
    ];
    let mut forbidden: Vec<(&str, [i64; 6])> = options
        .iter()
        .map(|&(level, option)| ("setsockopt", [NONE, level.into(), option.into(), 0, 0, 0]))
        .collect();
    for flag in [libc::MSG_FASTOPEN, libc::MSG_ZEROCOPY, libc::MSG_OOB, libc::MSG_DONTROUTE] {
        forbidden.push(("sendmsg", [NONE, 0, flag.into(), 0, 0, 0]));
        forbidden.push(("sendmmsg", [NONE, 0, 0, flag.into(), 0, 0]));
    }
    for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
        forbidden.push(("shutdown", [NONE, how.into(), 0, 0, 0, 0]));
    }
    for command in [libc::F_DUPFD, libc::F_SETFD, libc::F_SETFL, libc::F_SETOWN, libc::F_SETLK] {
        forbidden.push(("fcntl", [NONE, command.into(), 0, 0, 0, 0]));
    }
    for (group, thread, signal) in
        [(1, 1, libc::SIGABRT), (own, own, libc::SIGABRT), (0, 0, libc::SIGABRT), (NONE, NONE, libc::SIGKILL)]
    {
        forbidden.push(("tgkill", [group, thread, signal.into(), 0, 0, 0]));
    }
    forbidden.extend([
        ("accept4", [NONE, 0, 0, 1, 0, 0]),
        ("getsockopt", [NONE, libc::SOL_SOCKET.into(), libc::SO_PEERSEC.into(), 0, 0, 0]),
        ("getsockopt", [NONE, libc::IPPROTO_TCP.into(), libc::SO_ERROR.into(), 0, 0, 0]),
        ("epoll_ctl", [NONE, libc::EPOLL_CTL_MOD.into(), NONE, 0, 0, 0]),
        ("mmap", [0, 4096, i64::from(libc::PROT_READ | libc::PROT_EXEC), private, NONE, 0]),
        ("mmap", [0, 4096, libc::PROT_READ.into(), libc::MAP_SHARED.into(), NONE, 0]),
        ("futex", [0, libc::FUTEX_LOCK_PI.into(), 0, 0, 0, 0]),
        ("futex", [0, libc::FUTEX_CMP_REQUEUE_PI.into(), 0, 0, 0, 0]),
    ]);
    for (name, arguments) in &forbidden {
        assert!(is_killed(made(name, *arguments)), "{name} {arguments:?}");
    }
    for call in ALLOWED.iter().filter(|call| !call.combinations.is_empty()) {
        assert!(forbidden.iter().any(|(name, _)| *name == call.name), "{} is tried", call.name);
    }
}

#[test]
fn a_process_may_abort_and_signal_nobody_else() {
    let aborted = end_of(|| std::process::abort());
    assert!(matches!(aborted, WaitStatus::Signaled(_, Signal::SIGABRT, _)), "{aborted:?}");
    let other = end_of(|| {
        // SAFETY: these take numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGTERM) };
    });
    assert!(is_killed(other), "{other:?}");
    // SAFETY: `kill` takes numbers; signal 0 is none.
    assert!(is_killed(end_of(|| _ = unsafe { libc::kill(libc::getppid(), 0) })));
}

#[test]
fn memory_comes_and_goes() {
    let status = end_of(|| {
        for bytes in [100, 100_000, 1 << 20, 64 << 20] {
            let mut room: Vec<u8> = vec![1; bytes];
            room.resize(3 * bytes, 2);
            room.truncate(bytes / 2);
            room.shrink_to_fit();
            std::hint::black_box(&room);
        }
    });
    assert!(lives(status), "{status:?}");
}

#[test]
fn sockets_of_every_kind_are_used_as_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let datagrams = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("bind").into());
    let (one, other) = Channel::pair().expect("a pair");
    let sender = udp::open_sender("127.0.0.1:0".parse().expect("address")).expect("a socket");
    let target = client.local_addr().expect("address");
    let mut poller = Poller::new().expect("epoll");
    let status = end_of(|| {
        prepare(listener.as_fd()).expect("options");
        poller.add(listener.as_fd(), 1).expect("wait");
        poller.wait(None, |_| {}).expect("epoll");
        poller.remove(listener.as_fd()).expect("no longer");
        let (stream, _) = Stream::accept(listener.as_fd()).expect("accept");
        poller.add_both_ways(stream.as_fd(), 2).expect("wait");
        stream.write(b"bytes").expect("write");
        stream.failure().expect("none");
        stream.end().expect("end");
        stream.close();
        let datagrams = Datagrams::new(datagrams).expect("options");
        datagrams.send(b"twotwo", 3, target, [127, 0, 0, 1].into()).expect("send");
        path_mtu::try_datagram(sender.as_fd(), target, &[b"one"]).expect("tried");
        path_mtu::allow_cutting(sender.as_fd(), target, true).expect("option");
        path_mtu::restore(sender.as_fd(), target).expect("options");
        let message = udp::Message { to: target, segment: None, pieces: [&b"one"[..]].into_iter() };
        udp::Sender::new().send(sender.as_fd(), std::iter::once(message)).expect("sent");
        one.send(b"answer", &[]).expect("send");
        one.peer().expect("control");
        other.receive(&mut [0; 16]).expect("received");
        crate::poll::yield_core();
        crate::clock::now();
        sender.try_clone().expect("another descriptor");
        drop((one, other, sender, datagrams));
    });
    assert!(lives(status), "{status:?}");
}
