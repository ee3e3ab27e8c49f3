//! Writing flows down in the [mirror](vswitch_contract::mirror), and going on with those that are there.

use std::net::IpAddr;

use vswitch_contract::mirror::Mirror;
use vswitch_frame::{Instant, NetworkId};
use vswitch_nat::Nat;

/// Writes down what has changed since the last time.
#[inline]
pub(crate) fn follow(mirror: &Mirror, nat: &mut Nat) {
    if nat.has_changes() {
        nat.take_changes(|number, record| mirror.write(number, record));
    }
}

/// Has a translator without flows go on with those that are written down. `owner` says who has an address.
pub(crate) fn restore(
    mirror: &Mirror,
    nat: &mut Nat,
    now: Instant,
    owner: &dyn Fn(NetworkId, IpAddr) -> Option<u32>,
) {
    let found = mirror.begin_taking_up();
    if found.is_usable {
        nat.restore((0..found.used).map(|number| (number, mirror.read(number))), now, owner);
        follow(mirror, nat);
    } else {
        (0..found.used).for_each(|number| mirror.write(number, None));
    }
    mirror.settle();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use vswitch_contract::mirror::{HEADER, STRIDE, TAKING_UP};
    use vswitch_frame::{Pool, PortId};
    use vswitch_nat::{Inside, Leaving, Listed, Protocol, Record, Uplink, Verdicts};

    use super::*;
    use crate::flows::tests::{HOST, NETWORK, datagram};
    use crate::uplink::translator;

    const SANDBOX: u32 = 3;
    const NOW: Instant = Instant::from_nanos(1 << 40);

    fn told() -> Nat {
        let mut nat = translator(7);
        nat.set_uplink(Uplink { v4: Some(HOST.into()), mtu: 1500, ..Uplink::default() });
        nat.grant(Protocol::Udp, HOST.into(), 40_000..40_100);
        nat
    }

    fn begin(nat: &mut Nat, ports: std::ops::Range<u16>) {
        let (mut pool, mut verdicts) = (Pool::new(2), Verdicts::default());
        for port in ports {
            let leaving = Leaving::Masqueraded;
            let from = Inside { port: PortId(1), network: NETWORK, sandbox: SANDBOX, leaving, address: None };
            let frame = datagram(&mut pool, [10, 0, 0, 2], port, [198, 51, 100, 1]);
            nat.outbound(frame, from, NOW, &mut verdicts);
            verdicts.outside.drain(..).for_each(|(_, frame)| pool.free(frame));
        }
    }

    /// The translator of the next datapath.
    fn next(mirror: &Mirror) -> Nat {
        let mut nat = told();
        restore(mirror, &mut nat, NOW + Duration::from_secs(1), &|network, _| {
            (network == NETWORK).then_some(SANDBOX)
        });
        nat
    }

    fn ends(nat: &Nat) -> Vec<(vswitch_nat::Tuple, vswitch_nat::Tuple)> {
        let mut flows: Vec<Listed> = nat.flows(NOW).collect();
        flows.sort_unstable_by_key(|flow| flow.initiator.source_port);
        flows.into_iter().map(|flow| (flow.initiator, flow.target)).collect()
    }

    /// A mirror with so many flows, and the translator that has them.
    fn written(flows: u16) -> (Mirror, Nat) {
        let mirror = Mirror::new().expect("memory");
        let mut nat = next(&mirror);
        begin(&mut nat, 1000..1000 + flows);
        follow(&mirror, &mut nat);
        (mirror, nat)
    }

    #[test]
    fn the_next_datapath_goes_on_with_what_is_written_down() {
        let (mirror, mut nat) = written(20);
        for number in 0..5 {
            nat.end_flow(number);
        }
        follow(&mirror, &mut nat);
        let second = next(&mirror);
        assert_eq!(ends(&second), ends(&nat));
        assert_eq!(ends(&next(&mirror)), ends(&nat), "again");
        assert_eq!(second.records(), 20);
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_a_flow_whole_or_none() {
        let (mirror, nat) = written(2);
        let [whole, other] = [0, 1].map(|number| mirror.read(number));
        let first = ends(&nat)[0];
        // The second flow's record takes the place of the first one's, and is cut off after each write.
        let cells = &mirror[HEADER..HEADER + STRIDE];
        let writes: Vec<(usize, u64)> = std::iter::once((Record::LIFE, 0))
            .chain((0..Record::WORDS_V4).filter(|at| *at != Record::LIFE).map(|at| (at, other.words()[at])))
            .collect();
        for cut in 0..=writes.len() {
            let words = &whole.words()[..Record::WORDS_V4];
            cells.iter().zip(words).for_each(|(cell, word)| cell.store(*word, Relaxed));
            writes[..cut].iter().for_each(|(at, word)| cells[*at].store(*word, Relaxed));
            let expected = usize::from(cut == 0);
            mirror.write(1, None);
            let found = ends(&next(&mirror));
            assert_eq!(found.iter().filter(|found| **found == first).count(), expected, "{cut}");
            assert_eq!(found.len(), expected, "{cut}");
        }
    }

    #[test]
    fn who_dies_over_taking_up_is_not_followed() {
        let (mirror, _) = written(20);
        mirror[TAKING_UP].store(1, Relaxed);
        assert_eq!(ends(&next(&mirror)), []);
        assert_eq!(ends(&next(&mirror)), []);
    }
}
