//! The kernel's bridge as Docker sets it up, without Docker: the same bridge, the same rules.

use std::io;

use vswitch_sys::netns::run_in;
use vswitch_traffic::KernelBridge;

use super::Contender;
use super::who::Peer;
use crate::error::BenchError;
use crate::process::Program;

/// Rules that `iptables-save` shows on a host where Docker 28 runs containers on its default bridge.
pub(super) const RULES: &str = include_str!("docker28.rules");

pub(super) fn contender() -> Result<Contender, BenchError> {
    let bridge = KernelBridge::new("docker0", [172, 17])?;
    bridge.call_iptables(true).map_err(|error| {
        let absent = error.kind() == io::ErrorKind::NotFound;
        if absent { BenchError::missing("br_netfilter", "modprobe br_netfilter") } else { error.into() }
    })?;
    run_in(&bridge.host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    Program::new(&bridge.host, "iptables-restore", [], "apt-get install iptables")?.run(RULES)?;
    Ok(Contender::on_bridge(Peer::DockerRules, bridge))
}
