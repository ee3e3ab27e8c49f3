//! Cables that lose, double, reorder and corrupt frames, by a seeded random source.

use vswitch_tests::talk::Stream;

/// How many of a thousand frames suffer which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) swapped: u64,
    pub(crate) corrupted: u64,
}

/// One direction of a cable.
#[derive(Debug)]
pub(crate) struct Cable {
    faults: Faults,
    random: Stream,
}

impl Cable {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, random: Stream::new(seed) }
    }

    fn random(&mut self) -> u64 {
        let mut word = [0; 8];
        self.random.fill(&mut word);
        u64::from_le_bytes(word) >> 8
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.random() % 1000 < per_mille
    }

    /// The frames that come out at the other end.
    pub(crate) fn carry(&mut self, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut carried: Vec<Vec<u8>> = Vec::new();
        for mut frame in frames {
            if self.happens(self.faults.lost) {
                continue;
            }
            if self.happens(self.faults.corrupted) {
                let bit = usize::try_from(self.random()).expect("64 bits") % (frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            if self.happens(self.faults.doubled) {
                carried.push(frame.clone());
            }
            carried.push(frame);
            let last = carried.len() - 1;
            if last > 0 && self.happens(self.faults.swapped) {
                carried.swap(last - 1, last);
            }
        }
        carried
    }
}
