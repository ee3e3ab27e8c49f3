//! Interfaces, addresses and routes, over a route netlink socket (rtnetlink(7)).
//!
//! A socket belongs for ever to the network namespace its thread was in when it was opened: open it
//! with [`netns::run_in`](crate::netns::run_in) and then use it from anywhere. Calls are synchronous:
//! the kernel answers a request before `sendto` returns, so nothing here waits for anybody.
//!
//! Interfaces are named by name, and every error says what could not be done to which of them.
//!
//! Kernel facts relied on:
//! * `RTM_SETLINK` applies namespace, address, MTU, name and flags in that order, so that one request
//!   moves, renames and raises an interface; what was done before a failure stays done (`do_setlink` in
//!   `net/core/rtnetlink.c`).
//! * The far end of a veth pair can be born inside another namespace: `IFLA_NET_NS_FD` in the peer's
//!   own attributes (`veth_newlink` in `drivers/net/veth.c`). Nothing is moved, which would wait for RCU.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use vswitch_frame::Mac;

mod conversation;
mod next_hops;
mod routes;
pub mod watch;

use conversation::{Conversation, Refusal};
pub use routes::Route;

/// Longest name of an interface, in bytes: `IFNAMSIZ` less its zero.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Whether an interface can have this name (`dev_valid_name` in `net/core/dev.c`).
pub fn is_interface_name(name: &str) -> bool {
    let usable = |byte: u8| !matches!(byte, b'/' | b':' | b' ' | b'\t'..=b'\r' | 0);
    let fits = (1..=INTERFACE_NAME_BYTES_MAX).contains(&name.len());
    fits && !matches!(name, "." | "..") && name.bytes().all(usable)
}

/// A refusal of the kernel's.
#[derive(Debug)]
pub struct NetlinkError {
    /// The action that could not be done, as in `create veth "eth0"`.
    pub action: String,
    /// The kernel's reason.
    pub cause: io::Error,
    /// The kernel's reason in its own words, where it gave any.
    pub words: Option<String>,
}

impl NetlinkError {
    fn new(action: String, refusal: Refusal) -> Self {
        Self { action, cause: refusal.cause, words: refusal.words }
    }

    /// Whether the kernel's reason is this `errno`.
    pub fn is(&self, errno: i32) -> bool {
        self.cause.raw_os_error() == Some(errno)
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.cause)?;
        self.words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        io::Error::new(error.cause.kind(), error)
    }
}

/// An interface, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Largest network packet, in bytes.
    pub mtu: u32,
    /// Frames its queue holds.
    pub txqueuelen: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The index of the bridge it is enslaved to.
    pub master: Option<u32>,
    /// `veth`, `tun`, `bridge` and the like; empty for real hardware and loopback.
    pub kind: String,
}

/// A change of an interface; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// Its new name.
    pub name: Option<&'a str>,
    /// Its new hardware address.
    pub mac: Option<Mac>,
    /// Its new MTU, in bytes.
    pub mtu: Option<u32>,
    /// The number of frames its queue is to hold.
    pub txqueuelen: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
    /// The bridge to enslave it to.
    pub master: Option<&'a str>,
    /// The namespace to move it to. Waits for an RCU grace period: tens of milliseconds.
    pub netns: Option<BorrowedFd<'a>>,
}

/// The other end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// The namespace it is born in; `None` for that of the socket.
    pub netns: Option<BorrowedFd<'a>>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The index of the interface.
    pub index: u32,
    /// The address and the length of its prefix.
    pub net: IpNet,
}

/// A route netlink socket. See the [module](self) for how it works.
#[derive(Debug)]
pub struct Netlink {
    conversation: Conversation,
}

