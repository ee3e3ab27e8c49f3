//! Questions of one member to another over TCP, and the answers.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::record::{HostId, Key, Record, Scope, Version};
use super::super::view::{Answer, Ask};
use super::member::Member;

/// A conversation to be held with another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Hear who is there, and then compare what all hosts know.
    Join,
    /// Compare what is known of these scopes.
    Compare(Vec<Scope>),
    /// Get the records of these keys.
    Fetch(Vec<Key>),
}

/// A conversation, and where to hold it.
pub type Appointment = (SocketAddr, Talk);

/// A key by its position, and the rank of its record.
pub type Digest = (u64, Version, HostId);

/// A question of a member.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// The first question of each conversation: which member is there.
    Hello,
    /// Which members are up.
    Members,
    /// Which parts of a scope differ.
    Compare {
        /// The scope.
        scope: Scope,
        /// Tombstones that are older do not count.
        oldest: Version,
        /// The bits that the positions of a part have in common.
        bits: u8,
        /// The first position of each part, and the sum of its records' marks.
        sums: Vec<(u64, u64)>,
    },
    /// The differences between some parts of a scope and a digest of them.
    Exchange {
        /// The scope.
        scope: Scope,
        /// Tombstones that are older do not count.
        oldest: Version,
        /// The bits that the positions of a part have in common.
        bits: u8,
        /// The first position of each part.
        firsts: Vec<u64>,
        /// The position to begin at.
        from: u64,
        /// All that is known of them from there on, in the order of positions.
        digest: Vec<Digest>,
    },
    /// Records to take in.
    Take(Records),
    /// The records of these keys.
    Fetch(Vec<Key>),
    /// A question for addresses.
    Addresses(Ask),
}

/// The answer to a question.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The member that is there.
    Welcome(Welcome),
    /// Members that are up.
    Members(Vec<foca::Member<Member>>),
    /// The first positions of the parts that differ.
    Differ(Vec<u64>),
    /// The differences.
    Difference(Difference),
    /// The word that the records were taken in.
    Taken,
    /// Records.
    Records(Records),
    /// Addresses, or why there are none.
    Addresses(Answer),
}

/// The answer to the first question.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The member that is there.
    pub member: Member,
    /// The oldest tombstone that it would keep.
    pub oldest: Version,
}

/// The differences between what the asked one knows and a digest.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Difference {
    /// Records that are not in the digest.
    pub newer: Records,
    /// Positions of records that are in the digest only.
    pub wanted: Vec<u64>,
    /// The position to ask from next, if that was not all.
    pub next: Option<u64>,
}

/// Records that are shared here, and written out between hosts.
#[derive(Clone, Debug, Default)]
pub struct Records(pub Vec<Arc<Record>>);

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|record| &**record))
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let records = Vec::<Record>::deserialize(deserializer)?;
        Ok(Self(records.into_iter().map(|record| Arc::new(record.fit())).collect()))
    }
}
