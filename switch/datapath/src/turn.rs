//! One turn of the poll loop: the road of every frame, on one screen.
//!
//! # Theory of operation
//! Each ready port in turn gives one burst, and the burst goes all the way before the next port is
//! looked at: its bytes are still in cache when they are sent, and its slots are free again. The laws
//! at the end of a burst are checked in debug builds: every frame received got exactly one verdict,
//! and every slot came back to the pool or is held on the way out ([`uplink`]).

use std::io;

use vswitch_engine::gateway::FRAMES_MADE_MAX;
use vswitch_engine::{Limits, Switch, Verdicts};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::{DropReason, Frame, Instant, Pool, PortId};
use vswitch_nat::Nat;
use vswitch_sys::clock;
use vswitch_sys::device::{Budget, Left};
use vswitch_sys::packet::Vectors;
use vswitch_sys::poll::Poller;

use super::desk::Desk;
use super::mirror;
use super::names::{Origin, Resolver};
use super::ports::Ports;
use super::ready::{CHANNEL, LISTENER, RESOLVER, TUNNEL_SOCKET};
use super::relay::Relays;
use super::rest::Rest;
use super::transmit::Transmit;
use super::tunnel::{Inbox, Tunnels};
use super::uplink::{self, HELD_MAX, Uplink, Uplinks};
use vswitch_contract::counters::{Counter, Counters};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::reserved::{TUNNELS, is_uplink};

/// What one burst may take: enough datagrams to coalesce well, and no more bytes than stay in a core's
/// second-level cache while they are copied in and out.
const BUDGET: Budget = Budget { frames: 1024, bytes: 256 * 1024 };

/// Slots: one burst, what the gateway makes over it, what is held on the way out, the pieces of the super-frame that is
/// being split, and the frame being received.
const SLOTS: usize = BUDGET.frames + FRAMES_MADE_MAX + HELD_MAX + vswitch_frame::split::PIECES_MAX + 1;

/// Everything the loop works on.
#[derive(Debug)]
pub(crate) struct Datapath {
    pub(crate) switch: Switch,
    pub(crate) ports: Ports,
    pub(crate) poller: Poller,
    pub(crate) desk: Desk,
    pub(crate) counters: Counters,
    pub(crate) resolver: Resolver,
    pub(crate) nat: Nat,
    pub(crate) mirror: Mirror,
    pub(super) uplinks: Uplinks,
    pub(crate) relays: Relays,
    pub(super) tunnels: Tunnels,
    pub(crate) rest: Rest,
    pub(super) transmit: Transmit,
    pub(super) pool: Pool,
    pub(super) vectors: Vectors,
    pub(super) burst: Vec<Frame>,
    verdicts: Verdicts,
    commands_waiting: bool,
}

impl Datapath {
    /// One that has nothing yet. `descriptors` is how many the process may have.
    pub(crate) fn new(
        desk: Desk,
        seed: u64,
        counters: Counters,
        mirror: Mirror,
        poller: Poller,
        descriptors: usize,
    ) -> Self {
        Self {
            switch: Switch::new(Limits::default(), seed),
            ports: Ports::new(),
            poller,
            desk,
            counters,
            resolver: Resolver::new(seed),
            nat: uplink::translator(seed),
            mirror,
            uplinks: Uplinks::new(),
            relays: Relays::new(seed.rotate_left(32), descriptors),
            tunnels: Tunnels::new(seed),
            transmit: Transmit::new(Coalescer::new(seed)),
            rest: Rest::default(),
            pool: Pool::new(SLOTS),
            vectors: Vectors::new(),
            burst: Vec::with_capacity(BUDGET.frames),
            verdicts: Verdicts::default(),
            commands_waiting: true,
        }
    }

