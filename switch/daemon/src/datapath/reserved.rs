//! Ports that no endpoint ever has: the last ones.

use vswitch_frame::PortId;

/// The uplink.
pub const UPLINK: PortId = PortId(4095);
const _: () = assert!(UPLINK.index() + 1 == PortId::LIMIT);

/// Where is counted what is of no network's tunnel.
pub const TUNNELS: PortId = PortId(UPLINK.0 - 1);

/// Where relays are counted.
pub const RELAY: PortId = PortId(TUNNELS.0 - 1);

/// How many ports there are for endpoints, hosts and tunnels: those below the reserved ones.
pub const PORTS_FREE: usize = RELAY.0 as usize;
