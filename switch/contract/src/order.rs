//! The orders of control to the datapath, and its answers.
//!
//! One message is one JSON text ([`parts`](crate::parts)) over a `SOCK_SEQPACKET` connection; descriptors
//! ride along. Every [`Order`] is answered by one [`Reply`], in order. The datapath trusts control.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_engine::Count;
use vswitch_frame::{Mac, NetworkId, PortId};

use crate::claim::Protocol;
use crate::fact::{Fact, Key};
use crate::flows::{FlowPage, FlowQuery, Stats};
use crate::relay::Binding;

/// Something control wants done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first one to a new datapath: how to run. Along ride a bound socket where the next control will
    /// come in, the memory of flows, and that of counters.
    Start(Options),
    /// Asks a datapath that another control started how it runs; says which [`VERSION`] is asking. Along with
    /// the answer ride the memory of flows and that of counters.
    Greet(String),
    /// Hands over the channels on which the datapath asks: for names that are not ours, and for claims.
    Connect,
    /// Changes facts, in order. Along ride the descriptors of each.
    Tell(Vec<Step>),
    /// Asks for the facts behind this one; the first ones, if none is named. Along ride their descriptors.
    Recall(Option<Key>),
    /// Everything was told: takes up the flows of the datapath before, and begins to move frames.
    Begin,
    /// Asks for an answer, and for nothing else.
    Alive,
    /// Says in its network where the addresses of the container behind a port are.
    Announce(PortId),
    /// Takes claimed ports of a protocol at an address out of use that no flow has, so many at most.
    GiveBack(Protocol, IpAddr, usize),
    /// Asks for something.
    Read(Question),
    /// Ends the datapath.
    Stop,
}

/// A [`Change`](crate::fact::Change) of one fact, as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Makes it so, with the next so many of the descriptors that ride along.
    Set(Fact, usize),
    /// Takes it back.
    Remove(Key),
}

/// Something control asks.
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
    /// Asks for the narrow paths of the tunnel of a network.
    Paths(NetworkId),
    /// Asks for a page of the flows.
    Flows(FlowQuery),
    /// Asks how many flows there are, and what was counted of them.
    CountFlows,
    /// Asks whether published ports have any flow.
    InUse(Binding),
}

/// The version that a control and a datapath must share to work together when neither started the other.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Settings of a datapath, which hold for as long as it runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Seeds its hashes. Random and secret: containers choose the keys.
    pub seed: u64,
}

/// The answer to one order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// Refused, with the reason for a person.
    Refused(String),
    /// The steps that were refused, by their places, with the reasons; all others are done.
    Told(Vec<(usize, String)>),
    /// Its settings.
    Options(Options),
    /// Facts, each with the number of its descriptors; none behind the last.
    Facts(Vec<(Fact, usize)>),
    /// A page of the forwarding table; the last one is not full.
    Table(Vec<TableEntry>),
    /// The frames and bytes that each rule has decided about, by its number, in the order of the rules.
    Rules(Vec<(u32, Count)>),
    /// The ports that are out of use now.
    GivenBack(BTreeSet<u16>),
    /// VTEPs beyond narrow paths, and the largest network packet that each path has room for, in bytes.
    Paths(Vec<(IpAddr, u32)>),
    /// A page of the flows.
    Flows(FlowPage),
    /// Whether they have.
    InUse(bool),
    /// The counts of the translator, flows among them, and the most flows there may be.
    FlowCount(Stats, usize),
}

/// Entries in a full page of a forwarding table: no more than one burst's work.
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
