//! A host with one container and a tunnel, in as few lines as possible: what the owner of the sockets does.

use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use nix::sys::uio::writev;
use vswitch_frame::{Frame, Instant, Pool};
use vswitch_sys::tap;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::tunnels::vni;
use vswitch_vxlan::{Decapsulator, Encapsulator, Limits, Received, Sender, Settings, Tunnels, UDP_PORT};

const BURST: usize = 64;
const SOCKETS: u16 = 4;

/// A host's end of the tunnel and the TAP of its container.
pub(crate) struct Pump {
    tap: OwnedFd,
    receiver: UdpSocket,
    senders: Vec<UdpSocket>,
    tunnels: Tunnels,
}

/// The work of a pump that is worth knowing: without it a test would show little.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Sends of several datagrams.
    pub(crate) batched: usize,
    /// Frames made of several.
    pub(crate) merged: usize,
}

impl Pump {
    /// Makes a TAP in `container`, up and with these addresses, and sockets in `host`, whose address in the
    /// underlay is `local`.
    pub(crate) fn new(
        host: &Namespace,
        container: &Namespace,
        addresses: &[&str],
        local: IpAddr,
        peer: IpAddr,
    ) -> Self {
        let (tap, _) = container.inside(|| tap::create("eth0")).expect("a TAP");
        let mut tunnels = Tunnels::new(Limits::default(), 7);
        let settings = Settings { vni: vni(), local, underlay_mtu: 1500, tags: false, learning: true };
        let tunnel = tunnels.add(settings).expect("the first");
        tunnel.add_peer(peer).expect("another host");
        let mtu = tunnel.mtu().to_string();
        container.ip(&["link", "set", "eth0", "mtu", &mtu, "up"]);
        for address in addresses {
            container.ip(&["address", "add", address, "dev", "eth0", "nodad"]);
        }
        let socket = |port| host.inside(|| UdpSocket::bind((local, port))).expect("a socket");
        let (receiver, senders) = (socket(UDP_PORT), (0..SOCKETS).map(|_| socket(0)).collect());
        receiver.set_nonblocking(true).expect("a flag");
        setsockopt(&receiver, UdpGroSegment, &true).expect("Linux 5.0");
        Self { tap, receiver, senders, tunnels }
    }

    /// Moves frames both ways until told to stop.
    pub(crate) fn run(self, stop: &AtomicBool) -> Done {
        let Self { tap, receiver, senders, mut tunnels } = self;
        let mut done = Done::default();
        let mut pool = Pool::new(BURST);
        let mut out = Encapsulator::new(Sender { sockets: SOCKETS, ..Sender::default() }, 3);
        let mut into = Decapsulator::new();
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut ready = [readable(tap.as_fd()), readable(receiver.as_fd())];
            poll(&mut ready, PollTimeout::from(20u8)).expect("poll");
            let frames = frames_of(&tap, &mut pool);
            out.plan(tunnels.get(vni()).expect("made"), &frames);
            for send in out.sends() {
                done.batched += usize::from(send.count() > 1);
                transmit(&senders[usize::from(send.socket)], &out, send, &frames);
            }
            frames.into_iter().for_each(|frame| pool.free(frame));
            while let Some((received, length)) = receive(&receiver, &mut buffer) {
                into.open(&mut tunnels, received, &mut buffer[..length], Instant::ZERO);
                assert_eq!(into.dropped(), []);
                for inner in into.inners() {
                    done.merged += usize::from(inner.pieces().count() > 1);
                    let header = inner.offload.encode(inner.headers.payload_offset());
                    let pieces = inner.pieces().map(|piece| IoSlice::new(&buffer[piece]));
                    let all: Vec<IoSlice<'_>> =
                        std::iter::once(IoSlice::new(&header)).chain(pieces).collect();
                    writev(&tap, &all).expect("the TAP takes it");
                }
            }
        }
        done
    }
}

/// A burst of the container's frames.
fn frames_of(tap: &OwnedFd, pool: &mut Pool) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(mut frame) = pool.take() {
        if !tap::receive(tap.as_fd(), true, &mut frame).expect("a TAP that is up") {
            pool.free(frame);
            break;
        }
        frame.parse().expect("what a kernel sends");
        frames.push(frame);
    }
    frames
}

fn transmit(socket: &UdpSocket, out: &Encapsulator, send: &vswitch_vxlan::Send, frames: &[Frame]) {
    let pieces: Vec<IoSlice<'_>> = out.pieces(send, frames).map(IoSlice::new).collect();
    let segments = [ControlMessage::UdpGsoSegments(&send.size)];
    let control = if send.count() > 1 { &segments[..] } else { &[] };
    let to = SockaddrStorage::from(send.to);
    sendmsg(socket.as_raw_fd(), &pieces, control, MsgFlags::empty(), Some(&to)).expect("sent");
}

/// A message from the socket, if one lies there, and its size in bytes.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(Received, usize)> {
    let mut control = nix::cmsg_space!(i32);
    let mut pieces = [std::io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags).ok()?;
    let address = message.address?;
    let v4 = address.as_sockaddr_in().map(|from| IpAddr::from(from.ip()));
    let from = v4.or_else(|| address.as_sockaddr_in6().map(|from| IpAddr::from(from.ip())))?;
    let mut size = None;
    for message in message.cmsgs().expect("room for one") {
        if let ControlMessageOwned::UdpGroSegments(bytes) = message {
            size = u16::try_from(bytes).ok();
        }
    }
    Some((Received { from, size }, message.bytes))
}

/// Two hosts joined by a cable: their namespaces, with these addresses.
pub(crate) fn underlay(addresses: [&str; 2]) -> [Namespace; 2] {
    let hosts = [Namespace::new(), Namespace::new()];
    hosts[0].ip(&["link", "add", "wan0", "type", "veth", "peer", "name", "wan0", "netns", hosts[1].name()]);
    for (host, address) in std::iter::zip(&hosts, addresses) {
        host.ip(&["address", "add", address, "dev", "wan0", "nodad"]);
        host.ip(&["link", "set", "wan0", "up"]);
    }
    hosts
}

/// The address in "address/length".
pub(crate) fn address(text: &str) -> IpAddr {
    let (address, _) = text.split_once('/').expect("a prefix");
    address.parse().expect("an address")
}

/// Stops the pumps when it goes out of scope, even by a panic, so that nobody waits for them forever.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
