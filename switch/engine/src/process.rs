//! The way of a frame through the switch, and the tiers that make it fast.
//!
//! # Theory of operation
//!
//! A burst comes from one port, and most of its frames come from one address and go to one address. So:
//!
//! * **Tier 1** compares the two addresses with those of the frame before. If they are the same, the
//!   decision is too: the table is not touched.
//! * **Tier 2** decides and remembers: it admits and learns the source, looks the destination up, and
//!   applies the rules between two ports.
//!
//! Frames to the gateway's own address are set aside for it. Where there is a gateway, those sent to many are
//! looked at one by one, for some of them are for the gateway alone.
//!
//! The frame itself (whether it is well-formed, and whether it fits the egress port's MTU) is looked at in
//! every tier.
//!
//! The memo lives for one burst. Within it the table changes only by learning, that is when the source is a
//! new one: then the destination is looked up again, for it may be the very address just learned.
//! A source that was refused or could not be learned is not remembered, so that it is counted every time.

use std::sync::Arc;

use vswitch_frame::{DropReason, Frame, Instant, Mac, NetworkId, PortId};

use crate::gateway;
use crate::gateway::site::Site;
use crate::network::Station;
use crate::ports::{Port, Reach};
use crate::security::Guard;
use crate::switch::Switch;
use crate::table::{Key, Learned};
use crate::verdicts::{Verdict, Verdicts};

/// The way to a destination, as it is remembered.
#[derive(Clone, Copy, Debug)]
struct Way {
    verdict: Verdict,
    /// Whether the gateway may claim the frame for itself, for which it must be looked at.
    claimable: bool,
}

impl From<Verdict> for Way {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, claimable: false }
    }
}

/// Tier 1: the source of this burst that the table was last found to have at its port, and the
/// destination that was last looked up.
#[derive(Debug, Default)]
struct Memo {
    source: Option<Mac>,
    destination: Option<(Mac, Way)>,
    /// The sender beyond the tunnel that was heard last, with its guard, if it has one.
    remote: Option<(Mac, Option<Arc<Guard>>)>,
}

/// The watch over a port, which looks at its frames before they are believed.
#[derive(Debug)]
enum Watch {
    Nobody,
    /// The guard of the endpoint behind it.
    Endpoint(Arc<Guard>),
    /// The guards of the endpoints beyond the tunnel that it is.
    Remotes(NetworkId),
}

impl Switch {
    /// Sorts the burst that one port received into `verdicts`, and drains it: every frame of it is then
    /// in exactly one of their vectors, in the order of the burst. Frames need not have been parsed.
    ///
    /// Frames from a port that is not there are dropped as [`DropReason::NoReceiver`]: it is on no network.
    pub fn process(
        &mut self,
        ingress: PortId,
        burst: &mut Vec<Frame>,
        verdicts: &mut Verdicts,
        now: Instant,
    ) {
        let mut memo = Memo::default();
        let watch = self.watch(ingress);
        let (ruled, hosted, gated) =
            (self.is_ruled(ingress), self.is_host(ingress), self.gated_host(ingress));
        for mut frame in burst.drain(..) {
            let mut verdict = self.decide(ingress, &mut frame, &watch, &mut memo, now);
            if let (Some(host), Ok(decided)) = (gated, verdict) {
                verdict = self.pass_gate(host, ingress, &frame, decided);
            }
            if let (true, Ok(decided)) = (ruled, verdict) {
                verdict = self.judge(ingress, &mut frame, decided, &mut verdicts.answered, now);
            }
            if let (true, Ok(decided)) = (hosted, verdict) {
                verdict = self.vet_forwarded(ingress, &frame, decided, now);
            }
            match verdict {
                Ok(Verdict::Forward { egress, mtu }) if frame.mtu_bytes() > mtu && self.is_tunnel(egress) => {
                    verdicts.too_big.push((egress, mtu, frame));
                }
                Ok(Verdict::Forward { egress, mtu }) if frame.mtu_bytes() > mtu => {
                    verdicts.drop.push((DropReason::TxTooBig, egress, frame));
                }
                Ok(Verdict::Forward { egress, .. }) => verdicts.forward.push((egress, frame)),
                Ok(Verdict::Flood) => verdicts.flood.push(frame),
                Ok(Verdict::Local) => verdicts.local.push(frame),
                Ok(Verdict::Multicast(audience)) => verdicts.multicast.push((audience, frame)),
                Ok(Verdict::Drop(reason)) | Err(reason) => verdicts.drop.push((reason, ingress, frame)),
            }
        }
    }

