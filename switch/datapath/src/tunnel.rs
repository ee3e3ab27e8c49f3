//! Tunnels join the switch and VXLAN.
//!
//! # Theory of operation
//! ```text
//!  frames for a tunnel's port ─► plan ─► gathered sends ─► a sending socket, by the flow's hash
//!  the receiving socket ─► datagrams ─► frames, super-frames ─► engine, as received from the tunnel's port
//! ```
//! A tunnel is a port of the switch without a descriptor: all tunnels share one receiving socket and a few
//! sending ones. Every decision is [`vswitch_vxlan`]'s; `docs/overlay.md` has a packet's whole walk.
//!
//! * **Out**, payload stays where it is: a send gathers headers from the plan's memory and payload from the
//!   frames.
//! * **In**, a merged frame is copied once, from the datagrams it came in into its slot: a frame is one
//!   piece.
//! * **Refused sends** go in another way, and the reason is remembered ([`errand`](crate::errand)): the
//!   kernel does not segment, or the path to that host is narrow.
//! * **Narrow paths**: a packet that is too large for its path is not carried if its sender can be told.
//! * **Questions** (ARP, ND) for who lives elsewhere by a record are answered here and not carried.
//! * **Books.** Frames that a plan refuses and datagrams that the kernel does not take are counted at the
//!   tunnel's port; datagrams that came and are of no tunnel, at
//!   [`TUNNELS`](vswitch_contract::reserved::TUNNELS).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::counters::{Counter, Counters};
use vswitch_contract::tunnel::{TUNNEL_SENDERS, TunnelSocket, TunnelSpec};
use vswitch_engine::{Switch, Verdicts};
use vswitch_frame::{DropReason, Frame, Instant, NetworkId, PortId};
use vswitch_sys::path_mtu;
use vswitch_sys::udp::{self, BATCH, STRIDE};
use vswitch_vxlan::encapsulate::SEGMENTS_MAX;
use vswitch_vxlan::path::ROOM_MIN;
use vswitch_vxlan::{
    Answer, Decapsulator, Encapsulator, Inner, Limits, Received, Sender, Settings, Tunnel, UDP_PORT, Vni,
};

use crate::errand::{Errand, Narrowed, Senders};

/// Messages taken in one call while they are large: no more than stay in a core's second-level cache.
const LARGE_AT_ONCE: usize = 4;
/// Bytes above which a message is large.
const LARGE_BYTES: usize = 16 * 1024;

/// All tunnels of this host, and the sockets they share.
#[derive(Debug)]
pub(crate) struct Tunnels {
    table: vswitch_vxlan::Tunnels,
    specs: BTreeMap<NetworkId, TunnelSpec>,
    vnis: BTreeMap<PortId, Vni>,
    ports: BTreeMap<Vni, PortId>,
    receiver: Option<(u16, Arc<OwnedFd>)>,
    senders: BTreeMap<IpAddr, Senders>,
    plan: Encapsulator,
    out: udp::Sender,
    inbox: Option<Inbox>,
    ready: bool,
    /// Whether a narrow path is known of any tunnel.
    narrow: bool,
    narrowed: Vec<Narrowed>,
    reply: Vec<u8>,
}

/// The messages that the receiving socket gave, and the frames that are made of them.
#[derive(Debug)]
pub(super) struct Inbox {
    receiver: udp::Receiver,
    into: Decapsulator,
    singles: Vec<(IpAddr, usize)>,
    /// Messages to ask for.
    at_once: usize,
}

impl Inbox {
    fn new() -> Self {
        let (receiver, into) = (udp::Receiver::new(), Decapsulator::new());
        Self { receiver, into, singles: Vec::new(), at_once: LARGE_AT_ONCE }
    }

