//! A random history of datagrams against a naive model: the same fates, and no flow, mapping, permit or port
//! is ever lost or held twice.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::DropReason;
use vswitch_nat::{Limits, Protocol, Uplink};

use crate::support::{Fate, LAN, World, ip, udp};

const FLOWS: usize = 8;
const PORTS: std::ops::Range<u16> = 40_000..40_004;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A container, its port, and the remote: its address and port.
    Out(u8, u16, u8, u16),
    /// From a remote to an outside port.
    In(u8, u16, u16),
    /// Minutes and a second each: never near a time-out.
    Pass(u64),
    Forget(u8),
    Revoke(u16),
    Grant(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, 0..2u16, 0..2u8, 0..3u16).prop_map(|(c, p, r, q)| Step::Out(c, p, r, q)),
        8 => (0..2u8, 0..3u16, PORTS).prop_map(|(r, q, port)| Step::In(r, q, port)),
        2 => (1..4u64).prop_map(Step::Pass),
        1 => (0..3u8).prop_map(Step::Forget),
        1 => PORTS.prop_map(Step::Revoke),
        1 => PORTS.prop_map(Step::Grant),
    ]
}

type Inside = (u8, u16);
type Remote = (u8, u16);

#[derive(Clone, Copy, Debug)]
struct Flow {
    inside: Inside,
    remote: Remote,
    port: u16,
    /// Through a port of its own, not one that others use.
    mapped: bool,
    /// Outside began it, and strangers pay for it.
    is_strangers: bool,
    inside_sent: bool,
    outside_sent: bool,
    /// Outside has sent something after an answer.
    goes_on: bool,
    used: u64,
}

impl Flow {
    fn is_answered(&self) -> bool {
        self.inside_sent && self.outside_sent
    }

    fn is_established(&self) -> bool {
        self.is_answered() && (self.goes_on || !self.is_strangers)
    }

    fn timeout(&self) -> u64 {
        match (self.is_established(), self.is_answered()) {
            (true, _) => 300,
            (false, true) => 30,
            (false, false) => 120,
        }
    }
}

#[derive(Debug, Default)]
struct Model {
    flows: Vec<Flow>,
    claimed: BTreeSet<u16>,
    now: u64,
}

impl Model {
    fn mapping(&self, inside: Inside) -> Option<u16> {
        self.flows.iter().find(|flow| flow.mapped && flow.inside == inside).map(|flow| flow.port)
    }

    fn holders(&self, port: u16) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| flow.mapped && flow.port == port)
    }

    fn permits(&self) -> BTreeSet<(u16, u8)> {
        let sent = self.flows.iter().filter(|flow| flow.mapped && flow.inside_sent);
        sent.map(|flow| (flow.port, flow.remote.0)).collect()
    }

    fn free(&self) -> BTreeSet<u16> {
        let used: BTreeSet<u16> =
            self.flows.iter().filter(|flow| flow.mapped).map(|flow| flow.port).collect();
        self.claimed.difference(&used).copied().collect()
    }

    /// Notes a packet of a flow.
    fn touch(&mut self, at: usize, from_inside: bool) {
        let flow = &mut self.flows[at];
        let before = flow.timeout();
        flow.goes_on |= !from_inside && flow.inside_sent;
        flow.inside_sent |= from_inside;
        flow.outside_sent |= !from_inside;
        if from_inside || flow.timeout() != before {
            flow.used = self.now;
        }
    }

    fn add(&mut self, inside: Inside, remote: Remote, port: u16, mapped: bool, from_inside: bool) {
        let (inside_sent, outside_sent, goes_on, used) = (false, false, false, self.now);
        let is_strangers = !from_inside;
        let flow =
            Flow { inside, remote, port, mapped, is_strangers, inside_sent, outside_sent, goes_on, used };
        self.flows.push(flow);
        self.touch(self.flows.len() - 1, from_inside);
    }

    /// Takes note of the flows that have made way for one of this payer's, and are there no more. Says
    /// whether there is room now.
    fn make_room(&mut self, world: &World, for_strangers: bool) -> Result<bool, TestCaseError> {
        let flows = world.nat.flows(world.now).map(|flow| {
            let is_ours = |tuple: &vswitch_nat::Tuple| tuple.realm.inside().is_some();
            let (own, outside) = match flow {
                flow if is_ours(&flow.initiator) => (flow.initiator, flow.target),
                flow => (flow.target, flow.initiator),
            };
            let ends = [(own.source, own.source_port), (own.target, own.target_port)];
            let [own, other] = ends.map(|(address, port)| format!("{address:?}:{port}"));
            (own, other, outside.target_port)
        });
        let there: BTreeSet<(String, String, u16)> = flows.collect();
        let name = |flow: &Flow| (container(flow.inside), remote(flow.remote), flow.port);
        let is_there = |flow: &Flow| there.contains(&name(flow));
        let (stay, gone): (Vec<Flow>, Vec<Flow>) = self.flows.iter().copied().partition(is_there);
        let count = |flows: &[Flow], strangers: bool| {
            flows.iter().filter(|flow| flow.is_strangers == strangers).count()
        };
        for flow in &gone {
            let theirs = count(&self.flows, flow.is_strangers);
            // A payer with less pays with what came to nothing, and for what is in the way, if at all.
            let has_most = theirs >= count(&self.flows, !flow.is_strangers);
            let is_least = flow.is_strangers && !flow.is_established();
            prop_assert!(has_most || is_least, "{:?} makes way in {:?}", flow, self);
            let is_own = flow.is_strangers == for_strangers && !for_strangers;
            prop_assert!(!(is_own && flow.is_established()), "{:?} makes way for its own", flow);
        }
        prop_assert!(gone.len() <= 2);
        self.flows = stay;
        Ok(self.flows.len() < FLOWS)
    }

    fn expire(&mut self) {
        let now = self.now;
        self.flows.retain(|flow| now - flow.used < flow.timeout());
    }
}

