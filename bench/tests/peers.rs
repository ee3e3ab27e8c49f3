//! Every peer that this machine has the programs for carries every kind of traffic. Needs root; leaves
//! nothing behind.
//!
//! The measurements spawn this very program as their workers, so it has a `main` of its own.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use vswitch_bench::contender::Contender;
use vswitch_bench::contender::who::{Peer, Who};
use vswitch_bench::measurement::Measurement;

fn main() -> ExitCode {
    if let Some(code) = vswitch_traffic::dispatch(std::env::args_os()) {
        return code;
    }
    vswitch_traffic::enter_stage().expect("stage");
    let installed = |program: &str| Path::new("/usr/sbin").join(program).exists();
    let mut peers = vec![Peer::Bridge];
    peers.extend(installed("iptables-restore").then_some(Peer::DockerRules));
    peers.extend([Peer::Ovs, Peer::OvsTso].into_iter().filter(|_| installed("ovs-vswitchd")));
    for peer in peers {
        let contender = Contender::start(Who::Peer(peer)).expect("start");
        for measurement in [
            Measurement::Tcp1,
            Measurement::Tcp8,
            Measurement::Udp1,
            Measurement::Udp64,
            Measurement::Pingpong,
        ] {
            let outcome = measurement.measure(&contender, Duration::from_millis(100)).expect("measure");
            let positive = outcome.figures.iter().all(|&(_, value)| value > 0.0);
            assert!(positive && outcome.fault.is_none(), "{peer:?} {measurement:?}: {outcome:?}");
        }
        println!("{} carries every kind of traffic: ok", contender.who);
    }
    ExitCode::SUCCESS
}
