//! A host name for one process and its children.
//!
//! Kernel fact relied on: the host name belongs to the UTS namespace, which `unshare` copies
//! (uts_namespaces(7)).

use std::io;

use nix::sched::{CloneFlags, unshare};

/// Gives the calling thread, and what it executes, a host name that nobody else sees.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN`; `InvalidInput` for a name longer than 64 bytes.
pub fn set_private_hostname(name: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS)?;
    Ok(nix::unistd::sethostname(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_sees_it() {
        let name = || nix::unistd::gethostname().expect("name").to_string_lossy().into_owned();
        let before = name();
        let inside = std::thread::spawn(move || {
            set_private_hostname("vswitch-test").expect("set");
            name()
        });
        assert_eq!(inside.join().expect("thread"), "vswitch-test");
        assert_eq!(name(), before);
    }
}