    /// Opens the messages from `first` on that belong together, of `count`, and says how many they are: one
    /// that is several datagrams, or all that are one each.
    pub(super) fn open(
        &mut self,
        tunnels: &mut vswitch_vxlan::Tunnels,
        first: usize,
        count: usize,
        now: Instant,
    ) -> usize {
        let Self { receiver, into, singles, .. } = self;
        let head = receiver.received(first);
        let from = first * STRIDE;
        if head.segment.is_some() {
            let received = Received { from: head.from, size: head.segment };
            into.open(tunnels, received, &mut receiver.room()[from..from + head.length], now);
            return 1;
        }
        singles.clear();
        let alone = (first..count).map(|number| receiver.received(number));
        singles.extend(alone.take_while(|one| one.segment.is_none()).map(|one| (one.from, one.length)));
        into.open_each(tunnels, singles, STRIDE, &mut receiver.room()[from..], now);
        singles.len()
    }

    /// The frames that were opened last.
    pub(super) fn inners(&self) -> &[Inner] {
        self.into.inners()
    }

    /// The drops meanwhile: of which network, and why.
    pub(super) fn dropped(&self) -> &[(Option<Vni>, DropReason)] {
        self.into.dropped()
    }

    /// Makes `frame` one of the frames that were opened last; `first` is where opening began.
    pub(super) fn copy(&mut self, number: usize, first: usize, frame: &mut Frame) {
        let room = &self.receiver.room()[first * STRIDE..];
        if let Some(inner) = self.into.inners().get(number) {
            inner.copy_into(room, frame);
        }
    }
}

impl Tunnels {
    /// No tunnels. `seed` is secret and random.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table: vswitch_vxlan::Tunnels::new(Limits::default(), seed),
            specs: BTreeMap::new(),
            vnis: BTreeMap::new(),
            ports: BTreeMap::new(),
            receiver: None,
            senders: BTreeMap::new(),
            plan: Encapsulator::new(Sender::default(), seed),
            out: udp::Sender::new(),
            inbox: None,
            ready: false,
            narrow: false,
            narrowed: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// Takes a socket into use. The receiving one that was there before is given back.
    pub(super) fn set_socket(&mut self, which: TunnelSocket, fd: Arc<OwnedFd>) -> Option<Arc<OwnedFd>> {
        match which {
            TunnelSocket::Receiver { port } => {
                self.ready = true;
                self.inbox.get_or_insert_with(Inbox::new);
                self.receiver.replace((port, fd)).map(|(_, old)| old)
            }
            TunnelSocket::Sender { local, index } => {
                let restored = path_mtu::restore(fd.as_fd(), SocketAddr::new(local, 0));
                debug_assert_eq!(restored, Ok(()), "a socket of tunnels");
                let senders = self.senders.entry(local).or_insert_with(|| Senders {
                    sockets: (0..TUNNEL_SENDERS).map(|_| None).collect(),
                    segments: SEGMENTS_MAX,
                });
                if let Some(socket) = senders.sockets.get_mut(usize::from(index)) {
                    *socket = Some(fd);
                }
                None
            }
        }
    }

    /// Closes a socket. The receiving one is given back.
    pub(super) fn close_socket(&mut self, which: TunnelSocket) -> Option<Arc<OwnedFd>> {
        match which {
            TunnelSocket::Receiver { port } => {
                let closed = self.receiver.take_if(|(open, _)| *open == port);
                if closed.is_some() {
                    (self.ready, self.inbox) = (false, None);
                }
                closed.map(|(_, fd)| fd)
            }
            TunnelSocket::Sender { local, index } => {
                let senders = self.senders.get_mut(&local)?;
                *senders.sockets.get_mut(usize::from(index))? = None;
                if senders.sockets.iter().all(Option::is_none) {
                    self.senders.remove(&local);
                }
                None
            }
        }
    }

