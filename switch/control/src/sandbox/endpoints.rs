//! Endpoints: connecting a sandbox to a network and disconnecting it.
//!
//! Connecting reserves what the endpoint is to have, makes its interface, hands the descriptor to the
//! datapath, and only then is the endpoint there. A failure at any step gives back what was reserved
//! and destroys what was made. Whoever comes or goes, the default routes of the sandbox are chosen anew
//! among the endpoints it has then.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_cluster::id::Id;
use vswitch_contract::fact::{Fact, Held, Key};
use vswitch_contract::network::Station;
use vswitch_contract::port::PortSpec;
use vswitch_contract::reserved::PORTS_FREE;
use vswitch_frame::{Accepts, Mac, PortId};
use vswitch_sys::netns::NetNs;
use vswitch_sys::random;

use crate::api::types;
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::link::LinkError;
use crate::names;
use crate::network::describe;
use crate::network::options::{EndpointOptions, PortType};
use crate::sandbox::announce;
use crate::sandbox::default_route;
use crate::sandbox::default_route::DefaultRoutes;
use crate::sandbox::interface::{self, FarSide, Made, Wish};
use crate::state::overlay::Overlay;
use crate::state::{Endpoint, Network};

/// The source of a new endpoint's frames.
#[derive(Debug)]
pub enum Source {
    /// An interface to be made in this namespace.
    Namespace(NetNs),
    /// A descriptor another process made.
    Descriptor(types::ForeignFd),
}

/// Grants to an endpoint that is not there yet.
pub(crate) struct Reservation {
    port: PortId,
    mac: Mac,
    pub(crate) addresses: Vec<IpNet>,
    /// Whether the IPv6 address was asked for.
    needs_ipv6: bool,
}

impl Reservation {
    /// Grants to an endpoint that is there no longer.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let addresses = endpoint.addresses.clone();
        Self { port: endpoint.port, mac: endpoint.mac, addresses, needs_ipv6: false }
    }
}

impl Control {
    /// Connects a sandbox to a network.
    pub async fn connect(&mut self, network: &str, wish: types::Connect) -> Result<types::Endpoint> {
        let sandbox = self.state.sandbox_name(&wish.container)?;
        self.join(network, &sandbox, wish.endpoint_config).await?;
        let endpoints = &self.state.sandboxes[&sandbox].endpoints;
        let index = endpoints.len() - 1;
        Ok(self.show_endpoint(&sandbox, &endpoints[index]))
    }

    /// Connects a sandbox to a network. Returns a warning for whoever asked for it, if there is one.
    pub(crate) async fn join(
        &mut self,
        network: &str,
        sandbox: &str,
        config: types::EndpointConfig,
    ) -> Result<Option<String>> {
        self.need_network(network).await?;
        let network = self.state.network_name(network)?;
        self.state.sandboxes[sandbox].mode.check_own(sandbox)?;
        let netns = self.state.sandboxes[sandbox].open(sandbox)?;
        self.add_endpoint(&network, sandbox, Source::Namespace(netns), config).await
    }

    /// Disconnects a sandbox from a network.
    pub async fn disconnect(&mut self, network: &str, sandbox: &str) -> Result<Cleanup> {
        let network = self.state.network_name(network)?;
        let name = self.state.sandbox_name(sandbox)?;
        self.state.sandboxes[&name].mode.check_own(&name)?;
        let sandbox = self.state.sandbox(&name)?;
        let index = sandbox.endpoints.iter().position(|endpoint| endpoint.network == network);
        let index = index.ok_or_else(|| {
            let message =
                format!("sandbox {name:?} is not connected to network {network:?}: see \"vswitch ps\"");
            Error::new(Code::NotConnected, message)
        })?;
        let endpoint = sandbox.endpoints.remove(index);
        Ok(self.take_out(&name, endpoint).await)
    }

