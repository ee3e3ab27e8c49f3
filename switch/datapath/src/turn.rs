//! One turn of the poll loop: the road of every frame, on one screen.
//!
//! # Theory of operation
//! A ready port gives one burst, and the burst goes all the way before the next port is looked at: its bytes
//! are still in cache when they are sent, and its slots are free again. The next is the one that had least of
//! the loop's time ([`share`](crate::share)), and after [`TURN`] everything else has its turn: relays, names,
//! orders, timers. The laws at the end of a burst are checked in debug builds: every frame received got
//! exactly one verdict, and every slot came back to the pool or is held ([`uplink`], [`relay`](crate::relay),
//! [`floods`]).

use std::io;
use std::time::Duration;

use vswitch_contract::counters::{Counter, Counters};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::reserved::{TUNNELS, is_uplink};
use vswitch_engine::gateway::FRAMES_MADE_MAX;
use vswitch_engine::{Limits, Switch};
use vswitch_frame::{DropReason, Frame, Instant, PortId};
use vswitch_nat::Nat;
use vswitch_sys::clock;
use vswitch_sys::device::{Budget, Left};
use vswitch_sys::poll::Poller;

use crate::desk::memory::Desk;
use crate::floods;
use crate::mirror;
use crate::names::Resolver;
use crate::ready::{CHANNEL, LISTENER, RESOLVER, TUNNEL_SOCKET};
use crate::relay::Relays;
use crate::tunnel::{Inbox, Tunnels};
use crate::uplink::{self, HELD_MAX, Uplink, Uplinks};
use crate::worker::Worker;

/// The most that one burst takes: enough datagrams to coalesce well, and no more bytes than stay in a core's
/// second-level cache while they are copied in and out.
const BUDGET: Budget = Budget { frames: 1024, bytes: 256 * 1024 };

/// Slots of the pool: one burst, frames that the gateway makes over it, frames held on the way out and for
/// copying, the pieces of the super-frame that is being split, and the frame being received.
const SLOTS: usize =
    BUDGET.frames + FRAMES_MADE_MAX + HELD_MAX + floods::HELD_MAX + vswitch_frame::split::PIECES_MAX + 1;
/// How long ports are served before everything else has its turn.
const TURN: Duration = Duration::from_millis(1);

/// Everything the loop works on.
#[derive(Debug)]
pub(crate) struct Datapath {
    pub(crate) worker: Worker,
    pub(crate) switch: Switch,
    pub(crate) nat: Nat,
    pub(crate) uplinks: Uplinks,
    pub(crate) relays: Relays,
    pub(crate) tunnels: Tunnels,
    pub(crate) resolver: Resolver,
    pub(crate) desk: Desk,
    pub(crate) poller: Poller,
    pub(crate) counters: Counters,
    pub(crate) mirror: Mirror,
    /// Bursts about which guests of the gateway were asked.
    pub(crate) served: u64,
    orders_waiting: bool,
}

impl Datapath {
    /// A datapath that has nothing yet. `descriptors` is how many the process may have.
    pub(crate) fn new(
        desk: Desk,
        seed: u64,
        counters: Counters,
        mirror: Mirror,
        poller: Poller,
        descriptors: usize,
    ) -> Self {
        Self {
            worker: Worker::new(SLOTS, BUDGET.frames, seed),
            switch: Switch::new(Limits::default(), seed),
            poller,
            desk,
            counters,
            resolver: Resolver::new(seed),
            nat: uplink::translator(seed),
            mirror,
            uplinks: Uplinks::new(),
            relays: Relays::new(seed.rotate_left(32), descriptors),
            tunnels: Tunnels::new(seed),
            served: 0,
            orders_waiting: true,
        }
    }

