//! Published ports: ports of the host that lead to a sandbox.
//!
//! # Theory of operation
//! A [`spec`] says what is wanted. It becomes records ([`published`]) of the sandbox in the state, each a
//! range of ports with a number for every port. A port is claimed first ([`claims`]): whoever else has it is
//! found out then, and [`owner`] says who. Then the datapath is told where the record leads: to the endpoint
//! by which what comes from outside enters the sandbox, for each family. When endpoints come and go it is
//! told anew.
//!
//! A record is the sandbox's until it is unpublished. After a start its ports are claimed again; one that
//! somebody else has taken meanwhile leads nowhere, and the log says so. One that is to be [drained](drain)
//! is published no longer, and the sandbox's until its last flow has ended.

pub mod claims;
pub(crate) mod drain;
mod owner;
pub mod published;
mod relays;
pub mod spec;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vswitch_cluster::family::Family;
use vswitch_contract::fact::{Fact, Key};
use vswitch_contract::relay::Binding;
use vswitch_contract::relay::{Established, Relayed, Targets};
use vswitch_frame::PortId;
use vswitch_sys::filter::Families;

use crate::api::types;
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::network::ipam::Pool;
use crate::publish::published::{Choice, Published, Target, Want, show, wants};
use crate::publish::spec::{Exposed, Spec};
use crate::sandbox::default_route;
use crate::state::mode::Mode;
use crate::state::{Endpoint, Network};

/// The sandbox that is shown for relays. No sandbox can have this name.
pub const RELAYS: &str = "(relay)";
/// The warning of Docker's client about ports of a sandbox that uses the host's network.
pub const DISCARDED: &str = "Published ports are discarded when using host network mode";

/// Ports that a new sandbox is to publish, and ports that it is said to serve.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Ports to be published.
    pub specs: Vec<Spec>,
    /// Ports said to be served.
    pub exposed: Vec<Exposed>,
}

impl Wishes {
    /// Reads them. With `all`, what is exposed is published, too, unless a spec names it.
    ///
    /// # Errors
    /// For the first that makes no sense.
    pub fn parse(publish: &[String], expose: &[String], all: bool) -> Result<Self> {
        let mut specs = parse(publish)?;
        let exposed = expose.iter().map(|text| text.parse::<Exposed>().map_err(invalid));
        let exposed: Vec<Exposed> = exposed.collect::<Result<_>>()?;
        if all {
            let named = specs.clone();
            let is_named = |one: &Spec| {
                named.iter().any(|spec| {
                    spec.protocol == one.protocol
                        && spec.container.first <= one.container.first
                        && one.container.last <= spec.container.last
                })
            };
            specs.extend(exposed.iter().copied().map(Spec::from).filter(|one| !is_named(one)));
        }
        Ok(Self { specs, exposed })
    }

    /// Refuses them for a sandbox that shares the network of another one, whose business they are.
    ///
    /// # Errors
    /// When there are any.
    pub fn refuse_shared(&self, other: &str) -> Result<()> {
        let what = match (self.specs.is_empty(), self.exposed.is_empty()) {
            (true, true) => return Ok(()),
            (false, _) => "publishing",
            (true, false) => "exposing",
        };
        let message = format!(
            "conflicting options: port {what} and the container type network mode: publish ports of {other:?}"
        );
        Err(Error::new(Code::InvalidArgument, message))
    }
}

impl Control {
    /// Publishes ports of a sandbox.
    pub async fn publish(&mut self, key: &str, specs: &[String]) -> Result<types::Ports> {
        let specs = parse(specs)?;
        let name = self.state.sandbox_name(key)?;
        match &self.state.sandboxes[&name].mode {
            Mode::Own => {}
            Mode::Host => {
                let message = format!("{DISCARDED}: sandbox {name:?} has all ports of the host anyway");
                return Err(Error::new(Code::NetworkMode, message));
            }
            Mode::Shared(other) => {
                let message =
                    format!("sandbox {name:?} shares the network of {other:?}: publish ports of {other:?}");
                return Err(Error::new(Code::NetworkMode, message));
            }
        }
        self.publish_all_of(&name, &specs).await?;
        self.ports(&name)
    }

