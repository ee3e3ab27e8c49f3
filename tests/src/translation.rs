//! Fuzz target of the translator: any bytes as frames from inside and outside.

use std::time::Duration;

use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::{Frame, Instant, NetworkId, PortId};
use vswitch_nat::{Binding, Inside, Leaving, Limits, Nat, Protocol, Uplink, Verdicts};

use crate::fuzz::with_pool;

const LAN: NetworkId = NetworkId(1);

fn nat() -> Nat {
    let host = "192.0.2.1".parse().expect("an address");
    let mut nat = Nat::new(Limits { flows: 8, fragments_waiting: 4, ..Limits::default() }, 7);
    nat.set_uplink(Uplink {
        v4: Some("192.0.2.1".parse().expect("an address")),
        v6: Some("2001:db8::1".parse().expect("an address")),
        host: Vec::new(),
        mtu: 1500,
        mtus: [].into(),
    });
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        nat.grant(protocol, host, 40_000..40_004);
        let binding = Binding {
            host,
            host_port: 8080,
            protocol,
            ports: 1,
            network: LAN,
            container: "10.1.0.2".parse().expect("an address"),
            container_port: 80,
            sandbox: 1,
            gateway: "10.1.0.1".parse().expect("an address"),
            keeps_client: true,
        };
        nat.add_binding(binding).expect("a binding");
    }
    nat
}

/// Any bytes as frames, each behind a byte that says where it comes from and how long ago the last one was,
/// and a byte with its length: what leaves comes from an address of the host, and in the end nothing is held.
///
/// # Panics
/// When something else leaves, or is held.
pub fn translate(data: &[u8]) {
    let (mut nat, mut now, mut rest) = (nat(), Instant::from_nanos(1 << 40), data);
    with_pool(|pool| {
        while let [road, length, behind @ ..] = rest {
            let (bytes, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            rest = behind;
            now = now + Duration::from_secs(u64::from(*road >> 1));
            let mut verdicts = Verdicts::default();
            nat.poll(now, pool, &mut verdicts);
            let mut frame = pool.take().expect("a slot");
            frame.receive_room()[..bytes.len()].copy_from_slice(bytes);
            frame.received(bytes.len());
            let leaving = Leaving::Masqueraded;
            let from = Inside { port: PortId(1), network: LAN, sandbox: 1, leaving, address: None };
            match (bytes.len() >= VNET_HEADER_BYTES && frame.parse().is_ok(), road & 1) {
                (false, _) => pool.free(frame),
                (true, 0) => nat.outbound(frame, from, now, &mut verdicts),
                (true, _) => nat.inbound(frame, PortId(9), now, &mut verdicts),
            }
            frames(verdicts).into_iter().for_each(|frame| pool.free(frame));
        }
        let mut verdicts = Verdicts::default();
        nat.poll(now + Duration::from_secs(10_000), pool, &mut verdicts);
        frames(verdicts).into_iter().for_each(|frame| pool.free(frame));
    });
    let stats = nat.stats();
    assert_eq!((stats.flows, stats.mappings, stats.permits, stats.fragments_waiting), (0, 0, 0, 0));
    assert_eq!(stats.ports_free, stats.ports_claimed);
}

/// All frames there are, of which those for outside must come from the host.
fn frames(verdicts: Verdicts) -> Vec<Frame> {
    let Verdicts { outside, inside, host, plain, answered, dropped, made } = verdicts;
    for (_, frame) in &outside {
        let (bytes, network) = (frame.bytes(), frame.headers.network_offset());
        let is_ours = if frame.headers.is_ipv4() {
            bytes[network + 12..network + 16] == [192, 0, 2, 1]
        } else {
            bytes[network + 8..network + 12] == [0x20, 1, 0xd, 0xb8] && bytes[network + 23] == 1
        };
        assert!(is_ours, "{bytes:02x?}");
    }
    let outside = outside.into_iter().chain(host).chain(plain).map(|(_, frame)| frame);
    let inside = inside.into_iter().map(|(.., frame)| frame);
    let dropped = answered.into_iter().chain(dropped).map(|(.., frame)| frame);
    outside.chain(inside).chain(dropped).chain(made.into_iter().map(|(_, frame)| frame)).collect()
}
