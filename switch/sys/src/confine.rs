//! Confinement: what the datapath gives up before it reads the first frame.
//!
//! It reads frames that untrusted containers wrote, so a mistake in it must not become a hold on the
//! host. [`enter`] leaves it with its descriptors and nothing else: an empty network namespace, an empty
//! root, no user, no capability, and a seccomp filter that ends the process at any call but
//! [`ALLOWED`].

use std::collections::BTreeMap;
use std::io;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// "nobody" and "nogroup", by the numbers every distribution gives them.
const NOBODY: u32 = 65_534;

/// The call that `epoll_wait(3)` makes: newer architectures have only the call with a signal mask.
#[cfg(target_arch = "x86_64")]
const SYS_EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const SYS_EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;

macro_rules! allowed {
    ($($name:ident = $call:expr, $why:literal;)+) => {
        /// The system calls the datapath may make once confined, each with its user.
        pub const ALLOWED: &[(&str, i64, &str)] = &[$((stringify!($name), $call, $why),)+];
    };
}

allowed! {
    read = libc::SYS_read, "a frame from a TAP; bytes of a relayed client";
    write = libc::SYS_write, "a frame into a TAP; bytes for a relayed client; a panic's last words";
    recvmmsg = libc::SYS_recvmmsg, "frames from a packet socket, packets of tunnels";
    sendmmsg = libc::SYS_sendmmsg, "frames into a packet socket, packets of tunnels";
    recvmsg = libc::SYS_recvmsg, "an order and its descriptors, or an answer for a name, from control; a datagram of a relayed client; the MTU of a tunnel's path";
    sendmsg = libc::SYS_sendmsg, "an answer, or a question for a name, to control; a datagram for a relayed client; one of a tunnel that was refused among others";
    accept4 = libc::SYS_accept4, "a relayed client; the next control, when the one before has died";
    getsockopt = libc::SYS_getsockopt, "whether that one is root; whether a relayed client is gone; the last error of a tunnel's socket";
    setsockopt = libc::SYS_setsockopt, "a relayed client: no delay, keep-alives, a reset, or an end; a tunnel whose path is narrow: asking, cutting up";
    shutdown = libc::SYS_shutdown, "the end of what a relayed client is sent";
    epoll_wait = SYS_EPOLL_WAIT, "sleep until a descriptor is ready";
    epoll_ctl = libc::SYS_epoll_ctl, "wait for a new port, or no longer";
    sched_yield = libc::SYS_sched_yield, "let others run between two looks";
    clock_gettime = libc::SYS_clock_gettime, "the clock, where the vDSO has none";
    close = libc::SYS_close, "the descriptor of a removed port";
    fcntl = libc::SYS_fcntl, "the check before a close, in debug builds of the standard library";
    mmap = libc::SYS_mmap, "memory for a new port or network";
    munmap = libc::SYS_munmap, "memory given back";
    mremap = libc::SYS_mremap, "memory grown";
    madvise = libc::SYS_madvise, "memory given back by the allocator";
    brk = libc::SYS_brk, "memory for a new port or network";
    futex = libc::SYS_futex, "locks of the standard library";
    rt_sigreturn = libc::SYS_rt_sigreturn, "the way back from a signal";
    rt_sigprocmask = libc::SYS_rt_sigprocmask, "abort after a panic";
    gettid = libc::SYS_gettid, "abort after a panic";
    getpid = libc::SYS_getpid, "abort after a panic";
    tgkill = libc::SYS_tgkill, "abort after a panic";
    sigaltstack = libc::SYS_sigaltstack, "the end of the main thread";
    exit_group = libc::SYS_exit_group, "the end";
}

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
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    step("drop bounding capabilities", drop_bounding_set())?;
    step("become nobody's group", setresgid(group, group, group))?;
    step("become nobody", setresuid(user, user, user))?;
    step("refuse new privileges", nix::sys::prctl::set_no_new_privs())?;
    step("refuse to be traced", nix::sys::prctl::set_dumpable(false))?;
    let filter = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other)
}

fn step(name: &str, outcome: nix::Result<()>) -> io::Result<()> {
    outcome.map_err(|errno| io::Error::other(format!("cannot {name}: {}", errno.desc())))
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

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        ALLOWED.iter().map(|(_, number, _)| (*number, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?;
    filter.try_into()
}
