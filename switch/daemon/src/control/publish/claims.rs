//! The sockets that hold published ports, from when a port is published until it is not, as long as this
//! process lives.
//!
//! One socket a port and protocol: a range of N ports takes N descriptors, so that each port is nobody
//! else's and shows in `ss`. At the limit of descriptors a range is refused as a whole, before clients of the
//! control socket find none left.
//!
//! The datapath serves them, and has a duplicate of each: what one of the two processes held when it died is taken up from
//! the other. What arrives by the uplink is left to the translator where it translates, and dropped by the socket.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio::task::spawn_blocking;
use vswitch_sys::claim::{self, Host, Kind};
use vswitch_sys::filter::{Families, Program};

use super::owner;
use super::published::{Published, Want};
use super::spec::{Ports, Protocol};
use crate::control::error::{Code, Error, Result};
use crate::control::interface::failed;

/// The part of all descriptors that claims leave to everything else: one of so many.
const LEFT_PART: u64 = 16;

/// The claims of all published ports. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    held: BTreeMap<Published, Claim>,
    /// The interfaces by which no claim hears what is translated, by index; `None` until somebody has looked for them.
    uplinks: Option<Vec<u32>>,
}

/// The sockets of a published range.
#[derive(Debug)]
struct Claim {
    sockets: Arc<Vec<OwnedFd>>,
    /// The families of which they hear nothing by the uplinks.
    translated: Families,
}

impl Claims {
    /// Claims all ports of what is to be published, or none. Ports of SCTP are noted only: many kernels have no
    /// such sockets.
    ///
    /// # Errors
    /// `PortInUse` when somebody has one of them; one line that says why it cannot be had.
    pub async fn take(&self, published: Published) -> Result<()> {
        if published.protocol == Protocol::Sctp {
            self.keep(published, Arc::default(), &[]);
            return Ok(());
        }
        let (ports, uplinks) = (published.host_ports, self.uplinks());
        let (sockets, uplinks) = blocking(move || {
            let claimed = (ports.first..=ports.last).map(|port| claim_one(&published, port, &uplinks));
            Ok((claimed.collect::<Result<Vec<_>>>()?, uplinks))
        })
        .await?;
        self.keep(published, sockets.into(), &uplinks);
        Ok(())
    }

    /// Claims a port of the kernel's choice, and says what is to be published there.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn take_any(&self, want: Want) -> Result<Published> {
        let uplinks = self.uplinks();
        let (published, socket, uplinks) = blocking(move || {
            let socket = claim_one(&want.with(Ports { first: 0, last: 0 }), 0, &uplinks)?;
            let port =
                claim::port(&socket).map_err(|error| failed("ask for the port of a socket", &error))?;
            Ok((want.with(Ports::one(port)), socket, uplinks))
        })
        .await?;
        self.keep(published, vec![socket].into(), &uplinks);
        Ok(published)
    }

    /// Whether the ports are ours.
    pub fn holds(&self, published: &Published) -> bool {
        self.shared().held.contains_key(published)
    }

    /// Takes up the sockets of ports that were claimed by another process.
    pub fn take_up(&self, published: Published, sockets: Arc<Vec<OwnedFd>>) {
        self.keep(published, sockets, &[]);
    }

    /// The sockets of ports that are ours, in the order of ports.
    pub fn sockets(&self, published: &Published) -> Option<Arc<Vec<OwnedFd>>> {
        self.shared().held.get(published).map(|claim| Arc::clone(&claim.sockets))
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
            uplinks.iter().for_each(|uplinks| deafen(claim, uplinks));
        }
    }

    /// Gives back the sockets of ports that are published no longer: closing them makes the ports free.
    pub fn release(&self, published: &Published) -> Vec<OwnedFd> {
        let claim = self.shared().held.remove(published);
        claim.and_then(|claim| Arc::into_inner(claim.sockets)).unwrap_or_default()
    }

    /// Has claims hear nothing by these interfaces of what is translated, and all else, from now on.
    pub fn set_uplinks(&self, uplinks: &[u32]) {
        let mut shared = self.shared();
        if shared.uplinks.as_deref() != Some(uplinks) {
            shared.uplinks = Some(uplinks.to_vec());
            shared.held.values().for_each(|claim| deafen(claim, uplinks));
        }
    }

    fn uplinks(&self) -> Vec<u32> {
        self.shared().uplinks.clone().unwrap_or_default()
    }

    /// Keeps sockets that were made deaf to `uplinks`, which may have changed since.
    fn keep(&self, published: Published, sockets: Arc<Vec<OwnedFd>>, uplinks: &[u32]) {
        let claim = Claim { sockets, translated: Families::BOTH };
        let mut shared = self.shared();
        if let Some(now) = shared.uplinks.as_deref().filter(|now| *now != uplinks) {
            deafen(&claim, now);
        }
        shared.held.insert(published, claim);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deafen(claim: &Claim, uplinks: &[u32]) {
    let filter = Program::deaf_to(uplinks, claim.translated);
    let mut failure = None;
    for socket in claim.sockets.iter() {
        failure = filter.attach(socket.as_fd()).err().or(failure);
    }
    if let Some(error) = failure {
        tracing::warn!("published ports may answer the uplink themselves: {error}");
    }
}

/// Does what takes long beside whatever else goes on.
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
    use crate::control::publish::published::Choice;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn want(protocol: Protocol) -> Want {
        Want { host: Some(HOST), protocol, choice: Choice::Any, container_port: 80 }
    }

    /// How many datagrams wait at the socket of a published port; then none does.
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
}
