//! Waiting for a condition, with a deadline. No test waits for time itself.

use std::fmt::Debug;
use std::time::Duration;

use vswitch_sys::clock;

/// The time a condition may take on a machine that is busy with everything else.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is `Some`.
///
/// # Panics
/// When the deadline passes; `what` says what was waited for.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = clock::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(clock::now().since(start) < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        pause();
    }
}

/// Asks again and again until the answer equals `expected`.
///
/// # Panics
/// When the deadline passes; shows the last answer.
pub fn until_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut ask: impl FnMut() -> T) {
    let start = clock::now();
    loop {
        let answer = ask();
        if answer == *expected {
            return;
        }
        let waited = clock::now().since(start);
        assert!(waited < DEADLINE, "{what}: still {answer:?}, not {expected:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition that nothing announces")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
