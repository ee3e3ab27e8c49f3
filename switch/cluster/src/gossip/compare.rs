//! Comparing what two members know, so that each gets what it lacks.
//!
//! # Theory of operation
//! Who asks tells the sum of a scope, then of [`FAN`] parts of it where that differs, then of parts of those:
//! as long as few differ. Then it tells the ranks of all its records of the parts that are left, and is
//! answered with records that are newer and positions of those that are older, which it then brings. Answers
//! are bounded, and the rest is asked for again. So it costs what differs; who has nothing asks for all.
//!
//! Both leave out tombstones that either of them would forget, so that clocks that differ cost nothing.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::ledger::{EVERYWHERE, Ledger, oldest_tombstone};
use super::super::record::{Key, Record, Scope, Version};
use super::machine::{Machine, Now};
use super::talk::{Difference, Digest, Question, Records, Reply, Talk, Welcome};

/// The parts that a part is cut into, as bits.
const FAN_BITS: u8 = 6;
/// The parts that a part is cut into.
const FAN: u64 = 1 << FAN_BITS;
/// The most bits that positions of a part have in common.
const BITS_MAX: u8 = 24;
/// The most parts that one question is about.
const PARTS_MAX: usize = 4_096;
/// Records of a part that are not worth cutting it up.
const FEW: usize = 16;
/// The ranks that one question tells, but for those of its last part.
const RANKS_USUAL: usize = 2_000;
/// The most bytes of records that one question or answer carries, but for the last record.
pub const RECORDS_BYTES_MAX: usize = 256 << 10;
/// The most records that one conversation has its writer tell everybody.
const TOLD_MAX: usize = 32;

/// One side of a conversation: the one that asks.
#[derive(Debug)]
pub struct Asker {
    stage: Stage,
    scopes: Vec<Scope>,
    oldest: Version,
    /// Records that the other side lacks.
    gifts: Vec<Arc<Record>>,
    told: usize,
}

/// The point that a conversation has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Members,
    Scope,
    Compare { scope: Scope, bits: u8, firsts: Vec<u64> },
    Exchange { scope: Scope, bits: u8, firsts: Vec<u64>, asked: usize, from: u64 },
    Fetch(Vec<Key>),
    End,
}

impl Asker {
    /// A conversation with who says welcome.
    pub fn new(talk: &Talk, welcome: Welcome, now: Now) -> Self {
        let (stage, scopes) = match talk {
            Talk::Join => (Stage::Members, vec![Scope::Global]),
            Talk::Compare(scopes) => (Stage::Scope, scopes.clone()),
            Talk::Fetch(keys) => (Stage::Fetch(keys.clone()), Vec::new()),
        };
        let oldest = welcome.oldest.max(oldest_tombstone(now.since_epoch));
        Self { stage, scopes, oldest, gifts: Vec::new(), told: 0 }
    }

    /// Takes the answer to the last question in, if there was one; the next question, if there is one.
    ///
    /// # Errors
    /// When the answer is none to the question.
    pub fn next(
        &mut self,
        machine: &mut Machine,
        reply: Option<Reply>,
        now: Now,
    ) -> Result<Option<Question>, io::Error> {
        if let Some(reply) = reply {
            self.hear(machine, reply, now)?;
        }
        if !self.gifts.is_empty() {
            let gifts = first_of(&mut self.gifts);
            return Ok(Some(Question::Take(Records(gifts))));
        }
        while self.stage == Stage::Scope {
            self.stage = self.scopes.pop().map_or(Stage::End, |scope| begin(machine, scope));
        }
        Ok(self.question(machine.ledger()))
    }

    fn question(&mut self, ledger: &Ledger) -> Option<Question> {
        let oldest = self.oldest;
        match &mut self.stage {
            Stage::Members => Some(Question::Members),
            Stage::Compare { scope, bits, firsts } => {
                let sum = |first: &u64| (*first, sum(ledger, *scope, range(*first, *bits), oldest));
                let sums = firsts.iter().map(sum).collect();
                Some(Question::Compare { scope: *scope, oldest, bits: *bits, sums })
            }
            Stage::Exchange { scope, bits, firsts, asked, from } => {
                let mut digest = Vec::new();
                *asked = 0;
                for first in firsts.iter().take(PARTS_MAX) {
                    let (first, last) = range(*first, *bits).into_inner();
                    let records = counted(ledger, *scope, first.max(*from)..=last, oldest);
                    digest.extend(records.map(|(position, record)| rank(position, record)));
                    *asked += 1;
                    if digest.len() >= RANKS_USUAL {
                        break;
                    }
                }
                let firsts = firsts[..*asked].to_vec();
                let (scope, bits, from) = (*scope, *bits, *from);
                Some(Question::Exchange { scope, oldest, bits, firsts, from, digest })
            }
            Stage::Fetch(keys) => Some(Question::Fetch(keys.clone())),
            Stage::Scope | Stage::End => None,
        }
    }