    /// Makes the tunnel of a network; says the largest network packet that it takes.
    pub(super) fn add(&mut self, network: NetworkId, spec: TunnelSpec) -> Result<usize, String> {
        if self.specs.contains_key(&network) {
            return Err("the network has a tunnel".to_owned());
        }
        let TunnelSpec { port, vni, local, underlay_mtu, learning, .. } = spec;
        let underlay_mtu = usize::try_from(underlay_mtu).unwrap_or(usize::MAX);
        let settings = Settings { vni, local, underlay_mtu, tags: false, learning };
        let mtu = self.table.add(settings).map_err(|error| error.to_string())?.mtu();
        self.vnis.insert(port, vni);
        self.ports.insert(vni, port);
        self.specs.insert(network, spec);
        Ok(mtu)
    }

    /// Forgets the tunnel of a network; says which port it was.
    pub(super) fn remove(&mut self, network: NetworkId) -> Option<PortId> {
        let spec = self.specs.remove(&network)?;
        self.table.remove(spec.vni);
        self.vnis.remove(&spec.port);
        self.ports.remove(&spec.vni);
        Some(spec.port)
    }

    /// Sets the MTU of the underlay of a network's tunnel; says which port that is, and the largest packet it
    /// takes now.
    pub(super) fn set_mtu(&mut self, network: NetworkId, bytes: u32) -> Option<(PortId, usize)> {
        let spec = self.specs.get_mut(&network)?;
        spec.underlay_mtu = bytes;
        // The interface may be another one, which may segment where the last one did not.
        if let Some(senders) = self.senders.get_mut(&spec.local) {
            senders.segments = SEGMENTS_MAX;
        }
        let tunnel = self.table.get_mut(spec.vni)?;
        tunnel.set_underlay_mtu(usize::try_from(bytes).unwrap_or(usize::MAX));
        Some((spec.port, tunnel.mtu()))
    }

    /// The tunnel of a network, and its port.
    pub(super) fn of(&mut self, network: NetworkId) -> Option<(PortId, &mut Tunnel)> {
        let spec = self.specs.get(&network)?;
        Some((spec.port, self.table.get_mut(spec.vni)?))
    }

    /// The narrow paths of the tunnel of a network, with the room that each has.
    pub(super) fn narrow_paths(&self, network: NetworkId) -> Vec<(IpAddr, u32)> {
        let tunnel = self.specs.get(&network).and_then(|spec| self.table.get(spec.vni));
        let paths = tunnel.into_iter().flat_map(Tunnel::narrow_paths);
        paths.map(|(vtep, room)| (vtep, u32::try_from(room).unwrap_or(u32::MAX))).collect()
    }

    /// The port of the tunnel with this identifier.
    pub(super) fn port_of(&self, vni: Vni) -> Option<PortId> {
        self.ports.get(&vni).copied()
    }

