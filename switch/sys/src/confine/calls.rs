//! The system calls that the datapath may make once confined, with the arguments that it may pass.
//!
//! # Theory of operation
//! A filter sees numbers and never memory: flags, options and operations, but no address behind a pointer and
//! no message. Arguments are narrowed where another value would reach further than the datapath does: a
//! socket of the host's that is disconnected (`shutdown`) or connected (`MSG_FASTOPEN`), an option, a signal
//! to another process, memory that can be executed. Where no value does harm none is named, so that another
//! C library or kernel finds what it needs.
//!
//! | caller | of |
//! |---|---|
//! | this crate, by `nix` and `libc` | sockets, TAPs |
//! | `mio` | `epoll_wait`, `epoll_ctl` |
//! | the standard library | `sched_yield`, `clock_gettime`, `close`, `fcntl`, `futex`, `write`, `sigaltstack`, `exit_group` |
//! | the C library's allocator | `mmap`, `munmap`, `mremap`, `madvise`, `brk`, `futex` |
//! | the C library's `abort` | `rt_sigprocmask`, `gettid`, `getpid`, `tgkill`; then the kernel ends the process |

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The call that `epoll_wait(3)` makes: newer architectures have only the call with a signal mask.
#[cfg(target_arch = "x86_64")]
const SYS_EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const SYS_EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;

/// A system call that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its user.
    pub why: &'static str,
    number: i64,
    /// Combinations of arguments, of which one must be there; any arguments, if there is none.
    combinations: &'static [&'static [Argument]],
}

/// A condition of an argument.
#[derive(Clone, Copy, Debug)]
struct Argument {
    place: u8,
    /// The bits that are compared.
    mask: u32,
    value: Value,
    text: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Is(u32),
    /// The number of the process, and of its only thread.
    Own,
}

/// The argument at a place is this constant.
macro_rules! is {
    ($place:literal, $name:ident) => {
        Argument {
            place: $place,
            mask: u32::MAX,
            value: Value::Is(libc::$name as u32),
            text: stringify!($name),
        }
    };
}

/// The argument at a place has no other bits than these.
macro_rules! at_most {
    ($place:literal $(, $name:ident)*) => {
        Argument {
            place: $place,
            mask: !(0 $(| libc::$name as u32)*),
            value: Value::Is(0),
            text: concat!("flags 0" $(, " or ", stringify!($name))*),
        }
    };
}

/// The argument at a place has this bit.
macro_rules! with {
    ($place:literal, $name:ident) => {
        Argument {
            place: $place,
            mask: libc::$name as u32,
            value: Value::Is(libc::$name as u32),
            text: concat!("with ", stringify!($name)),
        }
    };
}

/// The argument at a place has not this bit.
macro_rules! without {
    ($place:literal, $name:ident) => {
        Argument {
            place: $place,
            mask: libc::$name as u32,
            value: Value::Is(0),
            text: concat!("without ", stringify!($name)),
        }
    };
}