    /// Ends the publication of ports of a sandbox, with the connections that they have; or if they are to be
    /// drained, when these have ended by themselves.
    pub async fn unpublish(&mut self, key: &str, specs: &[String], drain: bool) -> Result<types::Ports> {
        let specs = parse(specs)?;
        let name = self.state.sandbox_name(key)?;
        let sandbox = self.state.sandbox(&name)?;
        let known = || sandbox.published.iter().chain(&sandbox.draining);
        let missing = specs.iter().find(|spec| !known().any(|one| one.is_of(spec)));
        if let Some(spec) = missing {
            let message =
                format!("sandbox {name:?} does not publish {spec} as a whole: see \"vswitch port {name}\"");
            return Err(Error::new(Code::PortNotFound, message));
        }
        let is_meant = |one: &&Published| specs.iter().any(|spec| one.is_of(spec));
        let (mut ended, kept): (Vec<_>, Vec<_>) = sandbox.published.iter().partition(is_meant);
        sandbox.published = kept;
        if drain {
            sandbox.draining.append(&mut ended);
        } else {
            let (drained, draining): (Vec<_>, Vec<_>) = sandbox.draining.iter().partition(is_meant);
            sandbox.draining = draining;
            ended.extend(drained);
        }
        self.lead_again(&name).await;
        self.release(ended).await.done().await;
        self.ports(&name)
    }

    /// The published and exposed ports of a sandbox.
    pub fn ports(&self, key: &str) -> Result<types::Ports> {
        let name = self.state.sandbox_name(key)?;
        let sandbox = &self.state.sandboxes[&name];
        Ok(show(&sandbox.published, &sandbox.exposed, |_| true))
    }

    /// The published ports that lead to the endpoint at a port: those on addresses of a family that enters
    /// there, or of one that has no entrance, and is relayed.
    pub(crate) fn show_ports_at(&self, sandbox: &str, port: PortId) -> types::Ports {
        let Some(sandbox_of) = self.state.sandboxes.get(sandbox) else { return types::Ports::new() };
        let by = |family| self.entrance(sandbox, family).map(|(endpoint, _)| endpoint.port);
        let [v4, v6] = Family::ALL.map(by);
        show(&sandbox_of.published, &[], |host| {
            let (own, other) = if host.is_ipv4() { (v4, v6) } else { (v6, v4) };
            own.or(other) == Some(port)
        })
    }

    /// Publishes what a new sandbox wishes, once it has its endpoints.
    pub(crate) async fn grant(&mut self, name: &str, wishes: Wishes) -> Result<()> {
        self.state.sandbox(name)?.exposed = wishes.exposed;
        self.publish_all_of(name, &wishes.specs).await
    }

    /// Publishes all of these, or none.
    async fn publish_all_of(&mut self, name: &str, specs: &[Spec]) -> Result<()> {
        let before = self.state.sandbox(name)?.published.len();
        let mut outcome = Ok(());
        for spec in specs {
            outcome = self.claim(name, spec).await;
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = self.lead(name).await;
        }
        if outcome.is_err() {
            let added = self.state.sandbox(name)?.published.split_off(before);
            self.lead_again(name).await;
            self.release(added).await.done().await;
        }
        outcome
    }

    /// Claims what is wanted and notes it as published.
    async fn claim(&mut self, name: &str, spec: &Spec) -> Result<()> {
        let preferred = self.entrance(name, Family::V4).map(|(_, network)| network.options.host_binding);
        let preferred = preferred.filter(|address| !address.is_unspecified()).map(IpAddr::from);
        for want in wants(spec, preferred).map_err(invalid)? {
            let published = self.choose(want).await?;
            self.state.sandbox(name)?.published.push(published);
        }
        Ok(())
    }

    /// Claims what is wanted.
    async fn choose(&self, want: Want) -> Result<Published> {
        match want.choice {
            Choice::Exactly(ports) => {
                let published = want.with(ports);
                self.refuse_published(&published)?;
                self.claims.take(published).await?;
                Ok(published)
            }
            Choice::From(pool) => {
                for port in pool.first..=pool.last {
                    let published = want.with(spec::Ports::one(port));
                    if self.refuse_published(&published).is_err() {
                        continue;
                    }
                    match self.claims.take(published).await {
                        Err(error) if error.code == Code::PortInUse => {}
                        outcome => return outcome.map(|()| published),
                    }
                }
                let place = want.with(pool).place();
                let message = format!("Bind for {place} failed: all ports are allocated: choose other ports");
                Err(Error::new(Code::PortInUse, message))
            }
            Choice::Any => self.claims.take_any(want).await,
        }
    }

