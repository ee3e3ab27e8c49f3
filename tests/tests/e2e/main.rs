//! End-to-end tests: real containers, real TCP and UDP stacks, a real switch in a host namespace of its own.
//!
//! Each test has its own [`World`], so they run in parallel and leave nothing.

#![forbid(unsafe_code)]

mod attacks;
mod bad_input;
mod boot;
mod cluster;
mod cluster_faults;
mod cluster_networks;
mod confinement;
mod connect;
mod demo;
mod direct;
mod disk;
mod documents;
mod durability;
mod etcd;
mod faults;
mod flaps;
mod flows;
mod gateway;
mod gone;
mod harness;
mod host_port;
mod inbound;
mod ipam;
mod ipv6_off;
mod isolation;
mod learning;
mod lifecycle;
mod load;
mod malformed;
mod masquerade;
mod modes;
mod mounts;
mod multicast;
mod multipath;
mod names;
mod networks;
mod overlay;
mod path_mtu;
mod port_security;
mod ports;
mod protocols;
mod publish;
mod relay;
mod relay_datagrams;
mod relay_ends;
mod restart;
mod rules;
mod rules_import;
mod rules_ways;
mod short_connections;
mod shortage;
mod signals;
mod takeover;
mod uplink;
mod uplink_input;
mod vpn;

use vswitch_tests::world::World;

const VSWITCH: &str = env!("CARGO_BIN_EXE_vswitch-under-test");

/// A running switch.
fn world() -> World {
    World::start(VSWITCH)
}