fn container((host, port): Inside) -> String {
    format!("10.1.0.{}:{}", host + 2, 39_999 + port)
}

fn remote((host, port): Remote) -> String {
    format!("198.51.100.{}:{}", host + 1, port + 5353)
}

fn out(world: &mut World, model: &mut Model, inside: Inside, to: Remote) -> Result<(), TestCaseError> {
    let out = world.out(&udp(&container(inside), &remote(to)));
    let known = model.flows.iter().position(|flow| flow.inside == inside && flow.remote == to);
    if let Some(at) = known {
        prop_assert_eq!(out.fate, Fate::Outside);
        prop_assert_eq!(out.packet().source.port(), model.flows[at].port);
        model.touch(at, true);
        return Ok(());
    }
    if !model.make_room(world, false)? {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatTableFull));
        return Ok(());
    }
    let taken: BTreeSet<u16> =
        model.flows.iter().filter(|flow| flow.remote == to).map(|flow| flow.port).collect();
    let free = model.free();
    let own = model.mapping(inside);
    if own.is_none() && free.is_empty() && model.claimed.iter().all(|port| taken.contains(port)) {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatNoPort));
        return Ok(());
    }
    if out.fate != Fate::Outside {
        // Its port, its own or the free one it was given, talks to that end already for somebody who shares
        // it.
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatNoPort));
        prop_assert!(model.claimed.iter().all(|port| taken.contains(port)));
        return Ok(());
    }
    let port = out.packet().source.port();
    prop_assert!(model.claimed.contains(&port) && !taken.contains(&port), "port {}", port);
    let given = own.map_or_else(|| free.contains(&port), |own| own == port);
    let wanted = 39_999 + inside.1;
    if own.is_none() && free.contains(&wanted) && !taken.contains(&wanted) {
        prop_assert_eq!(port, wanted, "preserved");
    }
    let mapped = given
        && world.nat.flows(world.now).any(|flow| {
            flow.origin == vswitch_nat::Origin::Outbound
                && flow.initiator.source_port == wanted
                && flow.initiator.source.ip() == ip(&format!("10.1.0.{}", inside.0 + 2))
                && flow.target.source_port == to.1 + 5353
                && flow.target.source.ip() == ip(&format!("198.51.100.{}", to.0 + 1))
        });
    model.add(inside, to, port, mapped, true);
    Ok(())
}

