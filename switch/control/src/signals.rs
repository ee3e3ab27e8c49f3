//! Signals: which stop the daemon, and that no other ends it in silence.
//!
//! The usual end of a process by a signal that it does not expect would leave the switch without control. So
//! each signal that can be caught is: those that ask for an end stop the daemon, the others are said in the
//! log and change nothing. There is no configuration to read again: what was asked for over the API is in the
//! journal, the rest are arguments.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that stop the daemon: those of service managers and of terminals.
const STOP: [i32; 3] = [nix::libc::SIGTERM, nix::libc::SIGINT, nix::libc::SIGQUIT];
/// Signals whose usual end is that of the process, and that somebody may send without meaning it.
const NAMED: [(i32, &str); 11] = [
    (nix::libc::SIGHUP, "SIGHUP"),
    (nix::libc::SIGUSR1, "SIGUSR1"),
    (nix::libc::SIGUSR2, "SIGUSR2"),
    (nix::libc::SIGALRM, "SIGALRM"),
    (nix::libc::SIGVTALRM, "SIGVTALRM"),
    (nix::libc::SIGPROF, "SIGPROF"),
    (nix::libc::SIGIO, "SIGIO"),
    (nix::libc::SIGPWR, "SIGPWR"),
    (nix::libc::SIGSTKFLT, "SIGSTKFLT"),
    (nix::libc::SIGXCPU, "SIGXCPU"),
    (nix::libc::SIGXFSZ, "SIGXFSZ"),
];

/// Takes every signal from now on; the future ends when the daemon is to stop.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    let (stop, mut stopped) = mpsc::channel(1);
    for number in STOP {
        let (mut signal, stop) = (catch(number)?, stop.clone());
        tokio::spawn(async move {
            signal.recv().await;
            let _ = stop.send(()).await;
        });
    }
    let realtime =
        (nix::libc::SIGRTMIN()..=nix::libc::SIGRTMAX()).map(|number| (number, "a realtime signal"));
    for (number, name) in NAMED.into_iter().chain(realtime) {
        tokio::spawn(ignore(catch(number)?, name));
    }
    Ok(async move {
        // The daemon itself keeps a sender, so this ends with a signal only.
        let _stop = stop;
        stopped.recv().await;
    })
}

fn catch(number: i32) -> io::Result<Signal> {
    signal(SignalKind::from_raw(number))
}

/// Says each time that a signal changes nothing.
async fn ignore(mut signal: Signal, name: &'static str) {
    while signal.recv().await.is_some() {
        tracing::warn!(
            "{name} changes nothing: networks and sandboxes are changed over the control socket, and SIGTERM stops \
             the daemon"
        );
    }
}
