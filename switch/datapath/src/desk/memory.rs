//! Everything that control said.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vswitch_contract::fact::{Fact, Facts, Key};
use vswitch_contract::order::{Options, Reply};
use vswitch_contract::parts::PART_BYTES_MAX;
use vswitch_contract::port::PortSpec;
use vswitch_frame::PortId;
use vswitch_sys::seqpacket::DESCRIPTORS_MAX;

use super::line::Line;

/// The facts that control told, and the line on which it says more.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) line: Line,
    /// Everything that was told.
    pub(super) facts: Facts,
    pub(super) options: Options,
    /// Whether control said that it has told everything.
    pub(super) begun: bool,
    /// Whether control said that it is over.
    pub(super) stopped: bool,
}

impl Desk {
    pub(crate) fn new(line: Line, options: Options) -> Self {
        Self { line, facts: Facts::default(), options, begun: false, stopped: false }
    }

    /// Whether frames are to be moved.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether there is nothing left to do: control said so, or there is neither a control nor a port.
    pub(crate) fn is_over(&self) -> bool {
        self.stopped || (self.line.is_dead() && self.ports().next().is_none())
    }

    /// Ports, as they were told.
    pub(super) fn ports(&self) -> impl Iterator<Item = (PortId, &PortSpec)> {
        let all = self.facts.range(Key::Port(PortId(0))..=Key::Port(PortId(u16::MAX)));
        all.filter_map(|held| if let Fact::Port(id, spec) = &held.fact { Some((*id, spec)) } else { None })
    }

    /// Sends an answer.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        self.reply_with(reply, Vec::new());
    }

    /// Sends an answer and the descriptors that ride along.
    pub(super) fn reply_with(&mut self, reply: &Reply, fds: Vec<Arc<OwnedFd>>) {
        if let Ok(text) = serde_json::to_vec(reply) {
            self.line.send(&text, fds);
        }
    }

    /// A page of the facts behind one: as many as fit a packet with their descriptors, and one at least.
    pub(super) fn page(&self, behind: Option<Key>) -> (Reply, Vec<Arc<OwnedFd>>) {
        let (mut page, mut fds, mut bytes) = (Vec::new(), Vec::new(), 0);
        for held in self.facts.behind(behind) {
            bytes += serde_json::to_vec(&held.fact).map_or(0, |text| text.len() + 8);
            let is_full = bytes > PART_BYTES_MAX || fds.len() + held.fds.len() > DESCRIPTORS_MAX;
            if is_full && !page.is_empty() {
                break;
            }
            page.push((held.fact.clone(), held.fds.len()));
            fds.extend(held.fds.iter().cloned());
        }
        (Reply::Facts(page), fds)
    }
}
