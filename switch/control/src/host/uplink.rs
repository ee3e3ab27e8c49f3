//! The uplinks of the host, and what the datapath is told of them.
//!
//! # Theory of operation
//! Which interfaces are uplinks is looked up in [`ways_out`](super::ways_out). They stay the host's: a
//! packet socket on each sends, and hears what its filter admits ([`vswitch_sys::filter`]), and nothing of
//! the host's firewall, routes or settings is touched. One task follows what may change and says each on:
//!
//! | change | what follows |
//! |---|---|
//! | addresses, routes, MAC address, MTU | the datapath is told |
//! | another interface | the datapath is told, with another packet socket |
//! | networks, published ports, claims | another filter |
//! | the datapath wants more ports | they are claimed ([`Claims`]) and granted |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit};
use vswitch_contract::claim::{Claimed, Protocol, Wanted};
use vswitch_contract::fact::{Change, Fact, Held, Key};
use vswitch_contract::relay::Binding;
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::uplink::UplinkSpec;
use vswitch_sys::filter::{Admission, Program};
use vswitch_sys::packet;

use crate::host::changes::Changes;
use crate::host::claims::{Claims, Lendable};
use crate::host::routes::ROUTES_MAX;
use crate::host::ways_out::{Choice, Found, Seen, look};
use crate::link::Link;
use crate::publish;

/// The sandbox that is shown for the uplink's port. No sandbox can have this name.
pub const NAME: &str = "(uplink)";
/// Claims at each address for each protocol before any is asked for.
const CLAIMS_FIRST: usize = 512;

const TOO_MANY_ROUTES: &str = "the most specific routes of the host are not followed by containers";

/// The packet socket on an uplink, and the filter it has.
#[derive(Debug)]
struct Heard {
    socket: OwnedFd,
    admitted: Option<Program>,
}

/// Follows the uplink; see the [module](self).
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    choice: Choice,
    changes: Changes,
    claims: Claims,
    /// Claims of published ports.
    published: publish::claims::Claims,
    told: Seen,
    /// Whether `told` is what the datapath was told, and what a look showed.
    is_told: bool,
    /// Why it could not be, as it was said last.
    failed: Option<String>,
    /// Protocols and addresses for which ports run short.
    short: BTreeSet<(Protocol, IpAddr)>,
    /// Things that were said once: interfaces through which routes are not followed, and that routes are not.
    said: BTreeSet<String>,
    /// Packet sockets, by the places of their uplinks.
    sockets: BTreeMap<u16, Heard>,
}

impl Uplink {
    /// Finds the uplinks and tells the datapath.
    ///
    /// # Errors
    /// When there are no descriptors for what an earlier control has left.
    pub async fn start(link: Link, choice: Choice, published: publish::claims::Claims) -> io::Result<Self> {
        // The watch comes first, so that no change falls between it and the first look.
        let changes = Changes::listen();
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let mut claims = Claims::new(usize::try_from(descriptors / 2).unwrap_or(usize::MAX));
        // A datapath that outlived its control has these.
        claims.take_up(link.claims().await);
        let sockets = link.uplink_sockets().await?.into_iter();
        let sockets = sockets.map(|(place, socket)| (place, Heard { socket, admitted: None })).collect();
        let (told, is_told, failed) = (Seen::default(), false, None);
        let (short, said) = (BTreeSet::new(), BTreeSet::new());
        let mut uplink =
            Self { link, choice, changes, claims, published, told, is_told, failed, short, said, sockets };
        uplink.look_again().await;
        Ok(uplink)
    }