    /// Removes an endpoint that its sandbox no longer has, after handing over its default routes.
    async fn take_out(&mut self, sandbox: &str, leaving: Endpoint) -> Cleanup {
        let routes = self.default_routes(sandbox, None);
        let routes = routes.without(&leaving, &self.state.networks[&leaving.network]);
        if let Err(error) = self.settle(sandbox, &routes).await {
            tracing::warn!("sandbox {sandbox:?} may be without a default route now: {error}");
        }
        self.lead_again(sandbox).await;
        self.remove_endpoint(leaving).await
    }

    /// Makes an endpoint. Returns a warning for whoever asked for it, if there is one.
    pub(crate) async fn add_endpoint(
        &mut self,
        network: &str,
        sandbox: &str,
        source: Source,
        config: types::EndpointConfig,
    ) -> Result<Option<String>> {
        let network_options = &self.state.networks[network].options;
        let options = EndpointOptions::parse(&config.driver_opts, network_options)?;
        config.aliases.iter().try_for_each(|alias| names::check("sandbox", alias))?;
        if self.state.sandbox(sandbox)?.endpoints.iter().any(|endpoint| endpoint.network == network) {
            let message = format!(
                "sandbox {sandbox:?} is already connected to network {network:?}: disconnect it first"
            );
            return Err(Error::new(Code::AlreadyConnected, message));
        }
        let mut reserved = self.reserve(network, &config, options.mac)?;
        let announcements = options.announcements;
        let made = self.make_endpoint(network, sandbox, &mut reserved, source, options, config).await;
        let (endpoint, warning) = match made {
            Ok(made) => made,
            Err(error) => {
                self.state.forget_endpoint(network, reserved.port, reserved.mac, &reserved.addresses);
                return Err(error);
            }
        };
        let routes = self.default_routes(sandbox, Some(&endpoint));
        if let Err(error) = self.settle(sandbox, &routes).await {
            self.take_out(sandbox, endpoint).await.done().await;
            return Err(error);
        }
        self.state.sandbox(sandbox)?.endpoints.push(endpoint);
        self.lead_again(sandbox).await;
        announce::start(self.link.clone(), reserved.port, announcements);
        Ok(warning)
    }

    /// The default routes of a sandbox with the endpoints it has and the one that `joins`.
    pub(crate) fn default_routes(&self, sandbox: &str, joins: Option<&Endpoint>) -> DefaultRoutes {
        let sandbox = self.state.sandboxes.get(sandbox);
        let endpoints = sandbox.map(|sandbox| sandbox.endpoints.as_slice()).unwrap_or_default();
        let endpoints = endpoints.iter().filter(|endpoint| endpoint.gone.is_none()).chain(joins);
        DefaultRoutes::of(endpoints.map(|endpoint| (endpoint, &self.state.networks[&endpoint.network])))
    }

    /// Gives a sandbox its default routes, and tells the datapath which endpoints provide them.
    pub(crate) async fn settle(&mut self, name: &str, routes: &DefaultRoutes) -> Result<()> {
        let Some(sandbox) = self.state.sandboxes.get(name) else { return Ok(()) };
        let set = match &sandbox.place {
            Some(_) => sandbox.open(name).and_then(|netns| default_route::set_default_routes(&netns, routes)),
            None => Ok(()),
        };
        for endpoint in &sandbox.endpoints {
            let station = describe::station(name, sandbox, endpoint, routes.gateways_of(endpoint.port));
            if let Err(error) = self.set_station(endpoint.port, station).await {
                tracing::warn!(
                    port = endpoint.port.0,
                    "the datapath was not told who is behind a port: {error}"
                );
            }
        }
        set
    }

    /// Says anew who is behind a port, if it is there.
    async fn set_station(&self, port: PortId, station: Station) -> std::result::Result<(), LinkError> {
        let told = self.link.facts(|facts| facts.get(&Key::Port(port)).map(|held| held.fact.clone())).await;
        match told {
            Some(Fact::Port(_, spec)) => self.link.set(Fact::Port(port, PortSpec { station, ..spec })).await,
            _ => Ok(()),
        }
    }