    fn hear(&mut self, machine: &mut Machine, reply: Reply, now: Now) -> Result<(), io::Error> {
        match (&mut self.stage, reply) {
            (_, Reply::Taken) => {}
            (Stage::Members, Reply::Members(roll)) => {
                machine.meet(roll, now);
                self.stage = Stage::Scope;
            }
            (Stage::Compare { scope, bits, firsts }, Reply::Differ(mut differ)) => {
                differ.retain(|first| firsts.binary_search(first).is_ok());
                self.stage = narrow(machine.ledger(), *scope, *bits, firsts.len(), differ);
            }
            (Stage::Exchange { scope, firsts, asked, from, .. }, Reply::Difference(difference)) => {
                let scope = *scope;
                match difference.next {
                    Some(next) if next > *from => *from = next,
                    Some(_) => return Err(nonsense()),
                    None => {
                        firsts.drain(..*asked);
                        *from = 0;
                    }
                }
                if firsts.is_empty() {
                    self.stage = Stage::Scope;
                }
                self.give(machine, scope, &difference.wanted, now);
                machine.merge(difference.newer.0, now);
            }
            (Stage::Fetch(_), Reply::Records(records)) => {
                machine.merge(records.0, now);
                self.stage = Stage::End;
            }
            _ => return Err(nonsense()),
        }
        Ok(())
    }

    /// Prepares what the other side lacks. What it lacks of our own, others may lack, too.
    fn give(&mut self, machine: &mut Machine, scope: Scope, wanted: &[u64], now: Now) {
        let ledger = machine.ledger();
        let one = |position: &u64| counted(ledger, scope, *position..=*position, self.oldest).next();
        let gifts: Vec<Arc<Record>> =
            wanted.iter().filter_map(one).map(|(_, record)| Arc::clone(record)).collect();
        let me = machine.members().me();
        let own = gifts.iter().filter(|record| record.host == me).take(TOLD_MAX - self.told);
        let own: Vec<Arc<Record>> = own.cloned().collect();
        self.told += own.len();
        self.gifts.extend(gifts);
        machine.spread(&own, now);
    }
}

/// The first thing to ask about a scope.
fn begin(machine: &Machine, scope: Scope) -> Stage {
    if !machine.has(scope) {
        return Stage::Scope;
    }
    match machine.ledger().within(scope, EVERYWHERE).next() {
        Some(_) => Stage::Compare { scope, bits: 0, firsts: vec![0] },
        None => Stage::Exchange { scope, bits: 0, firsts: vec![0], asked: 0, from: 0 },
    }
}

/// The next thing to ask when some parts differ.
fn narrow(ledger: &Ledger, scope: Scope, bits: u8, asked: usize, differ: Vec<u64>) -> Stage {
    if differ.is_empty() {
        return Stage::Scope;
    }
    let records = ledger.within(scope, range(differ[0], bits)).take(FEW + 1).count();
    let is_rare = bits == 0 || differ.len() * 8 <= asked;
    let parts = differ.len() * usize::try_from(FAN).unwrap_or(usize::MAX);
    if is_rare && records > FEW && parts <= PARTS_MAX && bits + FAN_BITS <= BITS_MAX {
        let bits = bits + FAN_BITS;
        let parts = |first: u64| (0..FAN).map(move |part| first | part << (64 - bits));
        Stage::Compare { scope, bits, firsts: differ.into_iter().flat_map(parts).collect() }
    } else {
        Stage::Exchange { scope, bits, firsts: differ, asked: 0, from: 0 }
    }
}