/// The operation of `futex` is this one, of this process or not.
macro_rules! operation {
    ($name:ident) => {
        Argument {
            place: 1,
            mask: !((libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32),
            value: Value::Is(libc::$name as u32),
            text: stringify!($name),
        }
    };
}

const fn own(place: u8, text: &'static str) -> Argument {
    Argument { place, mask: u32::MAX, value: Value::Own, text }
}

macro_rules! allowed {
    ($($name:ident = $number:expr, [$([$($argument:expr),+]),*], $why:literal;)+) => {
        /// The system calls the datapath may make once confined.
        pub const ALLOWED: &[Call] = &[$(Call {
            name: stringify!($name),
            number: $number,
            combinations: &[$(&[$($argument),+]),*],
            why: $why,
        },)+];
    };
}

allowed! {
    read = libc::SYS_read, [], "a frame from a TAP; bytes of a relayed client";
    write = libc::SYS_write, [], "a frame into a TAP; bytes for a relayed client; a panic's last words";
    recvmmsg = libc::SYS_recvmmsg, [], "frames from a packet socket, packets of tunnels, datagrams of relayed clients";
    sendmmsg = libc::SYS_sendmmsg, [[at_most!(3)]], "frames into a packet socket, packets of tunnels";
    recvmsg = libc::SYS_recvmsg, [], "an order and its descriptors, or an answer for a name, from control; the MTU of a tunnel's path";
    sendmsg = libc::SYS_sendmsg, [[at_most!(2, MSG_DONTWAIT, MSG_NOSIGNAL)]], "an answer, or a question for a name, to control; a datagram for a relayed client; one of a tunnel that was refused among others";
    accept4 = libc::SYS_accept4, [[at_most!(3, SOCK_NONBLOCK, SOCK_CLOEXEC)]], "a relayed client; the next control, when the one before has died";
    getsockopt = libc::SYS_getsockopt, [
        [is!(1, SOL_SOCKET), is!(2, SO_PEERCRED)],
        [is!(1, SOL_SOCKET), is!(2, SO_ERROR)]
    ], "whether that one is root; whether a relayed client is gone; the last error of a tunnel's socket";
    setsockopt = libc::SYS_setsockopt, [
        [is!(1, SOL_SOCKET), is!(2, SO_KEEPALIVE)],
        [is!(1, SOL_SOCKET), is!(2, SO_LINGER)],
        [is!(1, SOL_SOCKET), is!(2, SO_RCVBUF)],
        [is!(1, IPPROTO_TCP), is!(2, TCP_NODELAY)],
        [is!(1, IPPROTO_IP), is!(2, IP_PKTINFO)],
        [is!(1, IPPROTO_IP), is!(2, IP_RECVERR)],
        [is!(1, IPPROTO_IP), is!(2, IP_MTU_DISCOVER)],
        [is!(1, IPPROTO_IPV6), is!(2, IPV6_RECVPKTINFO)],
        [is!(1, IPPROTO_IPV6), is!(2, IPV6_RECVERR)],
        [is!(1, IPPROTO_IPV6), is!(2, IPV6_MTU_DISCOVER)]
    ], "a relayed client: no delay, keep-alives, a reset, or an end, and the address it sent to; a tunnel whose path is narrow: asking, cutting up";
    shutdown = libc::SYS_shutdown, [[is!(1, SHUT_WR)]], "the end of what a relayed client is sent";
    epoll_wait = SYS_EPOLL_WAIT, [], "sleep until a descriptor is ready";
    epoll_ctl = libc::SYS_epoll_ctl, [[is!(1, EPOLL_CTL_ADD)], [is!(1, EPOLL_CTL_DEL)]], "wait for a new port, or no longer";
    sched_yield = libc::SYS_sched_yield, [], "let others run between two looks";
    clock_gettime = libc::SYS_clock_gettime, [], "the clock, where the vDSO has none";
    close = libc::SYS_close, [], "the descriptor of a removed port";
    fcntl = libc::SYS_fcntl, [[is!(1, F_DUPFD_CLOEXEC)], [is!(1, F_GETFD)]], "the next control's descriptors of shared memory; the check before a close, in debug builds of the standard library";
    mmap = libc::SYS_mmap, [[without!(2, PROT_EXEC), with!(3, MAP_ANONYMOUS)]], "memory for a new port or network";
    munmap = libc::SYS_munmap, [], "memory given back";
    mremap = libc::SYS_mremap, [], "memory grown";
    madvise = libc::SYS_madvise, [], "memory given back by the allocator";
    brk = libc::SYS_brk, [], "memory for a new port or network";
    futex = libc::SYS_futex, [
        [operation!(FUTEX_WAIT)], [operation!(FUTEX_WAKE)],
        [operation!(FUTEX_WAIT_BITSET)], [operation!(FUTEX_WAKE_BITSET)]
    ], "locks of the standard library";
    rt_sigreturn = libc::SYS_rt_sigreturn, [], "the way back from a signal";
    rt_sigprocmask = libc::SYS_rt_sigprocmask, [], "abort after a panic";
    gettid = libc::SYS_gettid, [], "abort after a panic";
    getpid = libc::SYS_getpid, [], "abort after a panic";
    tgkill = libc::SYS_tgkill, [[own(0, "itself"), own(1, "itself"), is!(2, SIGABRT)]], "abort after a panic";
    sigaltstack = libc::SYS_sigaltstack, [], "the end of the main thread";
    exit_group = libc::SYS_exit_group, [], "the end";
}

impl Call {
    /// The arguments that are allowed, in words: combinations after semicolons.
    pub fn arguments(&self) -> String {
        let words = |combination: &&[Argument]| {
            let mut words: Vec<_> = combination.iter().map(|argument| argument.text).collect();
            words.dedup();
            words.join(" ")
        };
        let all: Vec<String> = self.combinations.iter().map(words).collect();
        if all.is_empty() { "any".to_owned() } else { all.join("; ") }
    }
}

/// The filter of this process: it ends at any other call.
pub(super) fn program() -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for call in ALLOWED {
        let combinations = call.combinations.iter().map(|arguments| {
            SeccompRule::new(arguments.iter().map(Argument::condition).collect::<Result<_, _>>()?)
        });
        rules.insert(call.number, combinations.collect::<Result<Vec<_>, BackendError>>()?);
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?;
    filter.try_into()
}

impl Argument {
    fn condition(&self) -> Result<SeccompCondition, BackendError> {
        let value = match self.value {
            Value::Is(value) => value,
            Value::Own => std::process::id(),
        };
        // The kernel reads all of these as 32 bits, whatever is in the other half of the register.
        let compared = SeccompCmpOp::MaskedEq(self.mask.into());
        SeccompCondition::new(self.place, SeccompCmpArgLen::Dword, compared, value.into())
    }
}

#[cfg(test)]
mod tests;
