//! The sockets that hold published ports, from when a port is published until it is not, as long as this
//! process lives.
//!
//! One socket a port and protocol: a range of N ports takes N descriptors, so that each port is nobody else's
//! and shows in `ss`. At the limit of descriptors, which the daemon raises as far as it may, a small range is
//! refused as a whole, before clients of the control socket find none left. A large one is held on shelves
//! ([`vswitch_sys::shelf`]), out of the datapath's reach: what arrives by the uplink is translated, but
//! nobody serves clients that only a socket hears.
//!
//! The datapath serves them, and has a duplicate of each: what one of the two processes held when it died is
//! taken up from the other. What arrives by the uplink is left to the translator where it translates, and
//! dropped by the socket.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio::task::spawn_blocking;
use vswitch_sys::claim::{self, Host, Kind};
use vswitch_sys::filter::{Families, Program};
use vswitch_sys::shelf::Shelf;

use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::publish::owner;
use crate::publish::published::{Published, Want};
use crate::publish::spec::{Ports, Protocol};

/// The part of all descriptors that claims leave to everything else: one of so many.
const LEFT_PART: u64 = 16;

/// Ports of a range that is worth a thread, where a process has not as many descriptors left.
const LARGE: u16 = 1024;

/// The claims of all published ports. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    held: BTreeMap<Published, Claim>,
    /// The interfaces by which no claim hears what is translated, by index; `None` until somebody has looked
    /// for them.
    uplinks: Option<Vec<u32>>,
}

/// The sockets of a published range. Closing them, which its end does, makes the ports free.
#[derive(Debug)]
pub struct Claim {
    sockets: Vec<Arc<OwnedFd>>,
    /// Shelves in place of these sockets, if this process could not have as many.
    shelves: Vec<Shelf>,
    /// The families of which the sockets hear nothing by the uplinks.
    translated: Families,
}

impl Claims {
    /// Claims all ports of what is to be published, or none. Ports of SCTP are noted only: many kernels have
    /// no such sockets.
    ///
    /// # Errors
    /// `PortInUse` when somebody has one of them; one line that says why it cannot be had.
    pub async fn take(&self, published: Published) -> Result<()> {
        if published.protocol == Protocol::Sctp {
            self.keep(published, Claim::new(Vec::new()), &[]);
            return Ok(());
        }
        let uplinks = self.uplinks();
        let (claim, uplinks) = blocking(move || Ok((Claim::of(&published, &uplinks)?, uplinks))).await?;
        self.keep(published, claim, &uplinks);
        Ok(())
    }

    /// Claims a port of the kernel's choice, and says what is to be published there.
    ///
    /// # Errors
    /// Errors of [`take`](Self::take).
    pub async fn take_any(&self, want: Want) -> Result<Published> {
        let uplinks = self.uplinks();
        let (published, socket, uplinks) = blocking(move || {
            let socket = claim_one(&want.with(Ports { first: 0, last: 0 }), 0, &uplinks)?;
            let port =
                claim::port(&socket).map_err(|error| failed("ask for the port of a socket", &error))?;
            Ok((want.with(Ports::one(port)), socket, uplinks))
        })
        .await?;
        self.keep(published, Claim::new(vec![Arc::new(socket)]), &uplinks);
        Ok(published)
    }

    /// Whether this process holds the ports.
    pub fn holds(&self, published: &Published) -> bool {
        self.shared().held.contains_key(published)
    }

    /// Takes up the sockets of ports that were claimed by another process.
    pub fn take_up(&self, published: Published, sockets: Vec<Arc<OwnedFd>>) {
        self.keep(published, Claim::new(sockets), &[]);
    }

    /// The sockets of ports that are ours, in the order of ports; `None` if they are on shelves, too.
    pub fn sockets(&self, published: &Published) -> Option<Vec<Arc<OwnedFd>>> {
        let shared = self.shared();
        let claim = shared.held.get(published).filter(|claim| claim.shelves.is_empty())?;
        Some(claim.sockets.clone())
    }

    /// Has the sockets of ports hear by the uplinks what is not of these families, from now on.
    pub fn set_translated(&self, published: &Published, translated: Families) {
        let mut shared = self.shared();
        let Shared { held, uplinks } = &mut *shared;
        if let Some(claim) = held.get_mut(published)
            && claim.translated != translated
        {
            claim.translated = translated;
            // Sockets that were taken up are as they were until then.
            uplinks.iter().for_each(|uplinks| claim.deafen(uplinks));
        }
    }