/// The answer to a question; `None` to one for addresses, which only control can answer.
pub fn answer(machine: &mut Machine, question: Question, now: Now) -> Option<Reply> {
    let oldest_here = oldest_tombstone(now.since_epoch);
    Some(match question {
        Question::Hello => Reply::Welcome(Welcome { member: machine.me(), oldest: oldest_here }),
        Question::Members => Reply::Members(machine.roll()),
        // The asker has not heard yet that we do not follow the network any more.
        Question::Compare { scope, .. } if !machine.has(scope) => Reply::Differ(Vec::new()),
        Question::Exchange { scope, .. } if !machine.has(scope) => Reply::Difference(Difference::default()),
        Question::Compare { scope, oldest, bits, mut sums } => {
            let (bits, oldest) = (bits.min(BITS_MAX), oldest.max(oldest_here));
            sums.truncate(PARTS_MAX);
            let differs = |(first, said): &(u64, u64)| {
                sum(machine.ledger(), scope, range(*first, bits), oldest) != *said
            };
            Reply::Differ(sums.iter().filter(|part| differs(part)).map(|(first, _)| *first).collect())
        }
        Question::Exchange { scope, oldest, bits, mut firsts, from, digest } => {
            firsts.truncate(PARTS_MAX);
            firsts.sort_unstable();
            firsts.dedup();
            let parts = firsts.iter().map(|first| range(*first, bits.min(BITS_MAX)));
            let parts = parts.map(|part| *part.start().max(&from)..=*part.end());
            Reply::Difference(differences(machine.ledger(), scope, oldest.max(oldest_here), parts, &digest))
        }
        Question::Take(records) => {
            machine.merge(records.0, now);
            Reply::Taken
        }
        Question::Fetch(keys) => {
            let mut found: Vec<Arc<Record>> =
                keys.iter().filter_map(|key| machine.ledger().share(key).cloned()).collect();
            Reply::Records(Records(first_of(&mut found)))
        }
        Question::Addresses(_) => return None,
    })
}

/// The differences between what is known of some parts and a digest of them.
fn differences(
    ledger: &Ledger,
    scope: Scope,
    oldest: Version,
    parts: impl Iterator<Item = RangeInclusive<u64>> + Clone,
    digest: &[Digest],
) -> Difference {
    let said: BTreeMap<u64, Digest> = digest.iter().map(|digest| (digest.0, *digest)).collect();
    let mut difference = Difference::default();
    let mut bytes = 0;
    for (position, record) in parts.clone().flat_map(|part| counted(ledger, scope, part, oldest)) {
        let is_newer = said.get(&position).is_none_or(|said| (said.1, said.2) < record.rank());
        if !is_newer {
            continue;
        }
        if bytes >= RECORDS_BYTES_MAX {
            difference.next = Some(position);
            break;
        }
        bytes += length(record);
        difference.newer.0.push(Arc::clone(record));
    }
    let is_wanted = |digest: &&Digest| {
        let known = counted(ledger, scope, digest.0..=digest.0, oldest).next();
        known.is_none_or(|(_, record)| record.rank() < (digest.1, digest.2))
    };
    let is_answered = |digest: &&Digest| difference.next.is_none_or(|next| digest.0 < next);
    let wanted = said.values().filter(is_answered).filter(is_wanted);
    difference.wanted = wanted.map(|digest| digest.0).collect();
    difference
}

/// Records that count, of a range of positions.
fn counted(
    ledger: &Ledger,
    scope: Scope,
    range: RangeInclusive<u64>,
    oldest: Version,
) -> impl Iterator<Item = (u64, &Arc<Record>)> {
    // A range that ends before it begins holds nothing.
    let records = (range.start() <= range.end()).then(|| ledger.within(scope, range));
    records
        .into_iter()
        .flatten()
        .filter(move |(_, record)| record.value.is_some() || record.version >= oldest)
}

/// The sum of the marks of records that count.
fn sum(ledger: &Ledger, scope: Scope, range: RangeInclusive<u64>, oldest: Version) -> u64 {
    counted(ledger, scope, range, oldest).fold(0, |sum, (_, record)| sum.wrapping_add(record.mark()))
}

fn rank(position: u64, record: &Record) -> Digest {
    (position, record.version, record.host)
}

/// The positions that have their first bits in common with one.
fn range(first: u64, bits: u8) -> RangeInclusive<u64> {
    let rest = u64::MAX.checked_shr(bits.into()).unwrap_or(0);
    first & !rest..=first | rest
}

/// Takes as many records as one question or answer carries.
fn first_of(records: &mut Vec<Arc<Record>>) -> Vec<Arc<Record>> {
    let mut bytes = 0;
    let fits = |record: &Arc<Record>| {
        let fits = bytes < RECORDS_BYTES_MAX;
        bytes += length(record);
        fits
    };
    let count = records.iter().map(fits).take_while(|fits| *fits).count();
    let rest = records.split_off(count);
    std::mem::replace(records, rest)
}

/// Bytes of a record as it is written out.
fn length(record: &Record) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Nothing can go wrong in counting.
    let _ = serde_json::to_writer(&mut counter, record);
    counter.0
}

/// The error of an answer to something else.
pub fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it says something else than it was asked")
}
