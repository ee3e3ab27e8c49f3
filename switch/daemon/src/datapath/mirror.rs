//! The mirror: flows, written down where they outlive this process.
//!
//! # Theory of operation
//! Control makes the memory and hands it to one datapath after another. Each flow has a place by the number of its record.
//! What has changed is written before the frames leave that changed it, so nobody hears of a flow that is not written down;
//! a burst that changes none costs one look. The process may be killed at any instruction, so the order of writes is that
//! of [`Record`]: a flow is there whole or not at all.
//!
//! ```text
//!  layout · records ever used · taking up │ 8 words a flow … │ 8 words more a flow, of IPv6 only …
//! ```
//!
//! Pages take memory once written: 64 bytes a flow of IPv4, 128 of IPv6.
//!
//! A datapath that dies over taking up what it finds would die again and again: who finds that it was tried before takes up
//! nothing.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use vswitch_frame::{Instant, NetworkId};
use vswitch_nat::{Nat, Record};
use vswitch_sys::shared::SharedCells;

use super::wiring::FLOWS;

const LAYOUT: usize = 0;
const USED: usize = 1;
const TAKING_UP: usize = 2;
const HEADER: usize = 8;
const STRIDE: usize = 8;
const CELLS: usize = HEADER + 2 * STRIDE * FLOWS;
const _: () = assert!(Record::WORDS_V4 == STRIDE && Record::WORDS <= 2 * STRIDE);

/// The memory in which flows are written down.
#[derive(Debug)]
pub struct Mirror {
    cells: SharedCells,
}

impl Mirror {
    /// Makes it, without a flow.
    ///
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { cells: SharedCells::new(c"vswitch-flows", CELLS)? })
    }

    /// Maps that which control made.
    ///
    /// # Errors
    /// When the descriptor is not it.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { cells: SharedCells::map(fd, CELLS)? })
    }

    /// Writes down what has changed since the last time.
    #[inline]
    pub(super) fn follow(&self, nat: &mut Nat) {
        if nat.has_changes() {
            nat.take_changes(|number, record| self.write(number, record));
        }
    }

    /// Has a translator without flows go on with those that are written down. `owner` says who has an address.
    pub(super) fn restore(
        &self,
        nat: &mut Nat,
        now: Instant,
        owner: &dyn Fn(NetworkId, IpAddr) -> Option<u32>,
    ) {
        let was_tried = self.cells[TAKING_UP].swap(1, Relaxed) != 0;
        let is_known = self.cells[LAYOUT].swap(Record::LAYOUT, Relaxed) == Record::LAYOUT;
        let used = u32::try_from(self.cells[USED].load(Relaxed)).unwrap_or(0);
        if is_known && !was_tried {
            nat.restore((0..used).map(|number| (number, self.read(number))), now, owner);
            self.follow(nat);
        } else {
            (0..used).for_each(|number| self.write(number, None));
        }
        self.cells[TAKING_UP].store(0, Release);
    }

    fn write(&self, number: u32, record: Option<Record>) {
        let (first, more) = self.places(number);
        let Some(record) = record else { return first[Record::LIFE].store(0, Release) };
        let (words, words_v6) = record.words().split_at(Record::WORDS_V4);
        let is_same =
            has(&first[..Record::LIFE], &words[..Record::LIFE]) && (!record.is_v6() || has(more, words_v6));
        if !is_same {
            first[Record::LIFE].store(0, Relaxed);
            fence(Release);
            put(&first[..Record::LIFE], &words[..Record::LIFE]);
            if record.is_v6() {
                put(more, words_v6);
            }
        }
        put(&first[Record::LIFE + 1..], &words[Record::LIFE + 1..]);
        let used = &self.cells[USED];
        used.store(used.load(Relaxed).max(u64::from(number) + 1), Relaxed);
        first[Record::LIFE].store(words[Record::LIFE], Release);
    }

    fn read(&self, number: u32) -> Record {
        let (first, more) = self.places(number);
        let mut words = [0; Record::WORDS];
        let cells = first.iter().chain(more);
        words.iter_mut().zip(cells).take(Record::WORDS_V4).for_each(load);
        if Record::from_words(words).is_v6() {
            words.iter_mut().zip(first.iter().chain(more)).for_each(load);
        }
        Record::from_words(words)
    }

    /// Where the words of a record are.
    fn places(&self, number: u32) -> (&[AtomicU64], &[AtomicU64]) {
        let at = HEADER + STRIDE * (number as usize).min(FLOWS - 1);
        let more = at + STRIDE * FLOWS;
        (&self.cells[at..at + STRIDE], &self.cells[more..more + STRIDE])
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cells.as_fd()
    }
}

fn has(cells: &[AtomicU64], words: &[u64]) -> bool {
    cells.iter().zip(words).all(|(cell, word)| cell.load(Relaxed) == *word)
}

fn put(cells: &[AtomicU64], words: &[u64]) {
    cells.iter().zip(words).for_each(|(cell, word)| cell.store(*word, Relaxed));
}

fn load((word, cell): (&mut u64, &AtomicU64)) {
    *word = cell.load(Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vswitch_frame::{Pool, PortId};
    use vswitch_nat::{Inside, Leaving, Listed, Protocol, Uplink, Verdicts};

    use super::*;
    use crate::datapath::flows::tests::{HOST, NETWORK, datagram};
    use crate::datapath::wiring::translator;

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

    /// What the next datapath has.
    fn next(mirror: &Mirror) -> Nat {
        let mut nat = told();
        mirror.restore(&mut nat, NOW + Duration::from_secs(1), &|network, _| {
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
        mirror.follow(&mut nat);
        (mirror, nat)
    }

    #[test]
    fn the_next_datapath_goes_on_with_what_is_written_down() {
        let (mirror, mut nat) = written(20);
        for number in 0..5 {
            nat.end_flow(number);
        }
        mirror.follow(&mut nat);
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
        let (cells, _) = mirror.places(0);
        let writes: Vec<(usize, u64)> = std::iter::once((Record::LIFE, 0))
            .chain((0..Record::WORDS_V4).filter(|at| *at != Record::LIFE).map(|at| (at, other.words()[at])))
            .collect();
        for cut in 0..=writes.len() {
            put(cells, &whole.words()[..Record::WORDS_V4]);
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
        mirror.cells[TAKING_UP].store(1, Relaxed);
        assert_eq!(ends(&next(&mirror)), []);
        assert_eq!(ends(&next(&mirror)), []);
    }
}
