//! Ports that no endpoint ever has: the last ones.

use vswitch_frame::PortId;

/// The first uplink. The others have the ports below.
pub const UPLINK: PortId = PortId(4095);
const _: () = assert!(UPLINK.index() + 1 == PortId::LIMIT);

/// The number of uplinks there may be.
pub const UPLINKS_MAX: u16 = 4;

/// The port of an uplink, by its place in the list of them.
pub const fn uplink(place: u16) -> PortId {
    PortId(UPLINK.0 - place)
}

/// Whether a port is an uplink's.
pub const fn is_uplink(port: PortId) -> bool {
    port.0 > TUNNELS.0 && port.0 <= UPLINK.0
}

/// The port where frames of no network's tunnel are counted.
pub const TUNNELS: PortId = PortId(UPLINK.0 - UPLINKS_MAX);

/// The port where relays are counted.
pub const RELAY: PortId = PortId(TUNNELS.0 - 1);

/// The number of ports for endpoints, hosts and tunnels: those below the reserved ones.
pub const PORTS_FREE: usize = RELAY.0 as usize;
