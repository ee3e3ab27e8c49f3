//! Confinement: what the datapath gives up before it reads the first frame.
//!
//! It reads frames that untrusted containers wrote, so a mistake in it must not become a hold on the
//! host. [`enter`] leaves it with its descriptors and nothing else: an empty network namespace, an empty
//! root, a user of its own, no capability, and a seccomp filter that ends the process at any call but
//! [`ALLOWED`].

mod calls;

use std::io;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};

pub use calls::{ALLOWED, Call};

/// The user and group that the datapath becomes: the letters "vswi". Nobody gives numbers so high to users,
/// services or containers (the lists of systemd's "Users, Groups, UIDs and GIDs" end below), so no other
/// process has it, as many have "nobody".
pub const USER: u32 = u32::from_be_bytes(*b"vswi");
/// "nobody" and "nogroup", by the numbers every distribution gives them: for a user namespace that has no
/// other.
const NOBODY: u32 = 65_534;

/// Ignores SIGHUP: a stopped process whose parent dies is hung up on by the kernel, as one of an orphaned
/// process group (setpgid(2)).
fn ignore_hang_ups() -> nix::Result<()> {
    // SAFETY: no handler is installed, so no code runs in a signal's context.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.map(drop)
}

/// Gives up everything but the descriptors that are open. There is no way back.
///
/// # Errors
/// Names the step that the kernel refused; the process must then end, for it may be half confined.
pub fn enter() -> io::Result<()> {
    step("ignore hang-ups", ignore_hang_ups())?;
    step(
        "unshare namespaces",
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC),
    )?;
    step("empty the root", empty_root())?;
    step("drop groups", setgroups(&[]))?;
    step("drop bounding capabilities", drop_bounding_set())?;
    step("become a user of its own", become_user(USER).or_else(|_| become_user(NOBODY)))?;
    step("refuse new privileges", nix::sys::prctl::set_no_new_privs())?;
    step("refuse to be traced", nix::sys::prctl::set_dumpable(false))?;
    let filter = calls::program().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other)
}

fn step(name: &str, outcome: nix::Result<()>) -> io::Result<()> {
    outcome.map_err(|errno| io::Error::other(format!("cannot {name}: {}", errno.desc())))
}

/// Becomes a user and its group. Fails for those that the user namespace does not have.
fn become_user(number: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Replaces the root by an empty file system that cannot be written, and lets go of the old one.
fn empty_root() -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), flags, Some("size=4k"))?;
    chdir("/tmp")?;
    // With both arguments the same, the old root is stacked on the new one (pivot_root(2), NOTES).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// Empties the capability bounding set. The other sets empty themselves when root becomes nobody.
fn drop_bounding_set() -> nix::Result<()> {
    const CAPABILITIES_MAX: libc::c_ulong = 64;
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: PR_CAPBSET_DROP takes a number; one the kernel does not know gives EINVAL.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match nix::errno::Errno::result(done) {
            Ok(_) | Err(nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
