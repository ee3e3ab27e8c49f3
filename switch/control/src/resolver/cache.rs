//! Answers that still hold.
//!
//! An answer is found again for a question that is the same but for its identifier and the case of its
//! name, so that whatever else a client may ask for (recursion, DNSSEC, a size) keeps answers apart. It goes
//! out with what is left of its lifetime.

use std::collections::BTreeMap;
use std::time::Duration;

use vswitch_contract::names::message::{self, HEADER_BYTES, Query, Rcode};
use vswitch_frame::Instant;

/// Answers kept; at the limit the one that ends first goes.
const ANSWERS_MAX: usize = 1024;
/// Longest answer that is kept, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// Longest time that an answer with records is kept.
const POSITIVE_MAX: Duration = Duration::from_secs(300);
/// Longest time that an answer without records is kept.
const NEGATIVE_MAX: Duration = Duration::from_secs(30);

/// Answers that still hold; see the [module](self).
#[derive(Debug, Default)]
pub struct Cache {
    answers: BTreeMap<Vec<u8>, Kept>,
}

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    from: Instant,
    until: Instant,
}

impl Cache {
    /// The answer to a question, if there is one that holds.
    pub fn look_up(&self, question: &[u8], query: &Query<'_>, now: Instant) -> Option<Vec<u8>> {
        let kept = self.answers.get(&key(question, query)).filter(|kept| now < kept.until)?;
        let mut answer = kept.answer.clone();
        message::set_id(&mut answer, query.id);
        let end = HEADER_BYTES + query.question.len();
        answer.get_mut(HEADER_BYTES..end)?.copy_from_slice(query.question);
        message::age(&mut answer, u32::try_from(now.since(kept.from).as_secs()).unwrap_or(u32::MAX));
        Some(answer)
    }

    /// Keeps an answer, if it may be kept.
    pub fn keep(&mut self, question: &[u8], query: &Query<'_>, answer: &[u8], now: Instant) {
        let longest = match Rcode::of(answer) {
            Some(Rcode::NoError) if message::has_answers(answer) => POSITIVE_MAX,
            Some(Rcode::NoError | Rcode::NameError) => NEGATIVE_MAX,
            _ => return,
        };
        let Some(seconds) = message::lifetime_seconds(answer).filter(|seconds| *seconds > 0) else { return };
        if answer.len() > ANSWER_BYTES_MAX || message::is_truncated(answer) {
            return;
        }
        self.make_room(now);
        let until = now + Duration::from_secs(seconds.into()).min(longest);
        self.answers.insert(key(question, query), Kept { answer: answer.to_vec(), from: now, until });
    }

    fn make_room(&mut self, now: Instant) {
        if self.answers.len() < ANSWERS_MAX {
            return;
        }
        self.answers.retain(|_, kept| now < kept.until);
        if self.answers.len() >= ANSWERS_MAX
            && let Some(first) = self.answers.iter().min_by_key(|(_, kept)| kept.until)
        {
            let key = first.0.clone();
            self.answers.remove(&key);
        }
    }
}

/// A question without its identifier, its name in lower case.
fn key(question: &[u8], query: &Query<'_>) -> Vec<u8> {
    const ID_BYTES: usize = 2;
    let mut key = question.get(ID_BYTES..).unwrap_or_default().to_vec();
    let (from, end) = (HEADER_BYTES - ID_BYTES, HEADER_BYTES - ID_BYTES + query.question.len());
    if let Some(name) = key.get_mut(from..end) {
        name.make_ascii_lowercase();
    }
    key
}
