//! Identities of network namespaces, which outlive the namespaces: they are in the journal.
//!
//! A namespace has the device and inode of its file for as long as it lives, and the next one may have them
//! a moment later; so may any after the host has started anew. The cookie belongs to one namespace from one
//! start of the host to the next. Identities that were written down before there were cookies have none,
//! and are compared by what they have.

use std::io;

use serde::{Deserialize, Serialize};
use vswitch_sys::netns::{self, NetNs};

/// The device and inode of a namespace's file.
pub type Numbers = (u64, u64);

/// The identity of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Identity {
    /// The device and inode of its file.
    pub numbers: Numbers,
    /// The start of the host that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The kernel's own identifier, which no other namespace gets before the host starts anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<u64>,
}

/// An identity as journals have it: numbers alone in those of old.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Numbers(Numbers),
    Whole { numbers: Numbers, boot: Option<String>, cookie: Option<u64> },
}

impl From<Numbers> for Identity {
    fn from(numbers: Numbers) -> Self {
        Self { numbers, boot: None, cookie: None }
    }
}

impl From<Written> for Identity {
    fn from(written: Written) -> Self {
        match written {
            Written::Numbers(numbers) => numbers.into(),
            Written::Whole { numbers, boot, cookie } => Self { numbers, boot, cookie },
        }
    }
}

impl Identity {
    /// The identity of a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be looked at or entered.
    pub fn of(netns: &NetNs) -> io::Result<Self> {
        Ok(Self { numbers: netns.id()?, boot: netns::boot_id(), cookie: netns.cookie()? })
    }

    /// Whether it is that of the same namespace as another one, by all that is known of both.
    pub fn is(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        self.numbers == other.numbers
            && agree(self.boot.as_ref(), other.boot.as_ref())
            && agree(self.cookie.as_ref(), other.cookie.as_ref())
    }

    /// Whether it is that of a namespace that is open.
    pub fn is_of(&self, netns: &NetNs) -> bool {
        Self::of(netns).is_ok_and(|found| self.is(&found))
    }

    /// Whether a namespace with these numbers may be it, as far as they and the start of the host tell:
    /// what a look costs that is had very often.
    pub fn may_be(&self, numbers: Numbers) -> bool {
        self.numbers == numbers
            && self.boot.as_ref().is_none_or(|boot| Some(boot) == netns::boot_id().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_got_the_numbers_of_another_is_not_taken_for_it() {
        let first = NetNs::anonymous().expect("a namespace");
        let before = Identity::of(&first).expect("an identity");
        assert!(before.is_of(&first));
        drop(first);
        // The kernel gives the lowest numbers there are; others make namespaces, too.
        let mut others = Vec::new();
        let next = loop {
            let next = NetNs::anonymous().expect("a namespace");
            if next.id().expect("numbers") == before.numbers {
                break next;
            }
            others.push(next);
            if others.len() > 100 {
                others.clear();
            }
        };
        assert!(before.may_be(next.id().expect("numbers")), "they are taken for each other by these alone");
        assert!(!before.is_of(&next));
    }

    #[test]
    fn an_identity_of_an_earlier_start_of_the_host_is_no_longer_anybodys() {
        let netns = NetNs::anonymous().expect("a namespace");
        let now = Identity::of(&netns).expect("an identity");
        let earlier = Identity { boot: Some("another".to_owned()), ..now.clone() };
        assert!(now.may_be(now.numbers) && !earlier.may_be(now.numbers) && !earlier.is_of(&netns));
    }

    #[test]
    fn journals_of_old_are_read_and_what_is_written_is_read_again() {
        let netns = NetNs::anonymous().expect("a namespace");
        let now = Identity::of(&netns).expect("an identity");
        let read = |text: &str| serde_json::from_str::<Identity>(text).expect("an identity");
        let old = read(&serde_json::to_string(&now.numbers).expect("text"));
        assert!(old.is_of(&netns) && old.may_be(now.numbers) && old.cookie.is_none());
        assert_eq!(read(&serde_json::to_string(&now).expect("text")), now);
    }
}
