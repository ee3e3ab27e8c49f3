//! The sockets that hold published ports, from when a port is published until it is not, as long as this
//! process lives.
//!
//! One socket a port and protocol: a range of N ports takes N descriptors, so that each port is nobody
//! else's and shows in `ss`. At the limit of descriptors a range is refused as a whole, before clients of the
//! control socket find none left.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit};
use tokio::task::spawn_blocking;
use vswitch_sys::claim::{self, Host, Kind};

use super::owner;
use super::published::{Published, Want};
use super::spec::{Ports, Protocol};
use crate::control::error::{Code, Error, Result};
use crate::control::interface::failed;

/// The part of all descriptors that claims leave to everything else: one of so many.
const LEFT_PART: u64 = 16;

/// The claims of all published ports.
#[derive(Debug, Default)]
pub struct Claims {
    held: BTreeMap<Published, Vec<OwnedFd>>,
}

impl Claims {
    /// Keeps the sockets of published ports.
    pub fn hold(&mut self, published: Published, sockets: Vec<OwnedFd>) {
        self.held.insert(published, sockets);
    }

    /// Whether the ports are ours.
    pub fn holds(&self, published: &Published) -> bool {
        self.held.contains_key(published)
    }

    /// Gives back the sockets of ports that are published no longer: closing them makes the ports free.
    pub fn release(&mut self, published: &Published) -> Vec<OwnedFd> {
        self.held.remove(published).unwrap_or_default()
    }
}

/// Claims all ports of what is to be published, or none.
///
/// # Errors
/// `PortInUse` when somebody has one of them; one line that says why it cannot be had.
pub async fn take(published: Published) -> Result<Vec<OwnedFd>> {
    let ports = published.host_ports;
    blocking(move || (ports.first..=ports.last).map(|port| claim_one(&published, port)).collect()).await
}

/// Claims a port of the kernel's choice.
///
/// # Errors
/// As [`take`].
pub async fn take_any(want: Want) -> Result<(Published, Vec<OwnedFd>)> {
    blocking(move || {
        let sockets = claim_one(&want.with(Ports { first: 0, last: 0 }), 0)?;
        let port = claim::port(&sockets).map_err(|error| failed("ask for the port of a socket", &error))?;
        Ok((want.with(Ports::one(port)), vec![sockets]))
    })
    .await
}

/// Does what takes long beside whatever else goes on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::new(Code::Internal, format!("cannot claim ports: {error}"))))
}

fn claim_one(published: &Published, port: u16) -> Result<OwnedFd> {
    let kind = match published.protocol {
        Protocol::Tcp => Kind::Tcp,
        Protocol::Udp => Kind::Udp,
        Protocol::Sctp => return Err(Error::new(Code::Internal, "ports of sctp are not claimed")),
    };
    let host = published.host.map_or(Host::Both, Host::One);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let claimed = claim::claim(kind, host, port, &[]);
    let within = |socket: &OwnedFd| {
        u64::try_from(socket.as_raw_fd()).is_ok_and(|number| number < limit - limit / LEFT_PART)
    };
    match claimed {
        Ok(socket) if within(&socket) => Ok(socket),
        Ok(_) => Err(refusal(published, port, limit, &io::Error::from_raw_os_error(nix::libc::EMFILE))),
        Err(error) => Err(refusal(published, port, limit, &error)),
    }
}

/// Says why a port cannot be claimed, as Docker does, and what helps.
fn refusal(published: &Published, port: u16, limit: u64, error: &io::Error) -> Error {
    let place = Published { host_ports: Ports::one(port), ..*published }.place();
    match error.raw_os_error() {
        Some(nix::libc::EADDRINUSE) => {
            let owner = owner::of(published.protocol, port).map(|owner| format!("{owner} has it, "));
            let message = format!(
                "Bind for {place} failed: port is already allocated: {}choose another port",
                owner.unwrap_or_default()
            );
            Error::new(Code::PortInUse, message)
        }
        Some(nix::libc::EADDRNOTAVAIL) => {
            let message = format!(
                "Bind for {place} failed: cannot assign requested address: the host does not have it: see \"ip address\""
            );
            Error::new(Code::InvalidArgument, message)
        }
        Some(nix::libc::EMFILE | nix::libc::ENFILE) => {
            let message = format!(
                "Bind for {place} failed: each port takes a descriptor, and {limit} is the most the daemon may \
                 have (RLIMIT_NOFILE): publish fewer ports, or raise it, as with LimitNOFILE= of its service"
            );
            Error::new(Code::LimitReached, message)
        }
        _ => failed(&format!("bind {place}"), error),
    }
}