    /// Gives back the sockets of ports that are published no longer.
    pub fn release(&self, published: &Published) -> Option<Claim> {
        self.shared().held.remove(published)
    }

    /// Has claims hear nothing by these interfaces of what is translated, and all else, from now on.
    pub fn set_uplinks(&self, uplinks: &[u32]) {
        let mut shared = self.shared();
        if shared.uplinks.as_deref() != Some(uplinks) {
            shared.uplinks = Some(uplinks.to_vec());
            shared.held.values().for_each(|claim| claim.deafen(uplinks));
        }
    }

    fn uplinks(&self) -> Vec<u32> {
        self.shared().uplinks.clone().unwrap_or_default()
    }

    /// Keeps sockets that were made deaf to `uplinks`, which may have changed since.
    fn keep(&self, published: Published, claim: Claim, uplinks: &[u32]) {
        let mut shared = self.shared();
        if let Some(now) = shared.uplinks.as_deref().filter(|now| *now != uplinks) {
            claim.deafen(now);
        }
        shared.held.insert(published, claim);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    fn new(sockets: Vec<Arc<OwnedFd>>) -> Self {
        Self { sockets, shelves: Vec::new(), translated: Families::BOTH }
    }

    /// Claims all ports of a range.
    fn of(published: &Published, uplinks: &[u32]) -> Result<Self> {
        let ports = published.host_ports;
        let sockets = (ports.first..=ports.last).map(|port| claim_one(published, port, uplinks));
        match sockets.map(|socket| socket.map(Arc::new)).collect::<Result<Vec<_>>>() {
            Ok(sockets) => Ok(Self::new(sockets)),
            Err(error) if error.code == Code::LimitReached && is_large(published) => {
                warn_unserved(published, &error);
                Self::on_shelves(published, uplinks)
            }
            Err(error) => Err(error),
        }
    }

    fn on_shelves(published: &Published, uplinks: &[u32]) -> Result<Self> {
        let down = |error| failed("hold ports beyond the limit of descriptors", &error);
        let (mut shelves, mut next) = (Vec::new(), Some(published.host_ports.first));
        while let Some(first) = next {
            let shelf = Shelf::new().map_err(down)?;
            let (published, uplinks) = (*published, uplinks.to_vec());
            next = shelf.work(move |held| fill(held, &published, first, &uplinks)).map_err(down)??;
            shelves.push(shelf);
        }
        Ok(Self { shelves, ..Self::new(Vec::new()) })
    }

    /// Has its sockets hear nothing by these interfaces of what is translated, and all else.
    fn deafen(&self, uplinks: &[u32]) {
        let filter = Program::deaf_to(uplinks, self.translated);
        let mut failure = attach(&filter, self.sockets.iter().map(|socket| socket.as_fd()));
        for shelf in &self.shelves {
            let filter = filter.clone();
            let attached = shelf.work(move |held| attach(&filter, held.iter().map(|socket| socket.as_fd())));
            failure = attached.unwrap_or_else(Some).or(failure);
        }
        if let Some(error) = failure {
            tracing::warn!("published ports may answer the uplink themselves: {error}");
        }
    }
}

/// Attaches a filter to sockets; gives back the last failure.
fn attach<'a>(filter: &Program, sockets: impl Iterator<Item = BorrowedFd<'a>>) -> Option<io::Error> {
    sockets.fold(None, |failure, socket| filter.attach(socket).err().or(failure))
}

/// Whether a range is published even where there are not enough descriptors to serve clients that only its
/// sockets hear.
pub(crate) fn is_large(published: &Published) -> bool {
    published.host_ports.rest() >= LARGE
}

/// Says that a large range has no descriptors, and what that means.
pub(crate) fn warn_unserved(published: &Published, error: &Error) {
    tracing::warn!(
        "clients on this host itself are not served at {}/{}: {error}",
        published.place(),
        published.protocol
    );
}

