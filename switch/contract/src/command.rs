//! What control tells datapath, and what it answers.
//!
//! One message is one JSON text in one packet of a `SOCK_SEQPACKET` connection; the descriptor of a port
//! rides along. Every [`Command`] is answered by one [`Reply`], in order. Datapath trusts control.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_engine::{Count, Network, Remote, Rule, Station};
use vswitch_frame::{Accepts, GroupId, Mac, NetworkId, PortId};
use vswitch_nat::Binding;
use vswitch_sys::device::DeviceKind;
use vswitch_vxlan::Record;

use crate::claim::{ClaimCommand, Claimed};
use crate::flows::{FlowPage, FlowQuery};
use crate::relay::{Relayed, Targets};
use crate::tunnel::{TunnelSocket, TunnelSpec};
use crate::uplink::{Grant, UplinkSpec};

/// Something control wants done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first command: where the next control will come in. A bound socket rides along.
    Listen,
    /// The second command: where flows are written down, for a datapath that comes after this one. The descriptor of that
    /// memory rides along.
    Mirror,
    /// The third command: how to run. The descriptor of the counters rides along.
    Start(Options),
    /// What there is was told: takes up the flows of the datapath before, and begins to move frames.
    Begin,
    /// Asks what this datapath was told before.
    Recall(Recall),
    /// Hands over the private namespace of veth pairs, to be kept for the next control.
    Keep,
    /// What to do when there is no work, from now on.
    SetPoll(PollMode),
    /// Ends the datapath.
    Stop,
    /// Makes a network, with no ports.
    AddNetwork(NetworkId, Network),
    /// Removes a network, its ports and its table.
    RemoveNetwork(NetworkId),
    /// Makes a port of the descriptor that rides along.
    AddPort(PortId, PortSpec),
    /// Says anew who is behind a port.
    SetStation(PortId, Station),
    /// Asks for names that are not ours over the channel that rides along.
    SetResolver,
    /// Says which addresses the host has beside those of gateways.
    SetHostAddresses(Vec<IpAddr>),
    /// Says what the uplink is at this place in the list of them, if there is one. The packet socket of another interface
    /// than before rides along.
    SetUplink(u16, Option<UplinkSpec>),
    /// Asks for claims over the channel that rides along: each message is a list of [`vswitch_nat::Wanted`].
    SetClaims,
    /// Says which ports were claimed.
    Grant(Vec<Grant>),
    /// About the sockets of claimed ports.
    Claims(ClaimCommand),
    /// Says in its network where the addresses of the container behind a port are.
    Announce(PortId),
    /// Removes a port and what was learned at it, and closes its descriptor.
    RemovePort(PortId),
    /// Publishes ports; those that are published already go on.
    AddBinding(Binding),
    /// Ends a publication, with its flows.
    RemoveBinding(Binding),
    /// About the sockets of published ports.
    Relay(RelayCommand),
    /// About tunnels.
    Tunnel(TunnelCommand),
    /// Puts these rules in place of all there are; those known by their number go on counting.
    SetRules(Vec<Rule>),
    /// Asks for something.
    Read(Question),
}

/// What control wants done about the sockets of published ports, at which relays' clients come in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RelayCommand {
    /// Hands over sockets of a published range, from this one of its sockets on: the next
    /// [`CHUNK`](crate::relay::CHUNK), or as many as there are left.
    AddSockets(Relayed, usize),
    /// Says where a published range leads whose sockets were all handed over.
    LeadTo(Relayed, Targets),
    /// Closes the sockets of a published range.
    CloseSockets(Relayed),
}

/// What control wants done about tunnels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TunnelCommand {
    /// Sends and receives the packets of tunnels through the socket that rides along.
    SetSocket(TunnelSocket),
    /// Closes such a socket.
    CloseSocket(TunnelSocket),
    /// Makes the tunnel of a network, without peers.
    Add(NetworkId, TunnelSpec),
    /// Says the MTU of the underlay of a network's tunnel, in bytes.
    SetMtu(NetworkId, u32),
    /// Removes the tunnel of a network with all it knows.
    Remove(NetworkId),
    /// Makes an address a VTEP of a network; one that is already is no error.
    AddPeer(NetworkId, IpAddr),
    /// Takes that back.
    RemovePeer(NetworkId, IpAddr),
    /// Says who of a network lives where; at most [`RECORDS_MAX`](crate::tunnel::RECORDS_MAX) at once.
    SetRecords(NetworkId, Vec<Record>),
    /// Says that an endpoint of a network is gone, as of a version.
    ForgetRecord(NetworkId, Mac, u64),
    /// Says the names of an endpoint on another host, or that it is gone.
    Name(NetworkId, Mac, Option<Remote>),
    /// Forgets the names of all endpoints on other hosts.
    ForgetNames,
}

