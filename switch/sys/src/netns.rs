//! Network namespaces: making, finding, entering.
//!
//! A [`NetNs`] is a descriptor, so the namespace lives at least as long as the value. Kernel facts
//! relied on:
//! * A namespace belongs to a thread, not to a process: `setns` and `unshare` here happen on threads
//!   made for the purpose, so no other code is ever surprised (network_namespaces(7)).
//! * A bind mount of a namespace's file keeps it alive under a name; `ip netns` expects it in
//!   [`NAMED_DIR`], on a mount that other mount namespaces share.
//! * A socket tells the cookie of the namespace it was made in (`SO_NETNS_COOKIE`): a counter, which only a
//!   start of the host sets back. The inode of a namespace's file is free again with it.
//! * A descriptor of `/dev/net/tun` or of a socket keeps alive the namespace it was opened in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The folder of named namespaces, as `ip netns` has it.
pub const NAMED_DIR: &str = "/run/netns";

/// `SO_NETNS_COOKIE` of `include/uapi/asm-generic/socket.h`.
const SO_NETNS_COOKIE: libc::c_int = 71;

mod request {
    //! ioctl_nsfs(2).
    nix::ioctl_none_bad!(
        /// The `CLONE_NEW…` flag of the namespace's kind.
        get_kind,
        libc::NS_GET_NSTYPE
    );
}

/// A network namespace, kept alive by a descriptor.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace a process is in.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// The namespace of this name in [`NAMED_DIR`].
    pub fn named(name: &str) -> io::Result<Self> {
        Self::open(&named_path(name))
    }

    /// The namespace this file stands for. `InvalidInput` if it stands for anything else.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of_file(File::open(path)?)
    }

    /// The namespace this descriptor stands for. `InvalidInput` if it stands for anything else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::of_file(File::from(fd))
    }

    fn of_file(file: File) -> io::Result<Self> {
        // SAFETY: the ioctl takes no argument; on a file that is no namespace it answers ENOTTY.
        let kind = unsafe { request::get_kind(file.as_raw_fd()) };
        match kind {
            Ok(libc::CLONE_NEWNET) => Ok(Self { file }),
            Ok(_) | Err(nix::Error::ENOTTY) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a namespace that has no name and goes when the value goes.
    pub fn anonymous() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })
    }

    /// Gives the namespace a name in [`NAMED_DIR`], so that `ip netns exec NAME` finds it, and the name keeps
    /// it alive. `AlreadyExists` if the name is taken.
    pub fn name(&self, name: &str) -> io::Result<()> {
        share_named_dir()?;
        let path = named_path(name);
        File::create_new(&path)?;
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        bind(&descriptor, &path).inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
        })
    }

    /// Makes a namespace and names it in [`NAMED_DIR`], so that `ip netns exec NAME` finds it.
    /// `AlreadyExists` if the name is taken.
    pub fn create_named(name: &str) -> io::Result<Self> {
        let made = Self::anonymous()?;
        made.name(name)?;
        Ok(made)
    }

    /// Takes away a namespace's name. The namespace goes when nothing else keeps it alive.
    pub fn delete_named(name: &str) -> io::Result<()> {
        let path = named_path(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Not a mount point: a file left over from a maker that died half-way.
            Ok(()) | Err(nix::Error::EINVAL) => std::fs::remove_file(&path),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the calling thread into the namespace, for good. Other threads stay where they are.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// The identifier that the kernel gives to the namespace, and to no other until the host starts anew;
    /// `None` before Linux 5.14.
    pub fn cookie(&self) -> io::Result<Option<u64>> {
        let socket =
            run_in(self, || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))??;
        let (mut cookie, mut length) = (0u64, 8);
        // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is as long, and to `length`.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        match Errno::result(outcome) {
            Ok(_) => Ok(Some(cookie)),
            Err(Errno::ENOPROTOOPT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The numbers of the namespace: the device and inode of its file. When it is gone another one may get
    /// them.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<NetNs> for OwnedFd {
    fn from(netns: NetNs) -> OwnedFd {
        netns.file.into()
    }
}

/// The identifier of this start of the host.
pub fn boot_id() -> Option<String> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(|| read().map(|text| text.trim().to_owned())).clone()
}

/// The path of a namespace's name.
pub fn named_path(name: &str) -> PathBuf {
    Path::new(NAMED_DIR).join(name)
}

/// Runs `work` inside a namespace, on a thread of its own that ends with it. Sockets and devices it
/// opens stay in the namespace. Costs some 50 microseconds.
pub fn run_in<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(|| {
        netns.enter()?;
        Ok(work())
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes [`NAMED_DIR`] a shared mount of its own, as `ip netns add` does.
fn share_named_dir() -> io::Result<()> {
    let dir = Path::new(NAMED_DIR);
    std::fs::create_dir_all(dir)?;
    match share(dir) {
        Err(nix::Error::EINVAL) => {
            bind(dir, dir)?;
            Ok(share(dir)?)
        }
        other => Ok(other?),
    }
}

fn share(dir: &Path) -> nix::Result<()> {
    mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}