    fn refuse_published(&self, wanted: &Published) -> Result<()> {
        for (name, sandbox) in self.state.sandboxes.iter() {
            if sandbox.published.iter().chain(&sandbox.draining).any(|one| one.overlaps(wanted)) {
                let place = wanted.place();
                let message = format!(
                    "Bind for {place} failed: port is already allocated: sandbox {name:?} publishes it, choose \
                     another port"
                );
                return Err(Error::new(Code::PortInUse, message));
            }
        }
        Ok(())
    }

    /// Gives up the claims of ports that are published no longer.
    pub(crate) async fn release(&mut self, published: Vec<Published>) -> Cleanup {
        let mut cleanup = Cleanup::default();
        let was = |binding: &Binding| published.iter().any(|one| one.binds(binding));
        let closed = |key: &Key| matches!(key, Key::Closed(binding) if was(binding));
        if let Err(error) = self.link.remove_where(closed).await {
            tracing::warn!("the datapath could not forget a published port: {error}");
        }
        for one in published.iter().filter_map(Published::relayed) {
            if let Err(error) = self.close_sockets(one).await {
                tracing::warn!("the datapath could not close a published port: {error}");
            }
        }
        cleanup.close(published.iter().filter_map(|one| self.claims.release(one)).collect());
        cleanup
    }

    /// Has published ports lead where they are to lead now.
    pub(crate) async fn lead_again(&mut self, name: &str) {
        if let Err(error) = self.lead(name).await {
            tracing::warn!("published ports of sandbox {name:?} may lead nowhere now: {error}");
        }
    }

    async fn lead(&mut self, name: &str) -> Result<()> {
        let Some(sandbox) = self.state.sandboxes.get(name) else { return Ok(()) };
        let targets: Vec<Target> =
            Family::ALL.into_iter().filter_map(|family| self.target(name, family)).collect();
        let claimed = |published: &[Published]| -> Vec<Published> {
            published.iter().filter(|one| self.claims.holds(one)).copied().collect()
        };
        let (claimed, draining) = (claimed(&sandbox.published), claimed(&sandbox.draining));
        let bindings = |one: &Published| one.bindings(sandbox.number, &targets);
        let closed: Vec<Binding> = draining.iter().flat_map(bindings).collect();
        let wanted = claimed.iter().flat_map(bindings).chain(closed.iter().copied()).collect();
        // Packets that are no longer translated come in at the socket, and packets that are now do not.
        for one in claimed.iter().chain(&draining) {
            let has = |is_v4: bool| bindings(one).iter().any(|binding| binding.host.is_ipv4() == is_v4);
            self.claims.set_translated(one, Families { v4: has(true), v6: has(false) });
        }
        let number = sandbox.number;
        self.bind(number, wanted).await?;
        self.close(closed).await?;
        self.relay(&draining, Targets { established: Established::GoOn, ..Targets::default() }).await?;
        let relayed = self.relay_targets(name);
        self.relay(&claimed, relayed).await
    }

    /// Has a sandbox have these bindings and no others.
    pub(crate) async fn bind(&self, sandbox: u16, mut wanted: Vec<Binding>) -> Result<()> {
        let down = |error| Error::new(Code::Internal, format!("cannot publish ports: {error}"));
        let known = self.link.bindings().await;
        for binding in known.into_iter().filter(|binding| binding.sandbox == u32::from(sandbox)) {
            match wanted.iter().position(|one| *one == binding) {
                Some(index) => drop(wanted.remove(index)),
                None => self.link.remove(Key::Binding(binding)).await.map_err(down)?,
            }
        }
        for binding in wanted {
            self.link.set(Fact::Binding(binding)).await.map_err(down)?;
        }
        Ok(())
    }