    /// Turns until it is over.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            let now = clock::now();
            let worked = self.turn(now) | self.relay(now);
            self.resolve(now);
            self.attend(now);
            if self.commands_waiting && !self.carry_out_commands() {
                return Ok(());
            }
            self.switch.poll(now);
            self.tunnels.poll(now);
            self.speak();
            self.look(worked, now)?;
        }
    }

    /// Lets every port that is ready give one burst; says whether there was any frame. Until everything was told none does:
    /// the kernel's queues hold what comes.
    fn turn(&mut self, now: Instant) -> bool {
        if !self.desk.has_begun() {
            return false;
        }
        let mut worked = false;
        for _ in 0..self.ports.ready_count() {
            let Some(ingress) = self.ports.next_ready() else { break };
            worked |= self.turn_of(ingress, now);
        }
        if self.tunnels.is_ready() {
            worked |= self.turn_of_tunnels(now);
        }
        worked
    }

    /// One burst of one port, from its descriptor to those of its receivers.
    fn turn_of(&mut self, ingress: PortId, now: Instant) -> bool {
        let Some(port) = self.ports.get_mut(ingress) else { return false };

        // 1 receive
        let left = port.device.receive(&mut self.vectors, BUDGET, &mut self.pool, &mut self.burst);
        let received = self.burst.len();
        self.pass_on(ingress, now);
        match left {
            Left::More => self.ports.set_ready(ingress),
            Left::Nothing => {}
            Left::Gone => self.counters.add(ingress, Counter::Gone, 1),
        }
        received > 0
    }

    /// All but the first part of a turn, of what a port has received.
    fn pass_on(&mut self, ingress: PortId, now: Instant) {
        let received = self.burst.len();
        let bytes: usize = self.burst.iter().map(Frame::len).sum();
        self.counters.add(ingress, Counter::ReceivedFrames, received as u64);
        self.counters.add(ingress, Counter::ReceivedBytes, bytes as u64);

        // 2 decide, 3 serve
        let held = self.held_for_check();
        let made = if is_uplink(ingress) { self.arrive(ingress, now) } else { self.decide(ingress, now) };
        let verdicts = &self.verdicts;
        let unserved =
            verdicts.local.len() + verdicts.names.len() + verdicts.outbound.len() + verdicts.too_big.len();
        debug_assert_eq!((received + made + held, 0), (verdicts.len() + self.held_for_check(), unserved));

        // 4 drop, 5 transmit
        self.send_to_one();
        let verdicts = &mut self.verdicts;
        let mut to = self.transmit.with(
            &mut self.ports,
            &mut self.tunnels,
            &mut self.pool,
            &mut self.vectors,
            &self.counters,
        );
        to.flood(&mut verdicts.flood, self.switch.flood_targets(ingress));
        to.multicast(&mut verdicts.multicast, |audience| self.switch.multicast_targets(ingress, audience));
        self.check_slots();
    }

    /// A burst of the tunnels' socket: frames of one tunnel after the other, in the order they came.
    fn turn_of_tunnels(&mut self, now: Instant) -> bool {
        let Some((count, mut inbox)) = self.tunnels.receive() else { return false };
        let mut ingress = TUNNELS;
        let mut bytes = 0;
        let mut first = 0;
        while first < count {
            let opened = inbox.open(self.tunnels.table(), first, count, now);
            self.count_dropped(&inbox);
            for number in 0..inbox.inners().len() {
                let port = self.tunnels.port_of(inbox.inners()[number].vni).unwrap_or(TUNNELS);
                if port != ingress || bytes >= BUDGET.bytes || self.burst.len() == BUDGET.frames {
                    self.pass_on(ingress, now);
                    (ingress, bytes) = (port, 0);
                }
                let Some(mut frame) = self.pool.take() else {
                    self.counters.drop(port, DropReason::TxNoBuffer, 1);
                    continue;
                };
                inbox.copy(number, first, &mut frame);
                bytes += frame.len();
                self.burst.push(frame);
            }
            first += opened;
        }
        self.pass_on(ingress, now);
        self.tunnels.give_back(inbox);
        count > 0
    }

    /// Counts what came through tunnels and was no frame of theirs.
    fn count_dropped(&self, inbox: &Inbox) {
        for (vni, reason) in inbox.dropped() {
            let port = vni.and_then(|vni| self.tunnels.port_of(vni));
            self.counters.drop(port.unwrap_or(TUNNELS), *reason, 1);
        }
    }

    /// Lets the switch decide about the burst of one of its ports, and serves what is for the gateway. Returns how many
    /// frames were made.
    fn decide(&mut self, ingress: PortId, now: Instant) -> usize {
        let received = self.burst.len();
        let unlearned = self.switch.stats().unlearned;
        self.switch.process(ingress, &mut self.burst, &mut self.verdicts, now);
        self.counters.add(ingress, Counter::NotLearned, self.switch.stats().unlearned - unlearned);
        debug_assert_eq!(received, self.verdicts.len());

        let made = self.relays.held();
        let Self { relays, switch, verdicts, pool, counters, .. } = self;
        relays.take(ingress, switch, verdicts, pool, counters, now);
        let made = self.relays.held() - made;
        self.tunnels.answer(ingress, &self.switch, &mut self.verdicts);
        self.uplink(now).turn_back(ingress);
        let made = made + self.switch.serve(ingress, &mut self.verdicts, &mut self.pool, now);
        let origin = Origin { switch: &self.switch, ingress, now };
        let made = made + self.resolver.serve(origin, &mut self.verdicts, &mut self.pool);
        made + self.uplink(now).leave(ingress)
    }

    /// Takes the burst of an uplink in. Returns how many frames were made.
    fn arrive(&mut self, ingress: PortId, now: Instant) -> usize {
        let mut burst = std::mem::take(&mut self.burst);
        let made = self.uplink(now).arrive(ingress, &mut burst);
        self.burst = burst;
        made
    }

    pub(super) fn uplink(&mut self, now: Instant) -> Uplink<'_> {
        let Self { switch, nat, uplinks, verdicts, pool, counters, .. } = self;
        Uplink { switch, nat, uplinks, verdicts, pool, counters, now }
    }

    /// Drops what goes nowhere, and sends what goes to one port each. What they have changed is written down before.
    pub(super) fn send_to_one(&mut self) {
        mirror::follow(&self.mirror, &mut self.nat);
        for (reason, port, frame) in self.verdicts.drop.drain(..) {
            self.counters.drop(port, reason, 1);
            self.pool.free(frame);
        }
        let mut to = self.transmit.with(
            &mut self.ports,
            &mut self.tunnels,
            &mut self.pool,
            &mut self.vectors,
            &self.counters,
        );
        to.forward(&mut self.verdicts.forward);
    }

    /// Frames that are held; zero in release builds, where nobody checks.
    fn held_for_check(&self) -> usize {
        if cfg!(debug_assertions) { self.uplinks.held(&self.nat) + self.relays.held() } else { 0 }
    }

    fn check_slots(&self) {
        debug_assert_eq!(self.pool.available() + self.held_for_check(), self.pool.capacity());
    }

    /// Sends the answers to questions for names that had to wait.
    fn resolve(&mut self, now: Instant) {
        if self.resolver.poll_at().is_some_and(|at| at <= now) {
            self.resolver.poll(&self.switch, &mut self.pool, &mut self.verdicts.forward, now);
            self.send_to_one();
            self.check_slots();
        }
    }

    /// Does what is due of relays; says whether there was any frame.
    fn relay(&mut self, now: Instant) -> bool {
        if !self.relays.is_pressed(now) {
            return false;
        }
        let Self { relays, switch, verdicts, pool, counters, poller, .. } = self;
        let worked = relays.work(switch, verdicts, pool, counters, poller, now);
        self.send_to_one();
        self.check_slots();
        worked
    }

    /// Does what is due on the way out.
    fn attend(&mut self, now: Instant) {
        self.uplinks.ask_for_claims(&self.nat, now);
        if self.uplinks.poll_at(&self.nat).is_some_and(|at| at <= now) {
            self.uplink(now).poll();
            self.send_to_one();
            self.check_slots();
        }
    }

    /// 6 rest: spins or sleeps until something is ready, and notes what is.
    fn look(&mut self, worked: bool, now: Instant) -> io::Result<()> {
        let pressing = self.ports.ready_count() > 0
            || self.tunnels.is_ready()
            || self.commands_waiting
            || self.relays.is_pressed(now);
        let times = [
            self.switch.poll_at(),
            self.resolver.poll_at(),
            self.uplinks.poll_at(&self.nat),
            self.tunnels.poll_at(),
            self.relays.poll_at(),
        ];
        let wake_at = times.into_iter().flatten().min();
        let timeout = self.rest.timeout(pressing, worked, now, wake_at);
        let Self { ports, commands_waiting, resolver, tunnels, relays, poller, .. } = self;
        let mut found = pressing;
        poller.wait(timeout, |number| {
            found = true;
            match u16::try_from(number) {
                Ok(port) => ports.set_ready(PortId(port)),
                Err(_) if number == RESOLVER => resolver.set_ready(),
                Err(_) if number == TUNNEL_SOCKET => tunnels.set_ready(),
                Err(_) if matches!(number, CHANNEL | LISTENER) => *commands_waiting = true,
                Err(_) => relays.set_ready(number, now),
            }
        })?;
        if !found && timeout.is_some_and(|timeout| timeout.is_zero()) {
            vswitch_sys::poll::yield_core();
        }
        Ok(())
    }

    /// Control's commands, a few a turn. `false` when there is nothing left to do.
    fn carry_out_commands(&mut self) -> bool {
        const COMMANDS_PER_TURN: usize = 16;
        for _ in 0..COMMANDS_PER_TURN {
            if !self.carry_out_next() {
                self.commands_waiting = false;
                break;
            }
        }
        !self.desk.is_over()
    }
}