    /// Whether the receiving socket may have something.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Notes that the receiving socket has something.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// When [`poll`](Self::poll) wants to be called.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.table.sweep_at()
    }

    /// Forgets what is too old.
    pub(super) fn poll(&mut self, now: Instant) {
        if self.table.sweep_at().is_some_and(|at| at <= now) {
            self.table.sweep(now);
            self.narrow = self.table.any_is_narrow();
        }
    }

    /// Takes what the receiving socket has, as much as one burst may be. Returns how many messages there are,
    /// and the inbox in which they are opened, to be [given back](Self::give_back).
    pub(super) fn receive(&mut self) -> Option<(usize, Inbox)> {
        let Some(((_, socket), mut inbox)) = self.receiver.as_ref().zip(self.inbox.take()) else {
            self.ready = false;
            return None;
        };
        let asked = inbox.at_once;
        let count = inbox.receiver.receive(socket.as_fd(), asked).unwrap_or(0);
        self.ready = count == asked;
        let large = (0..count).any(|number| inbox.receiver.received(number).length > LARGE_BYTES);
        inbox.at_once = if large { LARGE_AT_ONCE } else { BATCH };
        Some((count, inbox))
    }

    /// Takes the inbox back.
    pub(super) fn give_back(&mut self, inbox: Inbox) {
        self.inbox = Some(inbox);
    }

    /// The tunnels, for opening what came.
    pub(super) fn table(&mut self) -> &mut vswitch_vxlan::Tunnels {
        &mut self.table
    }

    /// Answers questions about who lives elsewhere by a record, among the frames of a port that are sent to
    /// many.
    pub(super) fn answer(&mut self, ingress: PortId, switch: &Switch, verdicts: &mut Verdicts) {
        let Some(port) = switch.port(ingress) else { return };
        let Some(spec) = self.specs.get(&port.network).filter(|spec| spec.port != ingress) else { return };
        let Some(tunnel) = self.table.get(spec.vni) else { return };
        if !switch.reaches(ingress, spec.port) {
            return;
        }
        let reply = &mut self.reply;
        let mut ask = |frame: &mut Frame| match tunnel.answer(frame, reply) {
            Answer::Reply => {
                frame.fill(reply);
                frame.parse().is_ok()
            }
            Answer::Carry | Answer::Here => false,
        };
        let Verdicts { flood, multicast, forward, .. } = verdicts;
        forward.extend(flood.extract_if(.., &mut ask).map(|frame| (ingress, frame)));
        let asked = multicast.extract_if(.., |(_, frame)| ask(frame));
        forward.extend(asked.map(|(_, frame)| (ingress, frame)));
    }

    /// Takes out of `forward` what is too large for its path, to be told about and dropped. Other frames that
    /// are too large are carried: nobody would learn why they are missing.
    pub(super) fn refuse(&self, ingress: PortId, switch: &Switch, verdicts: &mut Verdicts) {
        if !self.narrow {
            return;
        }
        let room = |egress: PortId, frame: &Frame| {
            let tunnel = self.vnis.get(&egress).and_then(|vni| self.table.get(*vni))?;
            tunnel.too_big(frame).filter(|_| switch.can_refuse(ingress, frame))
        };
        let Verdicts { forward, too_big, .. } = verdicts;
        let refused = forward.extract_if(.., |(egress, frame)| room(*egress, frame).is_some());
        too_big.extend(refused.map(|(egress, frame)| {
            let room = room(egress, &frame).unwrap_or(ROOM_MIN);
            (egress, room, frame)
        }));
    }

    /// Sends frames through the tunnel that a port is, in order per flow.
    pub(super) fn send(&mut self, egress: PortId, frames: &[Frame], counters: &Counters) {
        let Some(tunnel) = self.vnis.get(&egress).and_then(|vni| self.table.get(*vni)) else { return };
        let Some(senders) = self.senders.get_mut(&tunnel.settings().local) else {
            return counters.drop(egress, DropReason::TxRefused, frames.len() as u64);
        };
        let port = self.receiver.as_ref().map_or(UDP_PORT, |(port, _)| *port);
        self.plan.set_sender(Sender { port, sockets: TUNNEL_SENDERS, segments: senders.segments });
        self.plan.plan(tunnel, frames);
        for (_, reason) in self.plan.refused() {
            counters.drop(egress, *reason, 1);
        }
        let refused: usize =
            self.plan.refused().iter().filter_map(|(at, _)| frames.get(*at)).map(Frame::len).sum();
        let bytes = frames.iter().map(Frame::len).sum::<usize>() - refused;
        counters.add(egress, Counter::SentFrames, (frames.len() - self.plan.refused().len()) as u64);
        counters.add(egress, Counter::SentBytes, bytes as u64);
        let narrowed = &mut self.narrowed;
        let mut errand = Errand { plan: &self.plan, frames, egress, counters, out: &mut self.out, narrowed };
        for sends in self.plan.sends().chunk_by(|one, next| one.socket == next.socket) {
            errand.send(senders, sends);
        }
        self.note_paths(egress);
    }

    /// Remembers what the kernel said of paths.
    fn note_paths(&mut self, egress: PortId) {
        if self.narrowed.is_empty() {
            return;
        }
        let tunnel = self.vnis.get(&egress).and_then(|vni| self.table.get_mut(*vni));
        let Some(tunnel) = tunnel else { return self.narrowed.clear() };
        for Narrowed { to, mtu, .. } in self.narrowed.drain(..) {
            tunnel.note_path(to, mtu);
        }
        self.narrow = self.table.any_is_narrow();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vswitch_engine::{Network, Port, Station};
    use vswitch_frame::{GroupId, Mac, Pool};
    use vswitch_vxlan::Record;

    use super::*;

    const NETWORK: NetworkId = NetworkId(0);
    const CONTAINER: PortId = PortId(1);
    const TUNNEL: PortId = PortId(2);
    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OWNER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// A network with a container and a tunnel, which are in these groups.
    fn made(groups: [GroupId; 2]) -> (Tunnels, Switch) {
        let mut tunnels = Tunnels::new(1);
        let spec = TunnelSpec {
            port: TUNNEL,
            group: groups[1],
            vni: Vni::new(5).expect("24 bits"),
            local: LOCAL,
            underlay_mtu: 1500,
            learning: false,
        };
        let mtu = tunnels.add(NETWORK, spec).expect("the first");
        assert_eq!(mtu, 1450);
        let (_, tunnel) = tunnels.of(NETWORK).expect("made");
        tunnel.add_peer(PEER).expect("another host");
        let addresses = vec![Ipv4Addr::new(10, 0, 0, 9).into()];
        tunnel.table.set(Record { mac: OWNER, addresses, vtep: PEER, version: 1 });
        let mut switch = Switch::new(vswitch_engine::Limits::default(), 1);
        switch.add_network(NETWORK, Network::default()).expect("new");
        for (id, group, station) in
            [(CONTAINER, groups[0], Station::Unknown), (TUNNEL, groups[1], Station::Tunnel)]
        {
            let port = Port { network: NETWORK, group, mtu, addresses: Vec::new(), station };
            switch.add_port(id, port).expect("new");
        }
        (tunnels, switch)
    }

    /// A question of the container's for the address that ends in `last`.
    fn question(pool: &mut Pool, last: u8) -> Frame {
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let arp = [&head[..], &ASKER.0, &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, last]].concat();
        let mut frame = pool.take().expect("a slot");
        frame.fill(&[&Mac::BROADCAST.0[..], &ASKER.0, &[8, 6], &arp].concat());
        frame.parse().expect("a frame");
        frame
    }

    #[test]
    fn what_a_record_answers_is_not_carried() {
        let mut pool = Pool::new(4);
        let (mut tunnels, switch) = made([CONTAINER, TUNNEL].map(GroupId::own));
        let mut verdicts = Verdicts::default();
        verdicts.flood.extend([question(&mut pool, 9), question(&mut pool, 8)]);
        tunnels.answer(CONTAINER, &switch, &mut verdicts);
        assert_eq!((verdicts.forward.len(), verdicts.flood.len()), (1, 1));
        let (egress, reply) = &verdicts.forward[0];
        assert_eq!((*egress, reply.source(), reply.destination()), (CONTAINER, OWNER, ASKER));
    }

    #[test]
    fn nobody_is_told_of_who_is_behind_a_wall() {
        let mut pool = Pool::new(4);
        let (mut tunnels, switch) = made([GroupId::containers_of(NETWORK); 2]);
        let mut verdicts = Verdicts::default();
        verdicts.flood.push(question(&mut pool, 9));
        tunnels.answer(CONTAINER, &switch, &mut verdicts);
        assert_eq!((verdicts.forward.len(), verdicts.flood.len()), (0, 1));
    }

    #[test]
    fn what_cannot_be_sent_is_counted() {
        let mut pool = Pool::new(4);
        let counters = Counters::new().expect("memory");
        let (mut tunnels, _) = made([CONTAINER, TUNNEL].map(GroupId::own));
        tunnels.send(TUNNEL, &[question(&mut pool, 9)], &counters);
        let counted = counters.read(TUNNEL);
        assert_eq!((counted.sent_frames, counted.drops[DropReason::TxRefused.index()]), (0, 1));
    }

    /// A packet of so many bytes from the container to the owner.
    fn packet(pool: &mut Pool, bytes: u16, flags: u8) -> Frame {
        let [high, low] = bytes.to_be_bytes();
        let ip = [0x45, 0, high, low, 0, 1, flags, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
        let mut frame = pool.take().expect("a slot");
        let rest = vec![0; usize::from(bytes) - ip.len()];
        frame.fill(&[&OWNER.0[..], &ASKER.0, &[8, 0], &ip, &rest].concat());
        frame.parse().expect("a frame");
        frame
    }

    #[test]
    fn what_is_too_large_for_its_path_is_told_of_or_carried() {
        const DONT_FRAGMENT: u8 = 0x40;
        let mut pool = Pool::new(8);
        let (mut tunnels, mut switch) = made([CONTAINER, TUNNEL].map(GroupId::own));
        let gateway =
            vswitch_engine::Gateway { mac: Mac([2, 0, 0, 0, 0, 7]), addresses: Vec::new(), isolated: false };
        let subnets = vec!["10.0.0.0/24".parse().expect("a net")];
        switch.remove_network(NETWORK);
        let network = Network { gateway: Some(gateway), subnets, ..Network::default() };
        switch.add_network(NETWORK, network).expect("new");
        let group = GroupId::own(CONTAINER);
        let (addresses, station) = (Vec::new(), Station::Unknown);
        let port = Port { network: NETWORK, group, mtu: 1500, addresses, station };
        switch.add_port(CONTAINER, port).expect("new");
        let mut sorted = |tunnels: &Tunnels, bytes, flags| {
            let mut verdicts = Verdicts::default();
            verdicts.forward.push((TUNNEL, packet(&mut pool, bytes, flags)));
            tunnels.refuse(CONTAINER, &switch, &mut verdicts);
            let too_big = std::mem::take(&mut verdicts.too_big).into_iter();
            let forward = verdicts.forward.drain(..).map(|(egress, frame)| (egress, 0, frame));
            let all: Vec<(PortId, usize, Frame)> = too_big.chain(forward).collect();
            let fates: Vec<(PortId, usize)> = all.iter().map(|(egress, room, _)| (*egress, *room)).collect();
            all.into_iter().for_each(|(.., frame)| pool.free(frame));
            fates
        };
        assert_eq!(sorted(&tunnels, 1400, DONT_FRAGMENT), [(TUNNEL, 0)], "nothing is known of the path");
        tunnels.narrowed.push(Narrowed { to: PEER, mtu: 1400, size: 1450 });
        tunnels.note_paths(TUNNEL);
        assert_eq!(sorted(&tunnels, 1400, DONT_FRAGMENT), [(TUNNEL, 1350)]);
        assert_eq!(sorted(&tunnels, 1350, DONT_FRAGMENT), [(TUNNEL, 0)], "it fits");
        assert_eq!(sorted(&tunnels, 1400, 0), [(TUNNEL, 0)], "it may be cut up");
        let start = Instant::from_nanos(1);
        tunnels.poll(start);
        assert_eq!(tunnels.poll_at(), Some(start + vswitch_vxlan::path::AGE));
        tunnels.poll(start + vswitch_vxlan::path::AGE);
        assert_eq!(sorted(&tunnels, 1400, DONT_FRAGMENT), [(TUNNEL, 0)], "it is forgotten");
    }

    #[test]
    fn sockets_are_closed_by_port() {
        let fd = || Arc::new(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket").into());
        let (mut tunnels, _) = made([CONTAINER, TUNNEL].map(GroupId::own));
        let receiver = TunnelSocket::Receiver { port: 4789 };
        for which in [receiver, TunnelSocket::Sender { local: LOCAL, index: 3 }] {
            assert!(tunnels.set_socket(which, fd()).is_none());
        }
        assert!(tunnels.close_socket(TunnelSocket::Receiver { port: 8472 }).is_none(), "another one");
        assert!(tunnels.is_ready() && tunnels.close_socket(receiver).is_some());
        assert!(!tunnels.is_ready());
    }
}