    /// Follows what changes until it is dropped.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                () = self.changes.next(self.is_told) => self.look_again().await,
                wanted = self.link.wanted() => self.grant(&wanted).await,
                () = self.link.admission_changed() => self.follow_networks().await,
            }
        }
    }

    /// Looks at the host, and says each change on.
    async fn look_again(&mut self) {
        let seen = match look(&self.choice) {
            Ok(seen) if self.is_told && seen == self.told => return,
            Ok(seen) => seen,
            Err(error) => return self.fail(format!("the uplink cannot be looked at: {error}")),
        };
        self.warn_missing(&seen);
        self.told = seen.clone();
        let indices: Vec<u32> = seen.found().map(|found| found.index).collect();
        self.settle(&indices, &seen.host).await;
        self.published.set_uplinks(&indices);
        self.claim_first().await;
        self.say_what_is_not_followed(&seen);
        self.is_told = true;
        let mut found = seen.uplinks.into_iter();
        for place in 0..UPLINKS_MAX {
            if let Err(error) = self.change(place, found.next().flatten()).await {
                self.fail(format!("containers do not reach the world: {error}"));
            }
        }
        self.failed.take_if(|_| self.is_told);
        self.tell_granted().await;
    }

    /// Notes that another try is due, and says why, once.
    fn fail(&mut self, why: String) {
        self.is_told = false;
        if self.failed.as_ref() != Some(&why) {
            tracing::warn!("{why}; it is tried again");
            self.failed = Some(why);
        }
    }

    /// Says once that there are too many routes, and of each interface that routers are behind it, and
    /// containers do not go there.
    fn say_what_is_not_followed(&mut self, seen: &Seen) {
        if seen.is_cut && self.said.insert(TOO_MANY_ROUTES.to_owned()) {
            tracing::warn!("{TOO_MANY_ROUTES}: their packets go by broader ones, of {ROUTES_MAX} in all");
        }
        for (interface, destination) in &seen.not_followed {
            if self.said.insert(interface.clone()) {
                tracing::info!(
                    "containers do not follow the host's route to {destination} by {interface}: name it with \
                     --uplink if they are to"
                );
            }
        }
    }

    /// Says in the log which uplinks are not there any more, or not yet.
    fn warn_missing(&self, seen: &Seen) {
        for (place, name) in self.choice.names().iter().enumerate() {
            let is_there = |seen: &Seen| seen.uplinks.get(place).is_some_and(Option::is_some);
            let is_news = !self.is_told || is_there(&self.told);
            if is_news && !is_there(seen) {
                tracing::warn!(
                    "uplink {name} is not there: containers do not reach the world by it until it is"
                );
            }
        }
    }

    /// Says an uplink as it is now.
    async fn change(&mut self, place: u16, found: Option<Found>) -> io::Result<()> {
        let Some(found) = found else {
            let gone = self.sockets.remove(&place).is_some();
            let told = if gone { self.link.remove(Key::Uplink(place)).await } else { Ok(()) };
            return told.map_err(io::Error::other);
        };
        let program = self.program(&found.spec).await;
        let heard = self.sockets.get_mut(&place);
        let bound = heard.as_ref().and_then(|heard| packet::interface(&heard.socket).ok());
        let is_same = bound == Some(found.index);
        let mut rides_along = None;
        if let (true, Some(heard)) = (is_same, heard) {
            program.attach(heard.socket.as_fd())?;
            heard.admitted = Some(program);
        } else {
            let socket = packet::open_filtered(&found.spec.interface, &program)?;
            rides_along = Some(socket.try_clone()?);
            self.sockets.insert(place, Heard { socket, admitted: Some(program) });
        }
        let held = Held::new(Fact::Uplink(place, found.spec), rides_along);
        self.link.set(held).await.map_err(io::Error::other)
    }

    /// Follows a change of networks or of published ports.
    async fn follow_networks(&mut self) {
        self.claim_first().await;
        self.admit().await;
        self.tell_granted().await;
    }

    /// Claims ports at addresses that flows leave with.
    async fn claim_first(&mut self) {
        let lendable = Lendable::look();
        let chosen = self.link.source_addresses().await.into_iter();
        let chosen = chosen.filter(|address| self.told.host.contains(address));
        let own = self.told.found().flat_map(|found| found.spec.addresses());
        for address in own.chain(chosen).collect::<Vec<_>>() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if !self.claims.has(protocol, address) {
                    self.claims.claim(&Wanted { protocol, address, ports: CLAIMS_FIRST }, &lendable);
                }
            }
        }
    }

    /// Claims the ports that the datapath wants, and says which there are.
    async fn grant(&mut self, wanted: &[Wanted]) {
        let host = self.told.host.clone();
        let lendable = Lendable::look();
        for wanted in wanted.iter().filter(|wanted| host.contains(&wanted.address)) {
            let mut short = self.claims.claim(wanted, &lendable);
            if short > 0 && self.take_from_others(wanted, short).await {
                short = self.claims.claim(&Wanted { ports: short, ..*wanted }, &lendable);
            }
            self.say_if_short(wanted, short);
        }
        // Packets to granted ports are heard.
        self.admit().await;
        self.tell_granted().await;
    }

    /// Lets go of claims of other protocols and addresses that no flow has. Says whether there were any.
    async fn take_from_others(&mut self, wanted: &Wanted, most: usize) -> bool {
        let mut missing = most;
        for (protocol, address) in self.claims.held() {
            if missing == 0 || (protocol, address) == (wanted.protocol, wanted.address) {
                continue;
            }
            let Ok(ports) = self.link.give_back(protocol, address, missing).await else { continue };
            missing -= ports.len().min(missing);
            self.claims.release(protocol, address, &ports);
            let gone = |key: &Key| {
                matches!(key, Key::Claim(of) if (of.protocol, of.address) == (protocol, address)
                    && ports.contains(&of.port))
            };
            if let Err(error) = self.link.remove_where(gone).await {
                tracing::warn!("the datapath keeps sockets of ports that are not claimed any more: {error}");
            }
        }
        missing < most
    }

    /// Says that ports run short, once, until they no longer do.
    fn say_if_short(&mut self, wanted: &Wanted, short: usize) {
        let Wanted { protocol, address, .. } = *wanted;
        if short == 0 {
            self.short.remove(&(protocol, address));
        } else if self.short.insert((protocol, address)) {
            let claims = self.claims.count();
            tracing::warn!(
                "{protocol:?} flows that leave with {address} may run out of ports, as {claims} are claimed in \
                 all: allow more descriptors (ulimit -n)"
            );
        }
    }

    /// Lets go of claims at other addresses than these.
    async fn settle(&mut self, indices: &[u32], addresses: &[IpAddr]) {
        self.claims.settle(indices, addresses);
        let is_elsewhere = |key: &Key| {
            matches!(key, Key::Claim(Claimed { address, .. }) | Key::Grant(_, address)
                if !addresses.contains(address))
        };
        if let Err(error) = self.link.remove_where(is_elsewhere).await {
            tracing::warn!("the datapath keeps sockets of ports that are not claimed any more: {error}");
        }
    }

    /// Tells the datapath which ports are claimed. None is used that would not outlive this process, if that
    /// can be had.
    async fn tell_granted(&mut self) {
        let fresh = self.claims.take_fresh().into_iter();
        let keep = fresh.map(|(claimed, socket)| Held { fact: Fact::Claim(claimed), fds: vec![socket] });
        match self.link.offer(keep.map(Change::Set).collect()).await.map(|refused| refused.into_iter().next())
        {
            Ok(None) => {}
            Ok(Some((_, why))) => tracing::warn!("claimed ports do not outlive this process: {why}"),
            Err(error) => tracing::warn!("claimed ports do not outlive this process: {error}"),
        }
        let grants = self.claims.held().into_iter().map(|(protocol, address)| {
            Change::Set(Fact::Grant(protocol, address, self.claims.ranges(protocol, address)).into())
        });
        if let Err(error) = self.link.change(grants.collect()).await {
            tracing::warn!("the datapath was not told of claimed ports: {error}");
            return;
        }
        self.compare().await;
    }

    /// Says so if the datapath uses other ports than those that are claimed.
    async fn compare(&self) {
        let held = self.claims.count();
        match self.link.flow_count().await {
            Ok((stats, _)) if stats.ports_claimed != held => {
                let used = stats.ports_claimed;
                tracing::error!("{held} ports are claimed, and the datapath uses {used}: restart the daemon");
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Lets the sockets hear what is the switch's now.
    async fn admit(&mut self) {
        for (place, found) in (0..UPLINKS_MAX).zip(self.told.uplinks.clone()) {
            let Some(Found { spec, .. }) = found else { continue };
            let program = self.program(&spec).await;
            let is_new = |heard: &&mut Heard| heard.admitted.as_ref() != Some(&program);
            let Some(heard) = self.sockets.get_mut(&place).filter(is_new) else { continue };
            match program.attach(heard.socket.as_fd()) {
                Ok(()) => heard.admitted = Some(program),
                Err(error) => tracing::warn!("the uplink's filter cannot be changed: {error}"),
            }
        }
    }

    async fn program(&self, uplink: &UplinkSpec) -> Program {
        let subnets = self.link.reachable_subnets(Some(&uplink.interface)).await;
        let bindings = self.link.bindings().await;
        let ports = |protocol| {
            let published = bindings.iter().filter(|binding| binding.protocol == protocol);
            let published = published.map(Binding::host_ports);
            self.claims.all_ranges(protocol).into_iter().chain(published).collect()
        };
        let (tcp, udp) = (ports(Protocol::Tcp), ports(Protocol::Udp));
        let bare = uplink.mac.is_none();
        // Routers answer where they were asked from.
        let own = self.told.host.iter().copied().chain(uplink.link_local.map(IpAddr::from)).collect();
        Program::admitting(&Admission { own, tcp, udp, subnets, bare })
    }
}
