//! The switch between the hosts, as the datapath runs it: process a burst, coalesce per port, and split again
//! for hosts that take no super-frames.

use std::time::Duration;

use smoltcp::time::Instant as HostInstant;
use vswitch_engine::{Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, DropReason, Frame, GroupId, Instant, NetworkId, Pool, PortId};

use crate::cable::{Cable, Faults};
use crate::host::{Host, MTU};

/// The fates of the frames that the switch received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) received: usize,
    /// Frames of the gateways' own.
    pub(crate) made: usize,
    pub(crate) forwarded: usize,
    pub(crate) flooded: usize,
    pub(crate) merged: usize,
    /// By index of the reason.
    pub(crate) dropped: Vec<usize>,
}

/// Hosts on a switch. Host number `n` is behind port `n`.
pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
    pub(crate) switch: Switch,
    pub(crate) account: Account,
    cables: Vec<Cable>,
    faults: Faults,
    coalescer: Coalescer,
    pool: Pool,
    verdicts: Verdicts,
    now: Duration,
}

impl World {
    /// A switch with this many networks.
    pub(crate) fn new(networks: u16, faults: Faults) -> Self {
        Self::of((0..networks).map(|_| Network::default()), faults)
    }

    /// A switch with these networks.
    pub(crate) fn of(networks: impl IntoIterator<Item = Network>, faults: Faults) -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        for (id, network) in (0..).zip(networks) {
            switch.add_network(NetworkId(id), network).expect("a new network");
        }
        Self {
            hosts: Vec::new(),
            switch,
            account: Account { dropped: vec![0; DropReason::COUNT], ..Account::default() },
            cables: Vec::new(),
            faults,
            coalescer: Coalescer::new(2),
            pool: Pool::new(1024),
            verdicts: Verdicts::default(),
            now: Duration::ZERO,
        }
    }

    /// Plugs a host in; answers its port.
    pub(crate) fn plug(&mut self, host: Host, network: u16, group: Option<GroupId>) -> PortId {
        let port = PortId(u16::try_from(self.hosts.len()).expect("few hosts"));
        let group = group.unwrap_or(GroupId::own(port));
        let port_of = Port { network: NetworkId(network), group, mtu: MTU, ..Port::default() };
        self.plug_as(host, port_of)
    }

    /// Plugs in a host of which the switch knows who it is.
    pub(crate) fn plug_known(&mut self, host: Host, network: u16, station: Station) -> PortId {
        let port = PortId(u16::try_from(self.hosts.len()).expect("few hosts"));
        let (group, addresses) = (GroupId::own(port), vec![host.mac]);
        let port_of = Port { network: NetworkId(network), group, mtu: MTU, addresses, station };
        self.plug_as(host, port_of)
    }

    fn plug_as(&mut self, host: Host, port_of: Port) -> PortId {
        let port = PortId(u16::try_from(self.hosts.len()).expect("few hosts"));
        self.switch.add_port(port, port_of).expect("a new port");
        self.cables.push(Cable::new(self.faults, u64::from(port.0) + 1));
        self.hosts.push(host);
        port
    }

    fn clock(&self) -> Instant {
        Instant::ZERO + self.now
    }

    /// Lets time pass until `done`, or until there was time enough; says whether it was done.
    pub(crate) fn run(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            let now = HostInstant::from_micros(i64::try_from(self.now.as_micros()).expect("short"));
            let wishes: Vec<HostInstant> = self.hosts.iter_mut().filter_map(|host| host.poll(now)).collect();
            let quiet = (0..self.hosts.len()).map(|host| self.turn(host)).filter(|moved| *moved).count() == 0;
            self.switch.poll(self.clock());
            if done(self) {
                return true;
            }
            let wish = wishes
                .iter()
                .min()
                .map_or(limit, |wish| Duration::from((*wish - now).max(smoltcp::time::Duration::ZERO)));
            let step = if quiet { wish } else { Duration::ZERO };
            self.now += step.clamp(Duration::from_micros(10), Duration::from_secs(1));
        }
        false
    }

    /// One burst of one host through the switch.
    fn turn(&mut self, host: usize) -> bool {
        let ingress = PortId(u16::try_from(host).expect("few hosts"));
        let sent = self.cables[host].carry(std::mem::take(&mut self.hosts[host].nic.sent));
        let mut burst: Vec<Frame> = Vec::new();
        for bytes in &sent {
            let mut frame = self.pool.take().expect("a slot");
            frame.fill(bytes);
            burst.push(frame);
        }
        self.account.received += burst.len();
        let clock = self.clock();
        self.switch.process(ingress, &mut burst, &mut self.verdicts, clock);
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.account.made += self.switch.serve(ingress, &mut verdicts, &mut self.pool, clock);
        self.account.forwarded += verdicts.forward.len();
        self.account.flooded += verdicts.flood.len() + verdicts.multicast.len();
        for (reason, _, frame) in verdicts.drop.drain(..) {
            self.account.dropped[reason.index()] += 1;
            self.pool.free(frame);
        }
        while let Some(egress) = verdicts.forward.first().map(|(port, _)| *port) {
            let run = verdicts.forward.extract_if(.., |(port, _)| *port == egress);
            let frames: Vec<Frame> = run.map(|(_, frame)| frame).collect();
            self.transmit(egress, frames);
        }
        let targets: Vec<PortId> = self.switch.flood_targets(ingress).map(|(port, _)| port).collect();
        for frame in verdicts.flood.drain(..) {
            for target in &targets {
                self.hosts[target.index()].nic.received.push_back(frame.bytes().to_vec());
            }
            self.pool.free(frame);
        }
        for (audience, frame) in verdicts.multicast.drain(..) {
            for (target, _) in self.switch.multicast_targets(ingress, audience) {
                self.hosts[target.index()].nic.received.push_back(frame.bytes().to_vec());
            }
            self.pool.free(frame);
        }
        self.verdicts = verdicts;
        assert_eq!(self.pool.available(), self.pool.capacity(), "a slot was lost");
        !sent.is_empty()
    }

    fn transmit(&mut self, egress: PortId, mut frames: Vec<Frame>) {
        let before = frames.len();
        self.coalescer.coalesce(&mut frames, Accepts::ALL, &mut self.pool);
        self.account.merged += before - frames.len();
        for frame in frames {
            let mut pieces = Vec::new();
            let mut splitter = Splitter::new(&frame, Accepts::NONE);
            while splitter.next_batch(&mut self.pool, &mut pieces).expect("slots") {}
            for piece in pieces {
                self.hosts[egress.index()].nic.received.push_back(piece.bytes().to_vec());
                self.pool.free(piece);
            }
            self.pool.free(frame);
        }
    }
}
