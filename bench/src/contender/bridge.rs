//! The kernel's bridge, bare: no netfilter hook sees what passes.

use vswitch_traffic::KernelBridge;

use super::Contender;
use super::who::Peer;
use crate::error::BenchError;

pub(super) fn contender() -> Result<Contender, BenchError> {
    Ok(Contender::on_bridge(Peer::Bridge, KernelBridge::new("br0", [10, 9])?))
}
