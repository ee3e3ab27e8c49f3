//! A view of the file system for one process and its children, in which some files are others.
//!
//! `ip netns exec` does the same. Kernel facts relied on:
//! * A mount namespace is copied by `unshare`; mounts made in a slave stay in it, and those of the host still
//!   arrive (mount_namespaces(7)).
//! * A bind mount goes to where symbolic links lead, and leaves everything but the one file as it was.
//! * A `sysfs` shows the network namespace of the process that mounted it.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

/// Gives the calling thread, and what it executes, a file system of its own, in which `/sys` shows its
/// network namespace.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN`.
pub fn leave_hosts_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    // Beneath it there may be mounts that cannot be taken away; then the new one covers them.
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("sysfs"), "/sys", Some("sysfs"), flags, NONE) {
        // Nothing is mounted there where containers are nested, and `/sys` is not what was asked for.
        Ok(()) | Err(Errno::EPERM | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Shows `file` in place of `target`, which must exist, and where symbolic links of that lead.
///
/// # Errors
/// `NotFound` when one of them is not there, `PermissionDenied` without `CAP_SYS_ADMIN`.
pub fn show_in_place(file: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(file), target, NONE, MsFlags::MS_BIND, NONE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nobody_else_sees_it() {
        let folder = std::env::temp_dir().join(format!("vswitch-etc-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = |name: &str| folder.join(name);
        fs::write(path("theirs"), "theirs").expect("write");
        fs::write(path("ours"), "ours").expect("write");
        std::os::unix::fs::symlink(path("theirs"), path("link")).expect("link");
        let read = |name: &str| fs::read_to_string(path(name)).expect("read");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                leave_hosts_mounts().expect("a file system of its own");
                show_in_place(&path("ours"), &path("link")).expect("mount");
                assert_eq!(
                    show_in_place(&path("ours"), &path("none")).expect_err("none").kind(),
                    io::ErrorKind::NotFound
                );
                (read("theirs"), read("link"))
            });
            assert_eq!(inside.join().expect("thread"), ("ours".to_owned(), "ours".to_owned()));
        });
        assert_eq!(read("theirs"), "theirs");
        fs::remove_dir_all(&folder).expect("clean up");
    }
}
