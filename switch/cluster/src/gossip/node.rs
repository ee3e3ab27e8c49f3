//! The node: this host's part in gossip, as all tasks share it. Nobody holds its machine while waiting.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use vswitch_sys::{clock, random, wallclock};

use super::super::view::Event;
use super::machine::{Machine, Now};
use super::seal::Seal;
use super::talk::Appointment;

/// The time between two complaints about one stranger.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Strangers that are told from each other.
const STRANGERS_MAX: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) seal: Seal,
    pub(super) socket: UdpSocket,
    machine: Mutex<Machine>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Takes the conversations that are to be held.
    talks: mpsc::UnboundedSender<Appointment>,
    strangers: Mutex<BTreeMap<IpAddr, Stranger>>,
    /// Tells that the machine may want to be woken sooner.
    pub(super) woken: Notify,
}

#[derive(Debug)]
struct Stranger {
    packets: u64,
    said_at: vswitch_frame::Instant,
}

/// The time.
pub(super) fn now() -> Now {
    Now { instant: clock::now(), since_epoch: wallclock::since_epoch() }
}

impl Node {
    pub(super) fn new(
        seal: Seal,
        socket: UdpSocket,
        machine: Machine,
        events: mpsc::UnboundedSender<Event>,
        talks: mpsc::UnboundedSender<Appointment>,
    ) -> Self {
        let (machine, strangers, woken) = (Mutex::new(machine), Mutex::default(), Notify::new());
        Self { seal, socket, machine, events, talks, strangers, woken }
    }

    /// The machine, for a moment that nothing waits in.
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the machine do something, and does what it wants done.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.machine();
        let outcome = act(&mut machine);
        let effects = machine.effects();
        drop(machine);
        for (to, packet) in effects.packets {
            let Ok(nonce) = random::bytes() else { continue };
            // Gossip lives with lost packets, whatever the cause.
            let _ = self.socket.try_send_to(&self.seal.seal(nonce, &packet), to);
        }
        for event in effects.events {
            // Control is gone when the daemon stops.
            let _ = self.events.send(event);
        }
        for talk in effects.talks {
            // Nobody talks any more when the daemon stops.
            let _ = self.talks.send(talk);
        }
        self.woken.notify_one();
        outcome
    }

    /// Takes a datagram in.
    pub(super) fn receive(&self, sealed: &[u8], from: SocketAddr) {
        match self.seal.open(sealed) {
            Ok(packet) => {
                if let Err(error) = self.act(|machine| machine.receive(&packet, now())) {
                    self.complain(from.ip(), &error);
                }
            }
            Err(error) => self.complain(from.ip(), &error),
        }
    }

    /// Says who sends what cannot be opened, once a minute.
    pub(super) fn complain(&self, from: IpAddr, error: &impl Display) {
        let now = clock::now();
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= STRANGERS_MAX && !strangers.contains_key(&from) {
            return;
        }
        let stranger = strangers.entry(from).or_insert(Stranger { packets: 0, said_at: now });
        stranger.packets += 1;
        if stranger.packets == 1 || now.since(stranger.said_at) >= COMPLAIN_EVERY {
            stranger.said_at = now;
            tracing::warn!("gossip from {from} was dropped ({} so far): {error}", stranger.packets);
        }
    }
}