    #[inline]
    fn decide(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        watch: &Watch,
        memo: &mut Memo,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        frame.parse()?;
        match watch {
            Watch::Nobody => {}
            Watch::Endpoint(guard) => guard.check(frame)?,
            Watch::Remotes(network) => self.check_remote(*network, frame, memo)?,
        }
        let (source, destination) = (frame.source(), frame.destination());
        let way = match memo.destination {
            Some((same, way)) if same == destination && memo.source == Some(source) => way, // tier 1
            _ => self.decide_anew(ingress, source, destination, memo, now)?,
        };
        if way.claimable && self.gateway_claims(ingress, frame) {
            return if matches!(watch, Watch::Remotes(_)) {
                Err(DropReason::NotServed)
            } else {
                Ok(Verdict::Local)
            };
        }
        Ok(if destination.is_multicast() {
            self.snoop(ingress, frame, way.verdict, now)
        } else {
            way.verdict
        })
    }

    /// The watch over a port.
    fn watch(&self, ingress: PortId) -> Watch {
        match self.ports.get(ingress) {
            Some(port) if port.station == Station::Tunnel => Watch::Remotes(port.network),
            _ => self.ports.guard(ingress).map_or(Watch::Nobody, Watch::Endpoint),
        }
    }

    /// Looks at a frame from beyond a tunnel.
    fn check_remote(&self, network: NetworkId, frame: &Frame, memo: &mut Memo) -> Result<(), DropReason> {
        let source = frame.source();
        let guard = match &memo.remote {
            Some((same, guard)) if *same == source => guard,
            _ => {
                let guard = self.remotes.guard(Key::new(network, source)).cloned();
                &memo.remote.insert((source, guard)).1
            }
        };
        guard.as_ref().map_or(Ok(()), |guard| guard.check(frame))
    }

    /// Tier 2.
    fn decide_anew(
        &mut self,
        ingress: PortId,
        source: Mac,
        destination: Mac,
        memo: &mut Memo,
        now: Instant,
    ) -> Result<Way, DropReason> {
        let Some(from) = self.ports.get(ingress) else {
            return Err(DropReason::NoReceiver);
        };
        let network = from.network;
        if !source.is_station() {
            return Err(DropReason::BadSource);
        }
        if destination.is_link_local() {
            return Err(DropReason::LinkLocal);
        }
        let gateway = self.gateway_seen_from(from);
        if gateway == Some(source) {
            return Err(DropReason::SourceTaken);
        }
        if memo.source != Some(source) {
            match self.table.learn(Key::new(network, source), ingress, now) {
                Learned::Here => memo.source = Some(source),
                Learned::Full => self.stats.unlearned += 1,
                Learned::Taken => return Err(DropReason::SourceTaken),
            }
        }
        let way = match gateway {
            // Other hosts' containers have gateways of their own.
            Some(gateway) if gateway == destination && from.station == Station::Tunnel => {
                Verdict::Drop(DropReason::NotServed).into()
            }
            Some(gateway) if gateway == destination => Verdict::Local.into(),
            _ => {
                let verdict = self.look_up(ingress, from, destination);
                Way { verdict, claimable: gateway.is_some() && destination.is_multicast() }
            }
        };
        memo.destination = Some((destination, way));
        Ok(way)
    }

    /// The gateway's address, of which nobody but the host may make use: it has the same.
    fn gateway_seen_from(&self, from: &Port) -> Option<Mac> {
        let gateway = self.ports.network(from.network)?.gateway.as_ref()?;
        (from.station != Station::Host).then_some(gateway.mac)
    }

    /// Whether a frame to many is for the gateway alone.
    #[inline(never)]
    fn gateway_claims(&self, ingress: PortId, frame: &Frame) -> bool {
        Site::of(&self.ports, ingress).is_some_and(|site| gateway::claims(&site, frame))
    }

    /// The verdict on a frame from a port to an address, whatever its size.
    fn look_up(&self, ingress: PortId, from: &Port, destination: Mac) -> Verdict {
        if destination.is_multicast() {
            return self.flood(ingress);
        }
        let Some(egress) = self.table.look_up(Key::new(from.network, destination)) else {
            return self.flood(ingress);
        };
        match self.ports.get(egress) {
            Some(_) if egress == ingress => Verdict::Drop(DropReason::Reflected),
            Some(to) if to.is_apart_from(from) => Verdict::Drop(DropReason::Isolated),
            Some(to) => Verdict::Forward { egress, mtu: to.mtu },
            None => {
                debug_assert!(false, "{destination} is behind {egress:?}, which is gone");
                self.flood(ingress)
            }
        }
    }

    fn flood(&self, ingress: PortId) -> Verdict {
        match self.ports.reach(ingress) {
            Reach::Some => Verdict::Flood,
            Reach::Isolated => Verdict::Drop(DropReason::Isolated),
            Reach::Alone => Verdict::Drop(DropReason::NoReceiver),
        }
    }
}