    /// Removes an endpoint that its sandbox no longer has.
    pub(crate) async fn remove_endpoint(&mut self, endpoint: Endpoint) -> Cleanup {
        if let Err(error) = self.link.remove(Key::Port(endpoint.port)).await {
            tracing::warn!(port = endpoint.port.0, "the datapath could not remove a port: {error}");
        }
        self.state.forget_endpoint(&endpoint.network, endpoint.port, endpoint.mac, &endpoint.addresses);
        let mut cleanup = Cleanup::default();
        if let Some(remains) = self.remains.remove(&endpoint.port) {
            cleanup.destroy(remains);
        }
        cleanup
    }

    fn reserve(
        &mut self,
        network: &str,
        config: &types::EndpointConfig,
        mac: Option<Mac>,
    ) -> Result<Reservation> {
        let wanted = [config.ipam_config.ipv4_address, config.ipam_config.ipv6_address];
        let wanted: Vec<IpAddr> = wanted.into_iter().flatten().collect();
        let mac = config.mac_address.or(mac);
        self.check_shared(network, &wanted, mac)?;
        let Some(port) = self.state.port_numbers.take() else {
            let message = format!("{} endpoints is the most there can be: disconnect one", PORTS_FREE);
            return Err(Error::new(Code::LimitReached, message));
        };
        let found = self.state.network(network);
        let reserved = found.and_then(|found| reserve_addresses(found, network, &wanted, mac));
        match reserved {
            Ok((mac, addresses)) => {
                let needs_ipv6 = wanted.iter().any(IpAddr::is_ipv6);
                Ok(Reservation { port: PortId(port), mac, addresses, needs_ipv6 })
            }
            Err(error) => {
                self.state.port_numbers.give_back(port);
                Err(error)
            }
        }
    }

    async fn make_endpoint(
        &mut self,
        name: &str,
        sandbox: &str,
        reserved: &mut Reservation,
        source: Source,
        options: EndpointOptions,
        config: types::EndpointConfig,
    ) -> Result<(Endpoint, Option<String>)> {
        let id = crate::names::new_id()?;
        let port_type =
            if matches!(source, Source::Descriptor(_)) { PortType::Fd } else { options.port_type };
        let made = match source {
            Source::Namespace(netns) => self.make_interface(name, reserved, &netns, &options, id).await?,
            Source::Descriptor(foreign) => {
                refuse_interface_name(&options)?;
                interface::adopt(foreign)?
            }
        };
        let warning = self.go_without_ipv6(sandbox, name, reserved, &made);
        let endpoint = Endpoint {
            id,
            network: name.to_owned(),
            port: reserved.port,
            port_type,
            interface: made.name.clone(),
            mac: reserved.mac,
            addresses: reserved.addresses.clone(),
            aliases: config.aliases,
            priority: config.gw_priority,
            sysctls: options.sysctls,
            gone: None,
        };
        let gateways = self.default_routes(sandbox, Some(&endpoint)).gateways_of(endpoint.port);
        self.hand_over(sandbox, &endpoint, gateways, made).await?;
        Ok((endpoint, warning))
    }

    /// Takes back the IPv6 address of an interface that cannot have one. Returns the warning about it.
    pub(crate) fn go_without_ipv6(
        &mut self,
        sandbox: &str,
        network: &str,
        reserved: &mut Reservation,
        made: &Made,
    ) -> Option<String> {
        let why = made.without_ipv6.as_ref()?;
        let is_v4 = |net: &IpNet| net.addr().is_ipv4();
        let (kept, given_back) = std::mem::take(&mut reserved.addresses).into_iter().partition(is_v4);
        reserved.addresses = kept;
        let given_back: Vec<IpNet> = given_back;
        if let Some(network) = self.state.networks.get_mut(network) {
            network.pools.release(&given_back);
        }
        let warning = format!("sandbox {sandbox:?} is on network {network:?} without IPv6: {why}");
        tracing::warn!("{warning}");
        Some(warning)
    }

