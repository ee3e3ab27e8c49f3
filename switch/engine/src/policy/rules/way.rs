//! The way of a packet, as rules see it: the ends of it that are not in the packet.

use vswitch_frame::NetworkId;

use crate::network::Station;
use crate::ports::Port;

/// The networks a packet comes from and goes to; `None` is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) from: Option<NetworkId>,
    pub(crate) to: Option<NetworkId>,
}

impl Scope {
    /// The scope of the way back.
    pub(crate) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A party that a packet comes from or goes to, beside its address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Party<'a> {
    /// Its network; `None` for who is on none of ours.
    pub(crate) network: Option<NetworkId>,
    /// Its sandbox; `None` for who has none on this host.
    pub(crate) sandbox: Option<u32>,
    /// The interface of the host that it is behind, of who is on no network; `None` if that is not known.
    pub(crate) interface: Option<&'a str>,
}

impl<'a> Party<'a> {
    /// The party behind a port.
    pub(crate) fn at(port: &Port) -> Self {
        let sandbox = match &port.station {
            Station::Container(endpoint) => Some(endpoint.sandbox),
            Station::Unknown | Station::Host | Station::Tunnel => None,
        };
        Self { network: Some(port.network), sandbox, interface: None }
    }

    /// Somebody who is on no network, behind an interface of the host.
    pub(crate) fn behind(interface: Option<&'a str>) -> Self {
        Self { network: None, sandbox: None, interface }
    }
}

/// The published port of the host that a packet named, which stands for the container's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishedAs {
    /// It came through none.
    #[default]
    Nothing,
    /// It came through one, or a mapping, and nobody has looked which.
    Unknown,
    /// It came through this one.
    Port(u16),
}

/// The way of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way<'a> {
    pub(crate) from: Party<'a>,
    pub(crate) to: Party<'a>,
    pub(crate) published_as: PublishedAs,
}

impl<'a> Way<'a> {
    /// The way from one party to another, through no published port.
    pub(crate) fn between(from: Party<'a>, to: Party<'a>) -> Self {
        Self { from, to, published_as: PublishedAs::Nothing }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope { from: self.from.network, to: self.to.network }
    }
}

/// A way as a flow keeps it beside its scope, from its initiator to its target.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    sandboxes: [Option<u32>; 2],
    /// Places in [`Interfaces`].
    interfaces: [Option<u16>; 2],
    published_as: PublishedAs,
    /// Whether a rule opened it.
    pub(crate) opened: bool,
}

/// Names that are kept at most. A host has few, so that the table is looked through in order.
const NAMES_MAX: usize = 256;

/// Names of interfaces that flows have kept: each is here once.
#[derive(Debug, Default)]
pub(crate) struct Interfaces(Vec<String>);

impl Interfaces {
    /// A way in the form that a flow keeps.
    pub(crate) fn keep(&mut self, way: &Way<'_>, opened: bool) -> Kept {
        Kept {
            sandboxes: [way.from.sandbox, way.to.sandbox],
            interfaces: [self.number(way.from.interface), self.number(way.to.interface)],
            published_as: way.published_as,
            opened,
        }
    }

    fn number(&mut self, name: Option<&str>) -> Option<u16> {
        let name = name?;
        let known = self.0.iter().position(|known| known == name);
        let place = known.or_else(|| {
            (self.0.len() < NAMES_MAX).then(|| {
                self.0.push(name.to_owned());
                self.0.len() - 1
            })
        });
        u16::try_from(place?).ok()
    }

    /// The way of a flow's first packet.
    pub(crate) fn way(&self, scope: Scope, kept: &Kept) -> Way<'_> {
        let party = |network, side: usize| Party {
            network,
            sandbox: kept.sandboxes[side],
            interface: kept.interfaces[side]
                .and_then(|place| self.0.get(usize::from(place)))
                .map(String::as_str),
        };
        Way { from: party(scope.from, 0), to: party(scope.to, 1), published_as: kept.published_as }
    }
}
