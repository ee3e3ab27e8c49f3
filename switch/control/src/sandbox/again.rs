//! Making again what a sandbox had: after a start, or when its container is attached again.

use vswitch_sys::netns::{NetNs, run_in};

use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result, failed};
use crate::network::options::EndpointOptions;
use crate::publish::Wishes;
use crate::sandbox::announce;
use crate::sandbox::endpoints::{Reservation, Source};
use crate::sandbox::interface::{self, Made};
use crate::state::{Endpoint, Place, Sandbox};

impl Sandbox {
    /// Whether it was attached and is, or some of its interfaces are, gone.
    pub(crate) fn is_away(&self) -> bool {
        let lost = || self.endpoints.iter().any(|endpoint| endpoint.gone.is_some());
        !self.made && (self.gone.is_some() || lost())
    }
}

impl Control {
    /// Attaches a container in the place of one that is gone, under its name: with its addresses, published
    /// ports and networks, and what else is asked for now. Returns a warning, if there is one.
    pub(crate) async fn attach_again(
        &mut self,
        name: &str,
        network: &str,
        (place, source): (Option<Place>, Source),
        config: types::EndpointConfig,
        wishes: Wishes,
    ) -> Result<Option<String>> {
        self.refuse_another(name, network, place.as_ref(), &config)?;
        let options = EndpointOptions::parse(&config.driver_opts, &self.state.networks[network].options)?;
        let before = self.state.sandboxes[name].clone();
        let sandbox = self.state.sandbox(name)?;
        (sandbox.place, sandbox.gone) = (place, None);
        for endpoint in sandbox.endpoints.iter_mut().filter(|endpoint| endpoint.network == network) {
            endpoint.interface = options.interface.clone().or_else(|| endpoint.interface.take());
            (endpoint.port_type, endpoint.sysctls) = (options.port_type, options.sysctls.clone());
            (endpoint.aliases, endpoint.priority) = (config.aliases.clone(), config.gw_priority);
        }
        match self.take_up(name, source, wishes).await {
            Ok(warning) => Ok(warning),
            Err(error) => {
                self.undo_again(name, before).await;
                Err(error)
            }
        }
    }

    /// Makes the endpoints again that are gone, and publishes what is wished for beside what is published.
    async fn take_up(&mut self, name: &str, source: Source, mut wishes: Wishes) -> Result<Option<String>> {
        let gone = self.state.sandboxes[name].endpoints.iter().filter(|endpoint| endpoint.gone.is_some());
        let gone: Vec<Endpoint> = gone.cloned().collect();
        let mut warning = None;
        for endpoint in &gone {
            let one = match &source {
                Source::Namespace(netns) => self.make_again(name, endpoint, netns).await?,
                Source::Descriptor(foreign) => {
                    let made = interface::adopt(*foreign)?;
                    self.hand_over_again(name, endpoint, Reservation::of(endpoint), made).await?
                }
            };
            warning = warning.or(one);
        }
        let routes = self.default_routes(name, None);
        self.settle(name, &routes).await?;
        let published = self.state.sandboxes[name].published.clone();
        wishes.specs.retain(|spec| !published.iter().any(|one| one.is_of(spec)));
        self.grant(name, wishes).await?;
        self.lead_again(name).await;
        for endpoint in &gone {
            let announcements = self.state.networks[&endpoint.network].options.announcements;
            announce::start(self.link.clone(), endpoint.port, announcements);
        }
        Ok(warning)
    }

    /// Lets go again of what was made for a sandbox that then could not be attached again.
    async fn undo_again(&mut self, name: &str, before: Sandbox) {
        let gone = before.endpoints.iter().filter(|endpoint| endpoint.gone.is_some());
        let ports: Vec<_> = gone.map(|endpoint| endpoint.port).collect();
        if let Some(sandbox) = self.state.sandboxes.get_mut(name) {
            (sandbox.place, sandbox.gone) = (before.place, before.gone);
            for (endpoint, before) in sandbox.endpoints.iter_mut().zip(before.endpoints) {
                // An address that was taken back stays so.
                let addresses = std::mem::take(&mut endpoint.addresses);
                *endpoint = Endpoint { addresses, ..before };
            }
        }
        self.lead_again(name).await;
        self.remove_ports(&ports).await;
    }

    /// Refuses what asks for another container than the one that was there.
    fn refuse_another(
        &self,
        name: &str,
        network: &str,
        place: Option<&Place>,
        config: &types::EndpointConfig,
    ) -> Result<()> {
        let sandbox = &self.state.sandboxes[name];
        let refusal = |what: &str| {
            let message = format!("sandbox {name:?} is gone, and {what}: detach it first");
            Err(Error::new(Code::NameInUse, message))
        };
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network == network) else {
            return refusal(&format!("was not on network {network:?}"));
        };
        if sandbox.place.is_some() != place.is_some() {
            return refusal("was attached in another way");
        }
        let same = |known: &Place| place.is_some_and(|place| place.identity.is(&known.identity));
        if sandbox.gone.is_none() && sandbox.place.as_ref().is_some_and(|known| !same(known)) {
            let message = format!(
                "sandbox with name {name} already exists, in another network namespace: choose another name"
            );
            return Err(Error::new(Code::NameInUse, message));
        }
        let asked = [config.ipam_config.ipv4_address, config.ipam_config.ipv6_address];
        let other = asked
            .into_iter()
            .flatten()
            .find(|asked| !endpoint.addresses.iter().any(|known| known.addr() == *asked));
        if let Some(other) = other {
            return refusal(&format!("had not the address {other}"));
        }
        match config.mac_address.filter(|mac| *mac != endpoint.mac) {
            Some(mac) => refusal(&format!("had not the MAC address {mac}")),
            None => Ok(()),
        }
    }

    /// Makes the interface of an endpoint again, in this namespace. Returns a warning, if there is one.
    pub(crate) async fn make_again(
        &mut self,
        sandbox: &str,
        endpoint: &Endpoint,
        netns: &NetNs,
    ) -> Result<Option<String>> {
        if let Some(interface) = &endpoint.interface {
            let removed = run_in(netns, || interface::remove_leftover(interface, endpoint.mac));
            removed.map_err(|error| failed("enter the network namespace", &error))??;
        }
        let options = EndpointOptions {
            interface: endpoint.interface.clone(),
            port_type: endpoint.port_type,
            sysctls: endpoint.sysctls.clone(),
            ..EndpointOptions::default()
        };
        let reserved = Reservation::of(endpoint);
        let made = self.make_interface(&endpoint.network, &reserved, netns, &options, endpoint.id).await?;
        self.hand_over_again(sandbox, endpoint, reserved, made).await
    }

    /// Hands an interface that was made again to the datapath; then its endpoint is there. Returns a warning,
    /// if there is one.
    async fn hand_over_again(
        &mut self,
        sandbox: &str,
        endpoint: &Endpoint,
        mut reserved: Reservation,
        made: Made,
    ) -> Result<Option<String>> {
        let warning = self.go_without_ipv6(sandbox, &endpoint.network, &mut reserved, &made);
        let mut there = Endpoint { addresses: reserved.addresses, gone: None, ..endpoint.clone() };
        there.interface.clone_from(&made.name);
        let known = self.state.sandbox(sandbox)?.endpoints.iter_mut().find(|known| known.id == endpoint.id);
        known.into_iter().for_each(|known| known.clone_from(&there));
        let gateways = self.default_routes(sandbox, None).gateways_of(endpoint.port);
        self.hand_over(sandbox, &there, gateways, made).await?;
        Ok(warning)
    }
}