fn inn(world: &mut World, model: &mut Model, from: Remote, port: u16) -> Result<(), TestCaseError> {
    let out = world.inn(&udp(&remote(from), &format!("192.0.2.1:{port}")));
    let known = model.flows.iter().position(|flow| flow.remote == from && flow.port == port);
    if let Some(at) = known {
        prop_assert_eq!(out.fate, Fate::Inside(LAN));
        prop_assert_eq!(out.packet().target.to_string(), container(model.flows[at].inside));
        model.touch(at, false);
        return Ok(());
    }
    let Some(inside) = model.holders(port).next().map(|flow| flow.inside) else {
        let fate = Fate::Dropped(DropReason::NatFiltered);
        prop_assert_eq!(out.fate, if model.claimed.contains(&port) { fate } else { Fate::Host });
        return Ok(());
    };
    if !model.permits().contains(&(port, from.0)) {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatFiltered));
        return Ok(());
    }
    if !model.make_room(world, true)? {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatTableFull));
        return Ok(());
    }
    if model.holders(port).next().is_none() {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatFiltered), "it made room");
        return Ok(());
    }
    if model.flows.iter().any(|flow| flow.inside == inside && flow.remote == from) {
        prop_assert_eq!(out.fate, Fate::Dropped(DropReason::NatConflict), "it shares another port");
        return Ok(());
    }
    prop_assert_eq!(out.fate, Fate::Inside(LAN));
    prop_assert_eq!(out.packet().target.to_string(), container(inside));
    model.add(inside, from, port, true, false);
    Ok(())
}

fn apply(world: &mut World, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let host = ip("192.0.2.1");
    match step {
        Step::Out(container, port, remote, remote_port) => {
            out(world, model, (container, port), (remote, remote_port))?;
        }
        Step::In(remote, remote_port, port) => inn(world, model, (remote, remote_port), port)?,
        Step::Pass(minutes) => {
            world.seconds(minutes * 61);
            world.poll();
            model.now += minutes * 61;
            model.expire();
        }
        Step::Forget(container) => {
            world.forget(&format!("10.1.0.{}", container + 2));
            model.flows.retain(|flow| flow.inside.0 != container);
        }
        Step::Revoke(port) => {
            world.nat.revoke(Protocol::Udp, host, &[port].into());
            model.claimed.remove(&port);
            model.flows.retain(|flow| flow.port != port);
        }
        Step::Grant(port) => {
            world.nat.grant(Protocol::Udp, host, [port]);
            model.claimed.insert(port);
        }
    }
    let stats = world.nat.stats();
    let mapped: BTreeSet<u16> = model.flows.iter().filter(|flow| flow.mapped).map(|flow| flow.port).collect();
    prop_assert_eq!(stats.flows, model.flows.len());
    prop_assert_eq!(stats.mappings, mapped.len());
    prop_assert_eq!(stats.permits, model.permits().len());
    prop_assert_eq!((stats.ports_claimed, stats.ports_free), (model.claimed.len(), model.free().len()));
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model_and_nothing_leaks(steps in vec(step(), 1..120)) {
        let mut world = World::with(Limits { flows: FLOWS, ..World::limits() });
        let uplink = Uplink { v4: Some("192.0.2.1".parse().expect("IPv4")), ..Uplink::default() };
        world.nat.set_uplink(uplink.clone());
        crate::support::without_claims(&mut world.nat);
        let mut model = Model::default();
        for step in steps {
            apply(&mut world, &mut model, step)?;
        }
        // Another translator goes on with all of it.
        let held = |world: &World| {
            let stats = world.nat.stats();
            (stats.flows, stats.mappings, stats.permits, stats.ports_claimed, stats.ports_free)
        };
        let before = held(&world);
        let claimed = model.claimed.clone();
        world.restart(|nat| {
            nat.set_uplink(uplink.clone());
            crate::support::without_claims(nat);
            nat.grant(Protocol::Udp, ip("192.0.2.1"), claimed);
        });
        prop_assert_eq!(held(&world), before);
        // When all is over, nothing is held.
        world.seconds(1000);
        world.poll();
        let stats = world.nat.stats();
        prop_assert_eq!((stats.flows, stats.mappings, stats.permits), (0, 0, 0));
        prop_assert_eq!(stats.ports_free, model.claimed.len());
    }
}
