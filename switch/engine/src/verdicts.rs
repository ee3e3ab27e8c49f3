//! The verdicts on a burst: its frames are sorted first, and acted on later.

use std::net::IpAddr;

use vswitch_frame::{DropReason, Frame, NetworkId, PortId};

use crate::snoop::Audience;

/// The verdict on a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Forward {
        egress: PortId,
        mtu: usize,
    },
    Flood,
    Multicast(Audience),
    /// To the gateway.
    Local,
    Drop(DropReason),
}

/// A packet that leaves the networks of this host.
#[derive(Debug)]
pub struct Outbound {
    /// The network it is from.
    pub network: NetworkId,
    /// The sandbox it is from.
    pub sandbox: u32,
    /// Whether it gets an address of the host.
    pub masqueraded: bool,
    /// The address of the host that it gets then; `None` where there is none of its family.
    pub address: Option<IpAddr>,
    /// The packet; its time to live has been counted down.
    pub frame: Frame,
}

/// An ICMP error that was made for somebody who is not on the network at hand.
#[derive(Debug)]
pub struct MadeError {
    /// The port at which the packet came in that it is about.
    pub port: PortId,
    /// The network from which it comes, if it is about a translated packet, as that was inside; `None` if it
    /// goes to the sender as it is.
    pub network: Option<NetworkId>,
    /// The error; its MAC addresses are zero.
    pub frame: Frame,
}

/// Frames by fate. [`Switch::process`](crate::Switch::process) appends, the caller drains; kept between
/// bursts, the vectors stop allocating once they have grown to the largest burst.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Frames for one port each.
    pub forward: Vec<(PortId, Frame)>,
    /// Frames for every port that [`Switch::flood_targets`](crate::Switch::flood_targets) names, of which
    /// there is at least one. A target whose MTU the frame exceeds must not get it.
    pub flood: Vec<Frame>,
    /// Frames for the gateway, which [`Switch::serve`](crate::Switch::serve) moves on to the other vectors.
    pub local: Vec<Frame>,
    /// Frames for the ports that [`Switch::multicast_targets`](crate::Switch::multicast_targets) names for
    /// their audience, likewise.
    pub multicast: Vec<(Audience, Frame)>,
    /// Questions for names, which are answered with the help of [`Switch::resolve`](crate::Switch::resolve).
    pub names: Vec<Frame>,
    /// Packets that leave the networks of this host, for whoever has the uplink.
    pub outbound: Vec<Outbound>,
    /// Frames that a tunnel has no room for, with its port and how much room it has:
    /// [`Switch::serve`](crate::Switch::serve) tells their senders and drops them.
    pub too_big: Vec<(PortId, usize, Frame)>,
    /// ICMP errors made here for senders outside or behind a translator, for whoever has these.
    pub errors: Vec<MadeError>,
    /// Why frames went nowhere that have become the answer to their sender, and the port at which that is
    /// counted. The answers are in `forward` or `errors`.
    pub answered: Vec<(DropReason, PortId)>,
    /// Frames that go nowhere, with the port at which that is counted: the one they came from, or the
    /// one they were meant for if the reason is named `Tx…`.
    pub drop: Vec<(DropReason, PortId, Frame)>,
}

impl Verdicts {
    /// The number of frames in all vectors.
    pub fn len(&self) -> usize {
        let to_one = self.forward.len() + self.local.len() + self.names.len() + self.drop.len();
        let to_many = self.flood.len() + self.multicast.len();
        to_one + to_many + self.outbound.len() + self.too_big.len() + self.errors.len()
    }

    /// Whether no vector holds a frame.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