    /// Turns until there is nothing left to do.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            let now = clock::now();
            let worked = self.work(now);
            if self.orders_waiting && !self.carry_out_orders() {
                return Ok(());
            }
            self.look(worked, now)?;
        }
    }

    /// Does what is due, frames first; says whether there was any.
    pub(crate) fn work(&mut self, now: Instant) -> bool {
        let worked = self.turn(now) | self.relay(now);
        self.resolve(now);
        self.attend(now);
        self.switch.poll(now);
        self.tunnels.poll(now);
        self.speak();
        worked
    }

    /// Lets the ports that are ready give bursts, in the order of their [shares](crate::share), as many as
    /// there are ports, for no longer than [`TURN`]; says whether there was any frame. Until control has told
    /// everything none does: the kernel's queues hold what comes.
    fn turn(&mut self, now: Instant) -> bool {
        if !self.desk.has_begun() {
            return false;
        }
        if self.tunnels.is_ready() {
            self.worker.ports.set_ready(TUNNELS);
        }
        // The caller says what time it is; how long bursts take is measured.
        let began = clock::now();
        let (mut worked, mut at) = (false, now);
        for _ in 0..self.worker.ports.shares.ready_count() {
            let Some(ingress) = self.worker.ports.shares.next_ready(at) else { break };
            let received = self.turn_of(ingress, at);
            worked |= received > 0;
            let since = std::mem::replace(&mut at, now + clock::now().since(began));
            self.worker.ports.shares.charge(ingress, at.since(since), received);
            if at.since(now) >= TURN {
                break;
            }
        }
        worked
    }

    /// Moves one burst of one port from its descriptor to those of its receivers, or goes on with the last.
    /// Says how many frames it received.
    fn turn_of(&mut self, ingress: PortId, now: Instant) -> usize {
        if self.worker.floods.has(ingress) {
            self.copy(ingress);
            // Frames that have come meanwhile were reported once.
            self.worker.ports.set_ready(ingress);
            return 0;
        }
        if ingress == TUNNELS {
            return self.turn_of_tunnels(now);
        }
        let Worker { ports, vectors, pool, burst, .. } = &mut self.worker;
        let frames = ports.shares.frames(ingress, now, BUDGET.frames);
        let Some(port) = ports.get_mut(ingress) else { return 0 };

        // 1 receive
        let left = port.device.receive(vectors, Budget { frames, ..BUDGET }, pool, burst);
        let received = burst.len();
        self.pass_on(ingress, now);
        match left {
            Left::More => self.worker.ports.set_ready(ingress),
            Left::Nothing => {}
            // Control looks for uplinks itself, and brings another descriptor when one is back.
            Left::Gone if is_uplink(ingress) => {}
            Left::Gone => self.counters.add(ingress, Counter::Gone, 1),
        }
        received
    }

    /// Does every part of a turn but the first with the burst that a port has received.
    pub(crate) fn pass_on(&mut self, ingress: PortId, now: Instant) {
        let received = self.worker.burst.len();
        let bytes: usize = self.worker.burst.iter().map(Frame::len).sum();
        self.counters.add(ingress, Counter::ReceivedFrames, received as u64);
        self.counters.add(ingress, Counter::ReceivedBytes, bytes as u64);

        // 2 decide, 3 serve
        let (held, before) = (self.held_for_check(), self.switch.stats());
        let made = if is_uplink(ingress) {
            self.arrive(ingress, now)
        } else {
            self.decide(ingress, now);
            self.serve(ingress, now)
        };
        let after = self.switch.stats();
        self.counters.add(ingress, Counter::NotLearned, after.unlearned - before.unlearned);
        self.counters.add(ingress, Counter::FlowsDisplaced, after.displaced - before.displaced);
        let verdicts = &self.worker.verdicts;
        let unserved =
            verdicts.local.len() + verdicts.names.len() + verdicts.outbound.len() + verdicts.too_big.len();
        debug_assert_eq!((received + made + held, 0), (verdicts.len() + self.held_for_check(), unserved));

        // 4 drop, 5 transmit
        self.send_to_one();
        let Worker { floods, verdicts, .. } = &mut self.worker;
        floods.append(ingress, verdicts);
        self.copy(ingress);
    }

    /// Makes copies of what a port has for many.
    fn copy(&mut self, ingress: PortId) {
        if self.worker.floods.has(ingress) {
            self.worker.copy(ingress, &self.switch, &mut self.tunnels, &self.counters);
        }
        self.check_slots();
    }

    /// Moves a burst of the tunnels' socket: frames of one tunnel after the other, in the order they came.
    /// Says how many messages they came in.
    fn turn_of_tunnels(&mut self, now: Instant) -> usize {
        let Some((count, mut inbox)) = self.tunnels.receive() else { return 0 };
        let mut ingress = TUNNELS;
        let mut bytes = 0;
        let mut first = 0;
        while first < count {
            let opened = inbox.open(self.tunnels.table(), first, count, now);
            self.count_dropped(&inbox);
            for number in 0..inbox.inners().len() {
                let port = self.tunnels.port_of(inbox.inners()[number].vni).unwrap_or(TUNNELS);
                if port != ingress || bytes >= BUDGET.bytes || self.worker.burst.len() == BUDGET.frames {
                    self.pass_on(ingress, now);
                    (ingress, bytes) = (port, 0);
                }
                let Some(mut frame) = self.worker.pool.take() else {
                    self.counters.drop(port, DropReason::TxNoBuffer, 1);
                    continue;
                };
                inbox.copy(number, first, &mut frame);
                bytes += frame.len();
                self.worker.burst.push(frame);
            }
            first += opened;
        }
        self.pass_on(ingress, now);
        self.tunnels.give_back(inbox);
        count
    }

    /// Counts what came through tunnels and was no frame of theirs.
    fn count_dropped(&self, inbox: &Inbox) {
        for (vni, reason) in inbox.dropped() {
            let port = vni.and_then(|vni| self.tunnels.port_of(vni));
            self.counters.drop(port.unwrap_or(TUNNELS), *reason, 1);
        }
    }

    /// Lets the switch decide about the burst of one of its ports.
    fn decide(&mut self, ingress: PortId, now: Instant) {
        let Worker { burst, verdicts, .. } = &mut self.worker;
        let received = burst.len();
        self.switch.process(ingress, burst, verdicts, now);
        debug_assert_eq!(received, self.worker.verdicts.len());
    }

    /// Takes the burst of an uplink in. Returns how many frames were made.
    fn arrive(&mut self, ingress: PortId, now: Instant) -> usize {
        let mut burst = std::mem::take(&mut self.worker.burst);
        let made = self.uplink(now).arrive(ingress, &mut burst);
        self.worker.burst = burst;
        mirror::follow(&self.mirror, &mut self.nat);
        made
    }

    pub(super) fn uplink(&mut self, now: Instant) -> Uplink<'_> {
        let Self { switch, nat, uplinks, worker: Worker { verdicts, pool, .. }, counters, .. } = self;
        Uplink { switch, nat, uplinks, verdicts, pool, counters, now }
    }

    /// Drops frames that go nowhere, and sends those that go to one port each.
    pub(super) fn send_to_one(&mut self) {
        let Worker { verdicts, pool, .. } = &mut self.worker;
        for (reason, port) in verdicts.answered.drain(..) {
            self.counters.drop(port, reason, 1);
        }
        for (reason, port, frame) in verdicts.drop.drain(..) {
            self.counters.drop(port, reason, 1);
            pool.free(frame);
        }
        let (mut to, verdicts) = self.worker.transmission(&mut self.tunnels, &self.counters);
        to.forward(&mut verdicts.forward);
    }

    /// Frames that are held; zero in release builds, where nobody checks.
    fn held_for_check(&self) -> usize {
        if cfg!(debug_assertions) {
            self.uplinks.held(&self.nat) + self.relays.held() + self.worker.floods.held()
        } else {
            0
        }
    }

    fn check_slots(&self) {
        debug_assert_eq!(self.worker.pool.available() + self.held_for_check(), self.worker.pool.capacity());
    }

    /// Sends the answers to questions for names that had to wait.
    fn resolve(&mut self, now: Instant) {
        if self.resolver.poll_at().is_some_and(|at| at <= now) {
            let Worker { pool, verdicts, .. } = &mut self.worker;
            self.resolver.poll(&self.switch, pool, &mut verdicts.forward, now);
            self.send_to_one();
            self.check_slots();
        }
    }

    /// Does what is due of relays; says whether there was any frame.
    fn relay(&mut self, now: Instant) -> bool {
        if !self.relays.is_pressed(now) {
            return false;
        }
        let Self { relays, switch, worker: Worker { verdicts, pool, .. }, counters, poller, .. } = self;
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
            mirror::follow(&self.mirror, &mut self.nat);
            self.send_to_one();
            self.check_slots();
        }
    }

    /// 6 rest: spins or sleeps until something is ready, and notes what is.
    fn look(&mut self, worked: bool, now: Instant) -> io::Result<()> {
        let pressing = self.worker.ports.shares.ready_count() > 0
            || self.tunnels.is_ready()
            || self.orders_waiting
            || self.relays.is_pressed(now);
        let times = [
            self.switch.poll_at(),
            self.resolver.poll_at(),
            self.uplinks.poll_at(&self.nat),
            self.tunnels.poll_at(),
            self.relays.poll_at(),
        ];
        let wake_at = times.into_iter().flatten().min();
        let timeout = self.worker.rest.timeout(pressing, worked, now, wake_at);
        let found = self.wait(timeout, now)?;
        if !(found || pressing) && timeout.is_some_and(|timeout| timeout.is_zero()) {
            vswitch_sys::poll::yield_core();
        }
        Ok(())
    }

    /// Notes what is ready, without rest; says whether anything is.
    pub(crate) fn look_at_once(&mut self, now: Instant) -> io::Result<bool> {
        let is_pressed = self.worker.ports.shares.ready_count() > 0 || self.tunnels.is_ready();
        Ok(self.wait(Some(Duration::ZERO), now)? || is_pressed)
    }

    /// Waits until something is ready, and notes what is; says whether anything is.
    fn wait(&mut self, timeout: Option<Duration>, now: Instant) -> io::Result<bool> {
        let Self { worker: Worker { ports, .. }, orders_waiting, resolver, tunnels, relays, poller, .. } =
            self;
        let mut found = false;
        poller.wait(timeout, |number| {
            found = true;
            match u16::try_from(number) {
                Ok(port) => ports.set_ready(PortId(port)),
                Err(_) if number == RESOLVER => resolver.set_ready(),
                Err(_) if number == TUNNEL_SOCKET => tunnels.set_ready(),
                Err(_) if matches!(number, CHANNEL | LISTENER) => *orders_waiting = true,
                Err(_) => relays.set_ready(number, now),
            }
        })?;
        Ok(found)
    }

    /// Carries out control's orders, a few a turn. `false` when there is nothing left to do.
    fn carry_out_orders(&mut self) -> bool {
        const ORDERS_PER_TURN: usize = 16;
        for _ in 0..ORDERS_PER_TURN {
            if !self.carry_out_next() {
                self.orders_waiting = false;
                break;
            }
        }
        !self.desk.is_over()
    }
}
