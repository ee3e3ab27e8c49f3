//! Coalesce, split and send what was decided.
//!
//! # Theory of operation
//! Frames for one port leave together: a run of one flow becomes one super-frame where the receiver takes it,
//! a super-frame is split where it does not. Frames for a tunnel are planned there ([`super::tunnel`]). Every
//! frame handed in goes back to the pool before the call returns.

use vswitch_contract::counters::{Counter, Counters};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, DropReason, Frame, Pool, PortId};
use vswitch_sys::packet::Vectors;

use super::ports::{Egress, Port, Ports};
use super::sorter::Sorter;
use super::tunnel::Tunnels;

/// The state of transmission from burst to burst.
#[derive(Debug)]
pub(crate) struct Transmit {
    coalescer: Coalescer,
    sorter: Sorter,
    queue: Vec<Frame>,
    pieces: Vec<Frame>,
}

/// Transmission of one burst.
pub(crate) struct Transmission<'a> {
    state: &'a mut Transmit,
    ports: &'a mut Ports,
    tunnels: &'a mut Tunnels,
    out: Out<'a>,
}

/// The tools of a send, beside a port and its frames.
struct Out<'a> {
    pool: &'a mut Pool,
    vectors: &'a mut Vectors,
    counters: &'a Counters,
}

impl Transmit {
    pub(crate) fn new(coalescer: Coalescer) -> Self {
        Self { coalescer, sorter: Sorter::default(), queue: Vec::new(), pieces: Vec::new() }
    }

    pub(crate) fn with<'a>(
        &'a mut self,
        ports: &'a mut Ports,
        tunnels: &'a mut Tunnels,
        pool: &'a mut Pool,
        vectors: &'a mut Vectors,
        counters: &'a Counters,
    ) -> Transmission<'a> {
        Transmission { state: self, ports, tunnels, out: Out { pool, vectors, counters } }
    }
}

impl Transmission<'_> {
    /// Sends each frame to its port, in order per port.
    pub(crate) fn forward(&mut self, frames: &mut Vec<(PortId, Frame)>) {
        let Transmit { coalescer, queue, pieces, sorter } = &mut *self.state;
        sorter.sort(frames);
        while let Some(egress) = sorter.next(queue) {
            match self.ports.egress(egress) {
                Some(Egress::Device(port)) => {
                    if queue.len() > 1 && port.accepts.takes_any() {
                        let before = queue.len();
                        coalescer.coalesce(queue, port.accepts, self.out.pool);
                        self.out.counters.add(egress, Counter::Coalesced, (before - queue.len()) as u64);
                    }
                    self.out.send(egress, port, queue, pieces);
                }
                Some(Egress::Tunnel) => self.tunnels.send(egress, queue, self.out.counters),
                Some(Egress::Relay) | None => {}
            }
            queue.drain(..).for_each(|frame| self.out.pool.free(frame));
        }
    }

    /// Sends every frame to every target whose MTU it fits.
    pub(crate) fn flood(&mut self, frames: &mut Vec<Frame>, targets: impl Iterator<Item = (PortId, usize)>) {
        self.copy(frames, targets);
        frames.drain(..).for_each(|frame| self.out.pool.free(frame));
    }

    /// Sends every frame to every target whose MTU it fits, and leaves the frames where they are.
    pub(crate) fn copy(&mut self, frames: &mut [Frame], targets: impl Iterator<Item = (PortId, usize)>) {
        if frames.is_empty() {
            return;
        }
        for (egress, mtu) in targets {
            for fitting in frames.chunk_by_mut(|one, next| fits(one, mtu) == fits(next, mtu)) {
                match self.ports.egress(egress) {
                    _ if !fits(&fitting[0], mtu) => {
                        self.out.counters.drop(egress, DropReason::TxTooBig, fitting.len() as u64);
                    }
                    Some(Egress::Device(port)) => {
                        self.out.send(egress, port, fitting, &mut self.state.pieces);
                    }
                    Some(Egress::Tunnel) => self.tunnels.send(egress, fitting, self.out.counters),
                    Some(Egress::Relay) | None => {}
                }
            }
        }
    }
}

fn fits(frame: &Frame, mtu: usize) -> bool {
    frame.mtu_bytes() <= mtu
}

impl Out<'_> {
    /// Sends frames in order, splitting those whose offload the receiver does not take.
    fn send(&mut self, egress: PortId, port: &mut Port, frames: &mut [Frame], pieces: &mut Vec<Frame>) {
        let accepts = port.accepts;
        for alike in frames.chunk_by_mut(|one, next| takes(accepts, one) == takes(accepts, next)) {
            if takes(accepts, &alike[0]) {
                self.hand_over(egress, port, alike);
                continue;
            }
            alike.iter().for_each(|frame| self.send_split(egress, port, frame, pieces));
        }
    }

    /// Sends the pieces of a frame whose offload the receiver does not take.
    fn send_split(&mut self, egress: PortId, port: &mut Port, frame: &Frame, pieces: &mut Vec<Frame>) {
        let mut splitter = Splitter::new(frame, port.accepts);
        self.counters.add(egress, Counter::Split, u64::from(frame.offload.gso.is_some()));
        let mut more = true;
        while more {
            more = splitter.next_batch(self.pool, pieces).unwrap_or_else(|reason| {
                self.counters.drop(egress, reason, 1);
                false
            });
            self.hand_over(egress, port, pieces);
            pieces.drain(..).for_each(|piece| self.pool.free(piece));
        }
    }

    /// Gives frames that need nothing more to the kernel.
    fn hand_over(&mut self, egress: PortId, port: &mut Port, frames: &mut [Frame]) {
        let bytes: usize = frames.iter().map(Frame::len).sum();
        let (mut sent, mut sent_bytes) = (frames.len(), bytes);
        port.device.send(self.vectors, frames, |reason, frame| {
            self.counters.drop(egress, reason, 1);
            sent -= 1;
            sent_bytes -= frame.len();
        });
        self.counters.add(egress, Counter::SentFrames, sent as u64);
        self.counters.add(egress, Counter::SentBytes, sent_bytes as u64);
    }
}

fn takes(accepts: Accepts, frame: &Frame) -> bool {
    accepts.takes(&frame.offload)
}
