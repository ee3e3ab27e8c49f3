//! The end of the source, as the target's worker learns of it: by the end of its standard input.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says from now on whether the source has ended, when standard input does.
pub(crate) fn source_end() -> impl Fn() -> bool {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    std::thread::spawn(move || {
        // However the read ends, nobody is there any more who could send.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    move || ended.load(Ordering::Relaxed)
}
