//! Questions for addresses that another host has, and its answers, as keys of etcd. Pure.
//!
//! Only the owner of addresses knows which it uses, so only it gives them away. A question is written under
//! its name, the answer under the name of who asked, who then removes both. They go with the lease of who
//! wrote them, so nothing stays of a host that died.

use super::super::record::HostId;
use super::super::view::{Answer, Ask};
use super::wire::{Change, LeaseId};

/// A key of the cluster that is a letter to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// A question, and the host that asks.
    Question { from: HostId, number: String },
    /// The answer to one of ours.
    Answer { number: String },
}

impl Letter {
    /// Reads a key.
    pub(super) fn read(prefix: &str, me: HostId, key: &str) -> Option<Self> {
        let me = me.to_string();
        let words: Vec<&str> = key.strip_prefix(prefix)?.split('/').collect();
        match *words.as_slice() {
            ["asks", to, from, number] if to == me => {
                Some(Self::Question { from: from.parse().ok()?, number: number.to_owned() })
            }
            ["answers", to, number] if to == me => Some(Self::Answer { number: number.to_owned() }),
            _ => None,
        }
    }
}

fn question_key(prefix: &str, owner: HostId, from: HostId, number: &str) -> String {
    format!("{prefix}asks/{owner}/{from}/{number}")
}

fn answer_key(prefix: &str, to: HostId, number: &str) -> String {
    format!("{prefix}answers/{to}/{number}")
}

/// The change that asks.
pub(super) fn question(prefix: &str, owner: HostId, ask: &Ask, number: &str, lease: LeaseId) -> Change {
    Change::Put {
        key: question_key(prefix, owner, ask.host, number),
        value: serde_json::to_vec(ask).unwrap_or_default(),
        lease: Some(lease),
    }
}

/// The change that answers.
pub(super) fn answer(prefix: &str, to: HostId, number: &str, answer: &Answer, lease: LeaseId) -> Change {
    Change::Put {
        key: answer_key(prefix, to, number),
        value: serde_json::to_vec(answer).unwrap_or_default(),
        lease: Some(lease),
    }
}

/// The changes that remove a question and its answer.
pub(super) fn forget(prefix: &str, owner: HostId, me: HostId, number: &str) -> [Change; 2] {
    let keys = [question_key(prefix, owner, me, number), answer_key(prefix, me, number)];
    keys.map(|key| Change::Delete { key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_by_whom_they_are_for() {
        let (a, b) = (HostId::new([1; 16]), HostId::new([2; 16]));
        let question = question_key("/p/", a, b, "7");
        let answer = answer_key("/p/", b, "7");
        assert_eq!(
            Letter::read("/p/", a, &question),
            Some(Letter::Question { from: b, number: "7".to_owned() })
        );
        assert_eq!(Letter::read("/p/", b, &answer), Some(Letter::Answer { number: "7".to_owned() }));
        assert_eq!(Letter::read("/p/", b, &question), None);
        assert_eq!(Letter::read("/p/", a, &answer), None);
        assert_eq!(Letter::read("/p/", a, "/p/records/vni/4096"), None);
    }
}
