//! The stage of a run: a mount namespace of this process with a fresh, empty `/run`.
//!
//! Sockets, databases, named namespaces and lock files of everything that runs lie there, unseen by the
//! host, and vanish with the last process, however it ends. There is nothing to clean up.

use std::io;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Moves this process onto its stage. Call it while there is one thread.
///
/// # Errors
/// Without root.
pub fn enter_stage() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| {
        let refused = "may not make namespaces: run this as root";
        if errno == Errno::EPERM {
            io::Error::new(io::ErrorKind::PermissionDenied, refused)
        } else {
            errno.into()
        }
    })?;
    let none = None::<&str>;
    // Mounts that the host makes or undoes meanwhile still reach us; ours do not reach it.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(())
}