/// What control asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Question {
    /// Asks what each rule has decided about.
    Rules,
    /// Asks for a page of the forwarding table of a network: the addresses behind `after`, in order.
    Table {
        /// The network.
        network: NetworkId,
        /// The last address of the page before; `None` asks for the first page.
        after: Option<Mac>,
    },
    /// Asks for a page of the flows.
    Flows(FlowQuery),
    /// Asks how many flows there are, and what was counted of them.
    CountFlows,
}

/// What a control asks a datapath that it did not start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Recall {
    /// How it runs; says which [`VERSION`] is asking. The descriptor of the counters rides along with the
    /// answer.
    Options(String),
    /// The network behind this one; the first one, if none is named.
    NextNetwork(Option<NetworkId>),
    /// The port behind this one, with its descriptor; the first one, if none is named.
    NextPort(Option<PortId>),
    /// The published ports behind these, in the order of the datapath; the first, if none are named.
    NextBinding(Option<Binding>),
    /// Where flows are written down: the descriptor of that memory rides along with the answer.
    Mirror,
    /// The sockets of published ranges behind this one; the first, if none is named. They ride along with the answer.
    NextSockets(Option<(Relayed, usize)>),
    /// The tunnel of the first network behind this one; the first tunnel, if none is named.
    NextTunnel(Option<NetworkId>),
    /// A page of the records of a tunnel: those behind `after`, in the order of their MAC addresses.
    Records {
        /// Of which network.
        network: NetworkId,
        /// The last address of the page before; `None` asks for the first page.
        after: Option<Mac>,
    },
    /// The socket of tunnels behind this one, which rides along; the first one, if none is named.
    NextTunnelSocket(Option<TunnelSocket>),
    /// The uplink at this place; its packet socket rides along with the answer.
    Uplink(u16),
    /// The claims behind this one, with their sockets; the first ones, if none is named.
    NextClaims(Option<Claimed>),
    /// What was handed over to be kept. It rides along with the answer, if there is anything.
    Kept,
}

/// What a control and a datapath must agree on to work together when neither started the other.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How the datapath runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Options {
    /// What it does when there is no work.
    pub poll: PollMode,
    /// Seeds its hashes. Random and secret: containers choose the keys.
    pub seed: u64,
}

/// What the poll loop does when there is no work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PollMode {
    /// Spins for a moment after work, then sleeps.
    #[default]
    Adaptive,
    /// Never sleeps: takes a core, answers fastest.
    Busy,
    /// Never spins.
    Sleep,
}

/// Everything about a port but its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The network it belongs to.
    pub network: NetworkId,
    /// What kind of descriptor it has.
    pub kind: DeviceKind,
    /// The isolation group it is in.
    pub group: GroupId,
    /// Largest network packet it takes, in bytes: 68 to 65,535.
    pub mtu: u16,
    /// What its receiver takes without our help.
    pub accepts: Accepts,
    /// Addresses that are behind it by configuration.
    pub addresses: Vec<Mac>,
    /// Who is behind it.
    pub station: Station,
}

/// The answer to one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// Refused, with the reason for a person.
    Refused(String),
    /// A page of the forwarding table; the last one is not full.
    Table(Vec<TableEntry>),
    /// What each rule has decided about, by its number, in the order of the rules.
    Rules(Vec<(u32, Count)>),
    /// A page of the flows.
    Flows(FlowPage),
    /// How many flows there are, of at most how many, and what was counted of them.
    FlowCount(vswitch_nat::Stats, usize),
    /// How it runs.
    Options(Options),
    /// A network, as it was told.
    Network(NetworkId, Network),
    /// A port, as it was told.
    Port(PortId, PortSpec),
    /// Published ports, as they were told.
    Binding(Binding),
    /// The way out, as it was told.
    Uplink(UplinkSpec),
    /// Claims whose sockets ride along; none behind the last.
    Claims(Vec<Claimed>),
    /// Sockets of a published range, where it leads, and the first of them.
    Sockets(Relayed, Targets, usize),
    /// A tunnel, as it was told, and its peers.
    Tunnel(NetworkId, TunnelSpec, Vec<IpAddr>),
    /// A page of the records of a tunnel; the last one is empty.
    Records(Vec<Record>),
    /// A socket of tunnels.
    TunnelSocket(TunnelSocket),
}

/// Rules a table may have, so that it fits one message.
pub const RULES_MAX: usize = 200;

/// Entries in a full page of a forwarding table, so that a page fits one message.
pub const TABLE_PAGE: usize = 500;

/// One line of a forwarding table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The address.
    pub mac: Mac,
    /// The port it is behind.
    pub port: PortId,
    /// Known by configuration; never ages, never moves.
    pub fixed: bool,
    /// Milliseconds since a frame came from it; zero for an address known by configuration.
    pub age_ms: u64,
}
