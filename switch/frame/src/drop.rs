//! Why a frame went nowhere.
//!
//! One enum is the set of counters, the labels of the metrics and the table in `docs/counters.md`.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $text:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a frame was dropped. Every dropped frame is counted under exactly one reason, at the port
        /// it came from, or for the reasons named `tx-…` at the port it was meant for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $text])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];

            /// The name under which it is shown and counted.
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }

            /// One sentence that says when it happens.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(DropReason::$name => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    Runt = "runt",
    /// The virtio-net header asks for a checksum or a segmentation that the frame's headers do not allow.
    BadOffload = "bad-offload",
    /// The source MAC is a multicast address or zero.
    BadSource = "bad-source",
    /// Sent to 01:80:c2:00:00:00 to :0f, which no bridge forwards.
    LinkLocal = "link-local",
    /// An IPv4 header that is cut short or contradicts its own lengths.
    MalformedIpv4 = "malformed-ipv4",
    /// An IPv6 header or extension header that is cut short or contradicts its own lengths.
    MalformedIpv6 = "malformed-ipv6",
    /// A TCP header that is cut short or contradicts its own length.
    MalformedTcp = "malformed-tcp",
    /// A UDP header that is cut short or contradicts its own length.
    MalformedUdp = "malformed-udp",
    /// More than two VLAN tags, behind which neither port security nor rules look.
    TooManyTags = "too-many-tags",
    /// The source MAC belongs, by configuration, to another port.
    SourceTaken = "source-taken",
    /// The destination is behind the port the frame came from.
    Reflected = "reflected",
    /// The destination is in the same isolation group, as containers are where ICC is off.
    Isolated = "isolated",
    /// Nobody to flood to: no other port of the network may receive it.
    NoReceiver = "no-receiver",
    /// Sent to many while as much of its port's waits to be copied as may.
    FloodLimit = "flood-limit",
    /// An ARP packet for the gateway that is cut short or is not about IPv4 over Ethernet.
    MalformedArp = "malformed-arp",
    /// An ICMP or ICMPv6 message for the gateway that is cut short or breaks a rule of its kind.
    MalformedIcmp = "malformed-icmp",
    /// A DHCP message for the gateway that is cut short or has no type.
    MalformedDhcp = "malformed-dhcp",
    /// A checksum that the gateway had to rely on is wrong.
    BadChecksum = "bad-checksum",
    /// Sent to the gateway from an address that is none of the network's stations, or from outside with one
    /// that nobody has there.
    Martian = "martian",
    /// For the gateway, which does not serve this and has no host to hand it to.
    NotServed = "not-served",
    /// For the host, in a shape that its stack gets from no container: with a VLAN tag, to many with an
    /// address of one, with a route of its own, as a router's word, or of another protocol than IP and ARP.
    HostGate = "host-gate",
    /// For the gateway, which took note of it: there is nothing to answer.
    Consumed = "consumed",
    /// To be routed to an address of no network, or of nobody on its network.
    NoRoute = "no-route",
    /// Its time to live or hop limit ended at the gateway.
    TtlExceeded = "ttl-exceeded",
    /// Came in at the uplink and is for the host's own stack, which has a copy of it.
    ForHost = "for-host",
    /// The host's kernel forwarded to a container what came in at the uplink, where the switch has taken it
    /// already.
    AlreadyTaken = "already-taken",
    /// The next hop on the uplink's link did not say its MAC address, or too many packets wait for that.
    NoNeighbour = "no-neighbour",
    /// The source MAC is not one of the endpoint's.
    SpoofedMac = "spoofed-mac",
    /// The source IP address is not one of the endpoint's.
    SpoofedIp = "spoofed-ip",
    /// An ARP packet whose sender is not the endpoint, or that is cut short.
    SpoofedArp = "spoofed-arp",
    /// A neighbour solicitation or advertisement that speaks for another, or is cut short.
    SpoofedNd = "spoofed-nd",
    /// A container sent what only a DHCP server sends.
    RogueDhcp = "rogue-dhcp",
    /// A container sent a router advertisement or an ICMP redirect, which only a router sends.
    RogueRa = "rogue-ra",
    /// A rule of the user's dropped it.
    Rule = "rule",
    /// It would enter or leave an internal network, or reach the host from an isolated one.
    Internal = "internal",
    /// It was sent to a container from outside its network in a way that the network's gateway mode does
    /// not allow.
    Protected = "protected",
    /// A membership report of IGMP or MLD: the switch took note, and no router of the network needs it.
    Snooped = "snooped",
    /// Sent to a multicast group that no other port of the network has joined.
    NoMember = "no-member",
    /// Larger than the MTU of the port it was meant for.
    TxTooBig = "tx-too-big",
    /// The kernel's queue towards the receiver was full.
    TxFull = "tx-full",
    /// The kernel refused the frame for another cause, such as an interface that is down.
    TxRefused = "tx-refused",
    /// No free buffer to split the super-frame into.
    TxNoBuffer = "tx-no-buffer",
    /// A client of a published port was refused, or gave way to another, since there are as many relays as
    /// there may be and its address or publication has the most.
    RelayFull = "relay-full",
    /// A datagram on the tunnels' port that is not VXLAN: cut short, or without a network identifier.
    TunnelMalformed = "tunnel-malformed",
    /// A VXLAN packet of a network that has no tunnel here.
    TunnelUnknownVni = "tunnel-unknown-vni",
    /// A VXLAN packet from an address that is no peer of its network.
    TunnelUnknownVtep = "tunnel-unknown-vtep",
    /// A VXLAN packet from this host itself, or a frame for a tunnel that would lead back to it.
    TunnelSelf = "tunnel-self",
    /// A frame with a VLAN tag inside a VXLAN packet, where tags are not carried.
    TunnelTagged = "tunnel-tagged",
    /// A frame in a VXLAN packet from another VTEP than the one that, by a record, its source MAC is behind.
    TunnelSpoofed = "tunnel-spoofed",
    /// An address that a router may not forward from or to, or one of the host's own from outside.
    NatBadAddress = "nat-bad-address",
    /// A checksum is wrong, and nothing corrupt is translated.
    NatBadChecksum = "nat-bad-checksum",
    /// Cut short, or breaking the rules of its protocol: port zero, TCP flags that contradict each other, bad
    /// fragments.
    NatMalformed = "nat-malformed",
    /// A protocol, or a kind of ICMP message, that is not translated.
    NatProtocol = "nat-protocol",
    /// Neither of a flow nor the beginning of one.
    NatNoFlow = "nat-no-flow",
    /// From somebody whom the mapping does not let in, or to a claimed port without a mapping.
    NatFiltered = "nat-filtered",
    /// Its network does not let it out.
    NatRefused = "nat-refused",
    /// The host has no outside address of its family.
    NatNoAddress = "nat-no-address",
    /// No outside port was free.
    NatNoPort = "nat-no-port",
    /// Its sandbox has as many flows as it may have.
    NatSandboxFull = "nat-sandbox-full",
    /// The flow table is full of established flows.
    NatTableFull = "nat-table-full",
    /// Its translation would be the same as another flow's.
    NatConflict = "nat-conflict",
    /// A fragment overlaps what is there of its datagram.
    NatFragmentOverlap = "nat-fragment-overlap",
    /// The first fragment of its datagram did not come, or too many wait for theirs.
    NatFragmentLost = "nat-fragment-lost",
}

impl DropReason {
    /// The number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether something went wrong, or somebody did. The rest is how it should be: the frame came to its end
    /// here, and is counted, but apart from faults.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Consumed | Self::ForHost | Self::AlreadyTaken | Self::Snooped)
    }

    /// The reason as an index into a table of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_indices_are_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(!reason.meaning().is_empty());
            assert_eq!(DropReason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