    /// After a start: takes up or claims again what is published, and has the datapath know just that.
    pub(crate) async fn restore_published(&mut self) {
        let mut kept = self.keep_published_sockets().await;
        for sandbox in self.state.sandboxes.values() {
            for published in sandbox.published.iter().chain(&sandbox.draining) {
                if self.claims.holds(published) {
                    continue;
                }
                if let Some(sockets) = published.relayed().and_then(|relayed| kept.remove(&relayed)) {
                    self.claims.take_up(*published, sockets);
                }
            }
        }
        for (name, _, error) in self.claim_missing().await {
            tracing::warn!("a published port of sandbox {name:?} leads nowhere: {error}; it is tried again");
        }
        for name in self.state.sandboxes.keys().cloned().collect::<Vec<_>>() {
            self.lead_again(&name).await;
        }
        let numbers: Vec<u32> = self.state.sandboxes.values().map(|sandbox| sandbox.number.into()).collect();
        let known = self.link.bindings().await;
        for binding in known.into_iter().filter(|binding| !numbers.contains(&binding.sandbox)) {
            if let Err(error) = self.link.remove(Key::Binding(binding)).await {
                tracing::warn!("the datapath could not forget a published port: {error}");
            }
        }
    }

    /// Claims published ports that are not, and leads them where they are to lead. Says which still are not.
    pub(crate) async fn claim_missing(&mut self) -> Vec<(String, Published, Error)> {
        let mut missing = Vec::new();
        for (name, sandbox) in self.state.sandboxes.clone() {
            let all = [sandbox.published, sandbox.draining].concat();
            let lacking: Vec<_> = all.into_iter().filter(|one| !self.claims.holds(one)).collect();
            for published in &lacking {
                if let Err(error) = self.claims.take(*published).await {
                    missing.push((name.clone(), *published, error));
                }
            }
            if lacking.iter().any(|one| self.claims.holds(one)) {
                self.lead_again(&name).await;
            }
        }
        missing
    }

    /// Sockets of published ports that the datapath has. Sockets that nobody publishes, or that a control
    /// died over handing over, are closed.
    async fn keep_published_sockets(&self) -> BTreeMap<Relayed, Vec<Arc<OwnedFd>>> {
        let sandboxes = self.state.sandboxes.values();
        let published = sandboxes.flat_map(|sandbox| sandbox.published.iter().chain(&sandbox.draining));
        let published: Vec<Relayed> = published.filter_map(Published::relayed).collect();
        let mut kept = self.link.sockets().await;
        let gone = kept.extract_if(.., |relayed, sockets| {
            !published.contains(relayed) || sockets.len() != relayed.count()
        });
        for (relayed, _) in gone.collect::<Vec<_>>() {
            if let Err(error) = self.close_sockets(relayed).await {
                tracing::warn!("the datapath could not close a published port: {error}");
            }
        }
        kept
    }

    /// The endpoint by which what comes from outside enters a sandbox, and its network.
    fn entrance(&self, sandbox: &str, family: Family) -> Option<(&Endpoint, &Network)> {
        let endpoints = &self.state.sandboxes.get(sandbox)?.endpoints;
        let networks = &self.state.networks;
        let there = endpoints.iter().filter(|endpoint| endpoint.gone.is_none());
        default_route::entrance(
            family,
            there.filter_map(|endpoint| Some((endpoint, networks.get(&endpoint.network)?))),
        )
    }

    fn target(&self, sandbox: &str, family: Family) -> Option<Target> {
        let (endpoint, network) = self.entrance(sandbox, family)?;
        let address = endpoint.address(family)?.addr();
        let pool = network.pools.iter().find(|pool| pool.subnet().contains(&address));
        let gateway = pool.map(Pool::gateway)?;
        // Where no default route leads through the gateway, the container has no way back to the world.
        let leads_out = !network.internal && network.pools.gateway_of(address) == Some(gateway);
        Some(Target { network: network.number, address, gateway, keeps_client: leads_out })
    }
}

fn parse(specs: &[String]) -> Result<Vec<Spec>> {
    specs.iter().map(|text| text.parse().map_err(invalid)).collect()
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_exposed_is_published_unless_it_is_already() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let (publish, expose) =
            (texts(&["8080:80", "8000-8010:80-90/udp"]), texts(&["80", "443", "85/udp", "85"]));
        let shown = |all| {
            let wishes = Wishes::parse(&publish, &expose, all).expect("wishes");
            wishes.specs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(false), ["8080:80/tcp", "8000-8010:80-90/udp"]);
        assert_eq!(shown(true)[2..], ["443/tcp", "85/tcp"]);
        assert!(Wishes::parse(&publish, &[], true).expect("wishes").refuse_shared("other").is_err());
        assert!(Wishes::default().refuse_shared("other").is_ok());
    }
}