type Result<T> = std::result::Result<T, NetlinkError>;

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { conversation: Conversation::open()? })
    }

    /// Makes a veth pair; both ends are down.
    pub fn create_veth(&mut self, name: &str, peer: VethPeer<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(peer.name.to_owned()));
        message.attributes.extend(peer.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        let info =
            vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(message)))];
        self.create(name, info, || format!("create veth pair {name:?} and {:?}", peer.name))
    }

    /// Makes a bridge of the kernel's; it is down.
    pub fn create_bridge(&mut self, name: &str) -> Result<()> {
        self.create(name, vec![LinkInfo::Kind(InfoKind::Bridge)], || format!("create bridge {name:?}"))
    }

    fn create(&mut self, name: &str, info: Vec<LinkInfo>, action: impl Fn() -> String) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action)
    }

    /// Changes an interface.
    pub fn change(&mut self, name: &str, change: LinkChange<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        let master = change.master.map(|bridge| self.index(bridge)).transpose()?;
        let attributes = &mut message.attributes;
        attributes.extend(change.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.txqueuelen.map(LinkAttribute::TxQueueLen));
        attributes.extend(master.map(LinkAttribute::Controller));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || format!("configure interface {name:?}"))
    }

    /// Takes the queueing discipline off an interface, as veth has none from birth: what is sent goes to
    /// the device at once, in the context of its sender.
    pub fn remove_qdisc(&mut self, name: &str) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = i32::try_from(self.index(name)?).unwrap_or(0);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let action = || format!("take the queueing discipline off interface {name:?}");
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE, action)
    }

    /// Brings an interface up.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        self.change(name, LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// Keeps an interface that is still down from giving itself an IPv6 address when it goes up.
    pub fn forbid_link_local(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        let mode = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(mode)]));
        let action = || format!("keep interface {name:?} from making IPv6 addresses");
        self.request(RouteNetlinkMessage::SetLink(message), 0, action)
    }

    /// Removes an interface; a veth goes together with its peer. Waits for an RCU grace period.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        self.request(RouteNetlinkMessage::DelLink(message), 0, || format!("delete interface {name:?}"))
    }

    /// The interface of this name, or `None` if there is none.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answer = self.conversation.ask(RouteNetlinkMessage::GetLink(message), 0);
        match answer {
            Ok(answers) => Ok(answers.into_iter().find_map(link_of)),
            Err(refusal) if refusal.cause.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(refusal) => Err(NetlinkError::new(format!("look up interface {name:?}"), refusal)),
        }
    }

    /// Every interface of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        Ok(self
            .dump(RouteNetlinkMessage::GetLink(message), "interfaces")?
            .into_iter()
            .filter_map(link_of)
            .collect())
    }

    /// Gives an interface an address. An IPv6 address is usable at once: no duplicate detection.
    pub fn add_address(&mut self, name: &str, net: IpNet) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(net.addr());
        message.header.prefix_len = net.prefix_len();
        message.header.index = self.index(name)?;
        message.attributes.push(AddressAttribute::Address(net.addr()));
        message.attributes.push(AddressAttribute::Local(net.addr()));
        match net {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        let action = || format!("give address {net} to interface {name:?}");
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, action)
    }

    /// Every address of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        Ok(self.dump(request, "addresses")?.into_iter().filter_map(address_of).collect())
    }

    /// Adds a route through the named interface to the main table.
    pub fn add_route(&mut self, name: &str, destination: IpNet, gateway: Option<IpAddr>) -> Result<()> {
        self.new_route(name, destination, gateway, NLM_F_EXCL)
    }

    /// Puts a route through the named interface in the place of the one to the same destination, at once.
    pub fn replace_route(&mut self, name: &str, destination: IpNet, gateway: Option<IpAddr>) -> Result<()> {
        self.new_route(name, destination, gateway, NLM_F_REPLACE)
    }

    fn new_route(&mut self, name: &str, net: IpNet, gateway: Option<IpAddr>, flag: u16) -> Result<()> {
        let message = self.route_message(name, net, gateway)?;
        let action = || match gateway {
            Some(gateway) => format!("add route to {net} via {gateway} through {name:?}"),
            None => format!("add route to {net} through {name:?}"),
        };
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flag, action)
    }

    /// Removes a route that [`add_route`](Self::add_route) added.
    pub fn delete_route(&mut self, name: &str, destination: IpNet, gateway: Option<IpAddr>) -> Result<()> {
        let message = self.route_message(name, destination, gateway)?;
        let action = || format!("delete route to {destination} through {name:?}");
        self.request(RouteNetlinkMessage::DelRoute(message), 0, action)
    }

    fn route_message(&mut self, name: &str, net: IpNet, gateway: Option<IpAddr>) -> Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(net.addr()),
            destination_prefix_length: net.prefix_len(),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(net.network())));
        message
            .attributes
            .extend(gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::from(gateway))));
        message.attributes.push(RouteAttribute::Oif(self.index(name)?));
        Ok(message)
    }

    /// Every route of the namespace's main table, by each of its next hops: IPv4 before IPv6.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut answers = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            answers.extend(self.dump(RouteNetlinkMessage::GetRoute(message), "routes")?);
        }
        let mut objects = BTreeMap::new();
        if answers.iter().any(|answer| routes::object_of(answer).is_some()) {
            let listed = self.conversation.ask(next_hops::Message::GetAll, NLM_F_DUMP);
            let refused = |refusal| NetlinkError::new("list next hops".to_owned(), refusal);
            objects = next_hops::by_object(listed.map_err(refused)?);
        }
        Ok(answers.into_iter().flat_map(|answer| routes::routes_of(answer, &objects)).collect())
    }

    fn index(&mut self, name: &str) -> Result<u32> {
        let missing = || Refusal::from(io::Error::from_raw_os_error(libc::ENODEV));
        let link = self.find_link(name)?.map(|link| link.index);
        link.ok_or_else(|| NetlinkError::new(format!("find interface {name:?}"), missing()))
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl Fn() -> String,
    ) -> Result<()> {
        let answer = self.conversation.ask(message, flags | NLM_F_ACK);
        answer.map(drop).map_err(|refusal| NetlinkError::new(action(), refusal))
    }

    fn dump(&mut self, message: RouteNetlinkMessage, what: &str) -> Result<Vec<RouteNetlinkMessage>> {
        let answer = self.conversation.ask(message, NLM_F_DUMP);
        answer.map_err(|refusal| NetlinkError::new(format!("list {what}"), refusal))
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        txqueuelen: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        kind: String::new(),
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name = name;
        } else if let LinkAttribute::Address(bytes) = attribute {
            link.mac = bytes.try_into().ok().map(Mac);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = mtu;
        } else if let LinkAttribute::TxQueueLen(frames) = attribute {
            link.txqueuelen = frames;
        } else if let LinkAttribute::Controller(index) = attribute {
            link.master = Some(index);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            let kind =
                infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            link.kind = kind.map(ToString::to_string).unwrap_or_default();
        }
    }
    Some(link)
}

fn address_of(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let mut address = None;
    for attribute in message.attributes {
        // On a point-to-point interface IFA_ADDRESS is the peer's; IFA_LOCAL is always ours, when there.
        if let AddressAttribute::Local(local) = attribute {
            address = Some(local);
        } else if let AddressAttribute::Address(other) = attribute {
            address = address.or(Some(other));
        }
    }
    let net = IpNet::new(address?, message.header.prefix_len).ok()?;
    Some(Address { index: message.header.index, net })
}