    /// Hands the interface made for an endpoint to the datapath. If it fails nothing is left.
    pub(crate) async fn hand_over(
        &mut self,
        sandbox: &str,
        endpoint: &Endpoint,
        gateways: Vec<IpAddr>,
        made: Made,
    ) -> Result<()> {
        let (network, sandbox_of) = (&self.state.networks[&endpoint.network], &self.state.sandboxes[sandbox]);
        let spec = PortSpec {
            network: network.number,
            kind: made.kind,
            group: describe::group(network, endpoint.port),
            mtu: network.options.mtu,
            accepts: made.accepts,
            addresses: vec![endpoint.mac],
            station: describe::station(sandbox, sandbox_of, endpoint, gateways),
        };
        let told =
            match self.tell_rules().await {
                Ok(()) => self.link.set(Held::new(Fact::Port(endpoint.port, spec), [made.fd])).await.map_err(
                    |error| Error::new(Code::Internal, format!("the datapath refused the port: {error}")),
                ),
                refused => refused,
            };
        if let Err(error) = told {
            let mut cleanup = Cleanup::default();
            cleanup.destroy(made.remains);
            cleanup.done().await;
            return Err(error);
        }
        self.remains.insert(endpoint.port, made.remains);
        Ok(())
    }

    /// Makes the private namespace of veth pairs. The datapath keeps it for the control after this one, so
    /// before there is anything in it.
    async fn make_far_side(&mut self) -> Result<FarSide> {
        let made = FarSide::new().and_then(|side| Ok((side.descriptor()?, side)));
        let (fd, side) = made.map_err(|error| failed("make a private namespace", &error))?;
        self.link
            .set(Held::new(Fact::FarSide, [fd]))
            .await
            .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        Ok(side)
    }

    pub(crate) async fn make_interface(
        &mut self,
        network: &str,
        reserved: &Reservation,
        netns: &NetNs,
        options: &EndpointOptions,
        id: Id,
    ) -> Result<Made> {
        if options.port_type == PortType::Veth && self.far.is_none() {
            self.far = Some(self.make_far_side().await?);
        }
        let network = self.state.network(network)?;
        let wish = Wish {
            name: options.interface.as_deref(),
            prefix: &network.options.interface_prefix,
            mac: reserved.mac,
            mtu: network.options.mtu,
            addresses: &reserved.addresses,
            needs_ipv6: reserved.needs_ipv6,
            sysctls: &options.sysctls,
            unique: &interface::unique_name(id),
        };
        let made = interface::make(options.port_type, netns, &wish, &mut self.far)?;
        self.note_missing_offloads(made.accepts);
        Ok(made)
    }

