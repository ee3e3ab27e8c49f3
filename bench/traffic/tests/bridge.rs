//! Every measurement across a kernel bridge. Needs root; leaves nothing behind.
//!
//! The measurements spawn this very program as their workers, so it has a `main` of its own.

use std::process::ExitCode;
use std::time::Duration;

use vswitch_traffic::{KernelBridge, TrafficError, connections, dispatch, ping, ping_pong, tcp, udp};

const SHORT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    if let Some(code) = dispatch(std::env::args_os()) {
        return code;
    }
    let bridge = KernelBridge::new("br0", [10, 9]).expect("bridge");
    everything_arrives(&bridge);
    failures_have_a_reason(&bridge);
    println!("measurements across a kernel bridge: ok");
    ExitCode::SUCCESS
}

fn everything_arrives(bridge: &KernelBridge) {
    let [from, to] = &bridge.places;
    let report = ping(from, to.address, 2, Duration::from_secs(5)).expect("ping");
    assert_eq!((report.sent, report.answered), (2, 2));
    for streams in [1, 8] {
        let report = tcp(from, to, streams, SHORT).expect("tcp");
        assert!(report.gigabits_per_second() > 0.1, "{streams} streams: {report:?}");
    }
    for flows in [1, 64] {
        let report = udp(from, to, flows, SHORT).expect("udp");
        assert!(report.received > 1000, "{flows} flows: {report:?}");
        assert_eq!((report.reordered, report.duplicated, report.corrupt), (0, 0, 0), "{flows} flows");
        assert_eq!(report.sent, report.received + report.lost);
    }
    let report = ping_pong(from, to, SHORT).expect("ping-pong");
    assert!(report.round_trips > 100 && report.p50_us <= report.p99_us, "{report:?}");
    let report = connections(from, to, 8, SHORT).expect("connections");
    assert!(report.connections > 100 && !report.is_faulty(), "{report:?}");
}

fn failures_have_a_reason(bridge: &KernelBridge) {
    let [from, to] = &bridge.places;
    let nobody = "10.9.0.99".parse().expect("address");
    let report = ping(from, nobody, 1, SHORT).expect("ping");
    assert_eq!((report.sent, report.answered), (1, 0));

    let mut elsewhere = to.clone();
    elsewhere.address = nobody;
    let error = tcp(from, &elsewhere, 1, SHORT).expect_err("an address nobody has");
    assert!(
        matches!(&error, TrafficError::Worker { role: "target", message } if !message.is_empty()),
        "{error}"
    );

    elsewhere.netns = "/run/netns/there-is-none".into();
    let error = tcp(from, &elsewhere, 1, SHORT).expect_err("a namespace there is none of");
    assert!(error.to_string().contains("/run/netns/there-is-none"), "{error}");
}
