//! The sockets at which clients of relays come in: listening ones are here, those of UDP are the proxy's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::relay::{Relayed, Targets, Transport};
use vswitch_engine::PublishedAs;
use vswitch_frame::{Frame, NetworkId, headers};
use vswitch_proxy::{Bindings, Token};

use super::targets;

/// The part of all descriptors that is for other things than sockets of published ports: one of so many.
pub(super) const OTHERS_PART: usize = 4;

/// The reason that sockets are not taken.
#[derive(Debug)]
pub(crate) enum SocketsError {
    /// They are not those that are next, or fewer than were sent.
    Missing,
    /// This process may have so many descriptors, and the rest is for connections.
    Full(usize),
    /// It cannot be waited for one of them.
    Unfit(std::io::Error),
}

impl fmt::Display for SocketsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("sockets of published ports are missing: publish fewer ports"),
            Self::Full(most) => write!(
                f,
                "each published port takes a descriptor, and {most} is the most the datapath may have \
                 (RLIMIT_NOFILE): publish fewer ports, or raise it, as with LimitNOFILE= of the daemon's service"
            ),
            Self::Unfit(error) => write!(f, "cannot wait for the socket of a published port: {error}"),
        }
    }
}

/// A published range.
#[derive(Debug)]
pub(super) struct Publication {
    /// The number by which the proxy knows it.
    pub(super) number: u64,
    pub(super) targets: Targets,
    /// Sockets in the order of ports.
    pub(super) sockets: Vec<Socket>,
}

#[derive(Debug)]
pub(super) enum Socket {
    Listening(usize, Arc<OwnedFd>),
    Datagrams(Token),
}

/// All published ranges, and their sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) publications: BTreeMap<Relayed, Publication>,
    /// The range that a listening socket is of, and its place there, by number.
    pub(super) listening: BTreeMap<usize, (Relayed, usize)>,
    pub(super) made: u64,
}

impl Sockets {
    /// The published port by which a relay's frame comes to a container: known, unless several lead to the
    /// container's port.
    pub(super) fn published_as(&self, network: NetworkId, frame: &Frame) -> PublishedAs {
        let Some((transport, container, port)) = target(frame) else { return PublishedAs::Unknown };
        let leads = |(relayed, publication): (&Relayed, &Publication)| {
            let Targets { v4, v6, .. } = publication.targets;
            let mut targets = [v4, v6].into_iter().flatten();
            let nth = port.checked_sub(relayed.container_port)?;
            let there = relayed.transport == transport
                && usize::from(nth) < relayed.count()
                && targets.any(|target| (target.network, target.container) == (network, container));
            there.then(|| relayed.first.saturating_add(nth))
        };
        let mut ports = self.publications.iter().filter_map(leads);
        match (ports.next(), ports.next()) {
            (Some(port), None) => PublishedAs::Port(port),
            _ => PublishedAs::Unknown,
        }
    }

    /// A listening socket, and where its clients lead.
    pub(super) fn listening(&self, number: usize) -> Option<(BorrowedFd<'_>, Bindings)> {
        let (relayed, nth) = self.listening.get(&number)?;
        let publication = self.publications.get(relayed)?;
        let Socket::Listening(_, fd) = publication.sockets.get(*nth)? else { return None };
        Some((
            fd.as_fd(),
            targets::bindings(&publication.targets, container_port(relayed, *nth), publication.number),
        ))
    }
}

/// The kind of a frame's transport, and whom it is for.
fn target(frame: &Frame) -> Option<(Transport, IpAddr, u16)> {
    let headers = &frame.headers;
    let transport = match headers.transport() {
        headers::Transport::Tcp => Transport::Tcp,
        headers::Transport::Udp => Transport::Udp,
        headers::Transport::Other => return None,
    };
    let (bytes, at) = (frame.bytes(), headers.network_offset());
    let address = if headers.is_ipv4() {
        IpAddr::from(<[u8; 4]>::try_from(bytes.get(at + 16..at + 20)?).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(bytes.get(at + 24..at + 40)?).ok()?)
    };
    let port = bytes.get(headers.transport_offset() + 2..headers.transport_offset() + 4)?;
    Some((transport, address, headers::be16(port, 0)))
}

pub(super) fn container_port(relayed: &Relayed, nth: usize) -> u16 {
    relayed.container_port.saturating_add(u16::try_from(nth).unwrap_or(u16::MAX))
}