    /// Says once what the kernel's TAPs lack: the switch does it in software then.
    pub(crate) fn note_missing_offloads(&mut self, accepts: Accepts) {
        if accepts != Accepts::ALL && !self.offloads_noted {
            self.offloads_noted = true;
            let missing = [
                (accepts.checksum, "checksum"),
                (accepts.tso4 && accepts.tso6, "TCP segmentation"),
                (accepts.uso, "UDP segmentation (Linux 6.2)"),
            ];
            let missing: Vec<&str> = missing.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect();
            tracing::warn!("TAPs of this kernel lack {}: done in software", missing.join(", "));
        }
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> Vec<types::Endpoint> {
        self.state.endpoints().map(|(sandbox, endpoint)| self.show_endpoint(sandbox, endpoint)).collect()
    }

    pub(crate) fn show_endpoint(&self, sandbox: &str, endpoint: &Endpoint) -> types::Endpoint {
        let network = &self.state.networks[&endpoint.network];
        let address = |family| endpoint.address(family).map(|net| net.addr().to_string()).unwrap_or_default();
        let prefix = |family| endpoint.address(family).map(|net| net.prefix_len()).unwrap_or_default();
        let gateway = |family| {
            let gateway = endpoint.address(family).and_then(|net| network.pools.gateway_of(net.addr()));
            gateway.map(|gateway| gateway.to_string()).unwrap_or_default()
        };
        types::Endpoint {
            sandbox: sandbox.to_owned(),
            network: endpoint.network.clone(),
            network_id: network.id.to_string(),
            endpoint_id: endpoint.id.to_string(),
            interface: endpoint.interface.clone().unwrap_or_default(),
            port_type: endpoint.port_type.label().to_owned(),
            port: endpoint.port.0,
            mac_address: endpoint.mac,
            ip_address: address(Family::V4),
            ip_prefix_len: prefix(Family::V4),
            gateway: gateway(Family::V4),
            ipv6_address: address(Family::V6),
            ipv6_prefix_len: prefix(Family::V6),
            ipv6_gateway: gateway(Family::V6),
            mtu: network.options.mtu,
            aliases: endpoint.aliases.clone(),
            gw_priority: endpoint.priority,
            status: types::Status::of(endpoint.gone.as_deref()),
            gone_since: endpoint.gone.clone().unwrap_or_default(),
            ports: self.show_ports_at(sandbox, endpoint.port),
        }
    }
}

fn reserve_addresses(
    network: &mut Network,
    name: &str,
    wanted: &[IpAddr],
    mac: Option<Mac>,
) -> Result<(Mac, Vec<IpNet>)> {
    refuse_same_elsewhere(network, name, wanted)?;
    let taken = network.pools.take(wanted);
    let addresses =
        taken.map_err(|error| Error::new(error.code, format!("network {name:?}: {}", error.message)))?;
    match choose_mac(network, name, &addresses, mac) {
        Ok(mac) => {
            network.macs.insert(mac);
            Ok((mac, addresses))
        }
        Err(error) => {
            network.pools.release(&addresses);
            Err(error)
        }
    }
}

/// Refuses to choose an address that another host would choose, too: of a network whose hosts are only
/// listed, where no range is this host's own.
fn refuse_same_elsewhere(network: &Network, name: &str, wanted: &[IpAddr]) -> Result<()> {
    let is_listed = |overlay: &Overlay| !overlay.shared && !overlay.peers.is_empty();
    if !network.overlay.as_ref().is_some_and(is_listed) {
        return Ok(());
    }
    for family in Family::ALL.into_iter().filter(|family| network.pools.has(*family)) {
        let mut pools = network.pools.iter().filter(|pool| Family::of(pool.gateway()) == family);
        let is_chosen = !wanted.iter().any(|address| Family::of(*address) == family);
        if let Some(pool) = pools.find(|pool| is_chosen && pool.plan().range.is_none()) {
            let subnet = pool.subnet();
            let message = format!(
                "network {name:?} has other hosts, which would give the same addresses of {subnet}: ask for one, \
                 or make the network with an --ip-range of {subnet} on each host, another on each"
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
    }
    Ok(())
}

/// The MAC address asked for; or one made of the IPv4 address, as Docker made them; or a random one.
fn choose_mac(network: &Network, name: &str, addresses: &[IpNet], wanted: Option<Mac>) -> Result<Mac> {
    if let Some(mac) = wanted {
        if !mac.is_station() {
            let message =
                format!("MAC address {mac} cannot be that of an interface: use one with an even first byte");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if network.macs.contains(&mac) {
            let message =
                format!("MAC address {mac} is in use on network {name:?}: choose another one, or none");
            return Err(Error::new(Code::MacInUse, message));
        }
        return Ok(mac);
    }
    let from_address = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    let mut tail = from_address.map_or_else(random::bytes, Ok);
    loop {
        let [a, b, c, d] = tail.map_err(|error| failed("draw a MAC address", &error))?;
        let mac = Mac([0x02, 0x42, a, b, c, d]);
        if !network.macs.contains(&mac) {
            return Ok(mac);
        }
        tail = random::bytes();
    }
}

fn refuse_interface_name(options: &EndpointOptions) -> Result<()> {
    let refusal = || {
        let message = "--ifname and --fd exclude each other: the interface is the other process's";
        Error::new(Code::InvalidArgument, message)
    };
    options.interface.as_ref().map_or(Ok(()), |_| Err(refusal()))
}
