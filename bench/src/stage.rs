//! Where a run takes place: a mount namespace of this process with a fresh, empty `/run`.
//!
//! Sockets, databases, named namespaces and lock files of everything that runs lie there, unseen by the
//! host, and vanish with the last process, however it ends. There is nothing to clean up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::BenchError;

/// Moves this process onto its stage. Call it while there is one thread.
///
/// # Errors
/// Without root.
pub fn enter() -> Result<(), BenchError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from).map_err(|error| {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        if refused { BenchError::missing("right to make namespaces", "run as root") } else { error.into() }
    })?;
    let none = None::<&str>;
    // What the host mounts or unmounts meanwhile still reaches us; what we mount does not reach it.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(io::Error::from)?;
    mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).map_err(io::Error::from)?;
    Ok(())
}

/// Makes a directory for one contender's files.
///
/// # Errors
/// When there is one already.
pub fn directory(name: &str) -> io::Result<PathBuf> {
    let path = Path::new("/run").join(name.replace(' ', "-"));
    fs::create_dir(&path)?;
    Ok(path)
}
