//! Guests of the gateway: each is offered the frames that the switch set aside, in one order.
//!
//! | tier | guest | takes |
//! |---|---|---|
//! | 3a | [relays](crate::relay) | frames of connections that a relay has with the container |
//! | 3b | [tunnels](crate::tunnel) | questions (ARP, ND) sent to many, for who lives beyond by a record; what is too large for its path |
//! | 3c | [turn-back](crate::uplink) | packets for the host that lead back inside: to a published port or a mapping |
//! | 3d | gateway ([`vswitch_engine::gateway`]) | everything else that is for it: answers, routes, hands to the host |
//! | 3e | [names](crate::names) | questions for names, which the gateway found among its own |
//! | 3f | [way out](crate::uplink) | packets that leave, which the gateway found among its own |
//!
//! Relays come first since a frame of theirs may have any client's address as its target. A burst without
//! local frames reaches no guest but tunnels, which look at its frames for many: between containers of one
//! network the translator is never touched.

use vswitch_engine::Verdicts;
use vswitch_frame::{Instant, PortId};

use crate::mirror;
use crate::names::Origin;
use crate::turn::Datapath;
use crate::worker::Worker;

impl Datapath {
    /// Gives every frame of a burst that is for the gateway a fate. Returns how many frames were made.
    pub(crate) fn serve(&mut self, ingress: PortId, now: Instant) -> usize {
        self.tunnels.refuse(ingress, &self.switch, &mut self.worker.verdicts); // 3b
        let Verdicts { local, too_big, flood, multicast, .. } = &self.worker.verdicts;
        let (is_local, is_for_many) =
            (!(local.is_empty() && too_big.is_empty()), !(flood.is_empty() && multicast.is_empty()));
        let mut made = 0;
        if is_local {
            self.served += 1;
            made += self.serve_relays(ingress, now); // 3a
        }
        if is_for_many {
            self.tunnels.answer(ingress, &self.switch, &mut self.worker.verdicts); // 3b
        }
        if is_local {
            self.uplink(now).turn_back(ingress); // 3c
            let Worker { verdicts, pool, .. } = &mut self.worker;
            made += self.switch.serve(ingress, verdicts, pool, now); // 3d
            let origin = Origin { switch: &self.switch, ingress, now };
            made += self.resolver.serve(origin, verdicts, pool); // 3e
            made += self.uplink(now).leave(ingress); // 3f
            // Flows are written down before a frame leaves: nobody hears of one that is not.
            mirror::follow(&self.mirror, &mut self.nat);
        }
        made
    }

    fn serve_relays(&mut self, ingress: PortId, now: Instant) -> usize {
        let Self { relays, switch, worker: Worker { verdicts, pool, .. }, counters, .. } = self;
        let held = relays.held();
        relays.take(ingress, switch, verdicts, pool, counters, now);
        relays.held() - held
    }
}

#[cfg(test)]
mod tests {
    use vswitch_contract::counters::Counters;
    use vswitch_contract::mirror::Mirror;
    use vswitch_contract::order::Options;
    use vswitch_engine::{Gateway, Network, Port, Station};
    use vswitch_frame::{GroupId, Mac, NetworkId};
    use vswitch_sys::poll::Poller;
    use vswitch_sys::seqpacket::{Channel, Listener};

    use super::*;
    use crate::desk::line::Line;
    use crate::desk::memory::Desk;

    const NETWORK: NetworkId = NetworkId(0);
    const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const HOSTS: [(PortId, Mac); 2] =
        [(PortId(1), Mac([2, 0, 0, 0, 0, 2])), (PortId(2), Mac([2, 0, 0, 0, 0, 3]))];

    /// A datapath with a network of two ports and a gateway, and the other end of its channel.
    fn datapath() -> (Datapath, Channel) {
        let path = std::env::temp_dir().join(format!("vswitch-serve-{}", std::process::id()));
        let listener = Listener::bind(&path).expect("a socket");
        listener.listen().expect("it listens");
        std::fs::remove_file(&path).expect("it was there");
        let (ours, theirs) = Channel::pair().expect("a pair");
        let poller = Poller::new().expect("a poller");
        let line = Line::new(ours, listener, &poller).expect("a line");
        let desk = Desk::new(line, Options { seed: 1 });
        let (counters, mirror) = (Counters::new().expect("memory"), Mirror::new().expect("memory"));
        let mut datapath = Datapath::new(desk, 1, counters, mirror, poller, 1024);
        let gateway = Gateway { mac: GATEWAY, addresses: vec![[10, 0, 0, 1].into()], isolated: false };
        let network = Network { gateway: Some(gateway), mtu: 1500, ..Network::default() };
        datapath.switch.add_network(NETWORK, network).expect("new");
        for (id, mac) in HOSTS {
            let (group, addresses) = (GroupId::own(id), vec![mac]);
            let station = Station::Unknown;
            let port = Port { network: NETWORK, group, mtu: 1500, addresses, station };
            datapath.switch.add_port(id, port).expect("new");
        }
        (datapath, theirs)
    }

    /// Passes on a burst of three frames from the first port to this address.
    fn pass_on(datapath: &mut Datapath, to: Mac) {
        for last in 0..3 {
            let mut frame = datapath.worker.pool.take().expect("a slot");
            let ip = [0x45, 0, 0, 20, 0, last, 0, 0, 64, 253, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3];
            frame.fill(&[&to.0[..], &HOSTS[0].1.0, &[8, 0], &ip].concat());
            frame.parse().expect("a frame");
            datapath.worker.burst.push(frame);
        }
        datapath.pass_on(HOSTS[0].0, Instant::from_nanos(1));
    }

    #[test]
    fn no_guest_is_asked_about_a_burst_between_containers() {
        let (mut datapath, _control) = datapath();
        for _ in 0..10 {
            pass_on(&mut datapath, HOSTS[1].1);
            pass_on(&mut datapath, Mac::BROADCAST);
        }
        assert_eq!(datapath.served, 0);
        pass_on(&mut datapath, GATEWAY);
        assert_eq!(datapath.served, 1, "and about one for the gateway they are");
    }
}