/// Claims ports from `first` on until there is no room, and says which is then the next.
fn fill(held: &mut Vec<OwnedFd>, published: &Published, first: u16, uplinks: &[u32]) -> Result<Option<u16>> {
    for port in first..=published.host_ports.last {
        match claim_one(published, port, uplinks) {
            Ok(socket) => held.push(socket),
            Err(error) if error.code == Code::LimitReached && port > first => return Ok(Some(port)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Does work that takes long beside whatever else goes on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::new(Code::Internal, format!("cannot claim ports: {error}"))))
}

fn claim_one(published: &Published, port: u16, uplinks: &[u32]) -> Result<OwnedFd> {
    let kind = match published.protocol {
        Protocol::Tcp => Kind::Tcp,
        Protocol::Udp => Kind::Udp,
        Protocol::Sctp => return Err(Error::new(Code::Internal, "ports of sctp are not claimed")),
    };
    let host = published.host.map_or(Host::Both, Host::One);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let claimed = claim::claim(kind, host, port, uplinks);
    let claimed = claimed.and_then(|socket| claim::make_room(&socket, kind).map(|()| socket));
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::publish::published::Choice;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn want(protocol: Protocol) -> Want {
        Want { host: Some(HOST), protocol, choice: Choice::Any, container_port: 80 }
    }

    /// The number of datagrams that wait at the socket of a published port; then none does.
    fn waiting(claims: &Claims, published: &Published) -> usize {
        let socket = claims.sockets(published).expect("claimed")[0].try_clone().expect("descriptor");
        let socket = UdpSocket::from(socket);
        std::iter::from_fn(|| socket.recv(&mut [0; 8]).ok()).count()
    }

    #[tokio::test]
    async fn claims_are_deaf_to_uplinks_whenever_these_change() {
        let claims = Claims::default();
        let published = claims.take_any(want(Protocol::Udp)).await.expect("claim");
        let port = published.host_ports.first;
        let loopback = nix::net::if_::if_nametoindex("lo").expect("lo");
        for (uplinks, expected) in [(vec![], 1), (vec![loopback], 0), (vec![loopback + 1000], 1)] {
            claims.set_uplinks(&uplinks);
            let other = UdpSocket::bind((HOST, 0)).expect("bind");
            other.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
            other.send_to(b"1", (HOST, port)).expect("send");
            other.send_to(b"2", other.local_addr().expect("address")).expect("send");
            other.recv(&mut [0; 8]).expect("what came second");
            assert_eq!(waiting(&claims, &published), expected, "{uplinks:?}");
        }
        assert!(claims.holds(&published));
        drop(claims.release(&published));
        UdpSocket::bind((HOST, port)).expect("it is free again");
    }

    #[tokio::test]
    async fn a_range_is_claimed_as_a_whole_or_not_at_all() {
        let claims = Claims::default();
        let taken = claims.take_any(want(Protocol::Tcp)).await.expect("claim").host_ports.first;
        let range = Ports { first: taken, last: taken.saturating_add(3) };
        let error = claims.take(want(Protocol::Tcp).with(range)).await.expect_err("one is taken");
        assert_eq!(error.code, Code::PortInUse);
        let expected = format!("Bind for 127.0.0.1:{taken} failed: port is already allocated: ");
        assert!(error.message.starts_with(&expected), "{error}");
        assert!(error.message.contains(&format!("(pid {}) has it", std::process::id())), "{error}");
        assert!(!claims.holds(&want(Protocol::Tcp).with(range)));
        claims.take(want(Protocol::Sctp).with(range)).await.expect("no socket");
    }

    #[tokio::test]
    async fn what_is_on_a_shelf_is_held_and_deaf_as_well() {
        let claims = Claims::default();
        let published = claims.take_any(want(Protocol::Udp)).await.expect("claim");
        let port = published.host_ports.first;
        let error = Claim::on_shelves(&published, &[]).expect_err("it is taken");
        assert_eq!(error.code, Code::PortInUse);
        drop(claims.release(&published));
        let claim = Claim::on_shelves(&published, &[]).expect("claim");
        UdpSocket::bind((HOST, port)).expect_err("it is held");
        let sender = UdpSocket::bind((HOST, 0)).expect("bind");
        let loopback = nix::net::if_::if_nametoindex("lo").expect("lo");
        for (uplinks, heard) in [(vec![], true), (vec![loopback], false)] {
            claim.deafen(&uplinks);
            sender.send_to(b"1", (HOST, port)).expect("send");
            let receive = |held: &mut Vec<OwnedFd>| {
                UdpSocket::from(held[0].try_clone().expect("descriptor")).recv(&mut [0; 8]).is_ok()
            };
            assert_eq!(claim.shelves[0].work(receive).expect("work"), heard, "{uplinks:?}");
        }
        claims.keep(published, claim, &[]);
        assert!(claims.holds(&published) && claims.sockets(&published).is_none());
        drop(claims.release(&published));
        UdpSocket::bind((HOST, port)).expect("it is free again");
    }
}
