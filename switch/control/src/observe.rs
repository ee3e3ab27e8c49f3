//! Observations of the datapath: forwarding tables and counters.

use std::collections::HashMap;

use vswitch_contract::reserved::{self, RELAY, TUNNELS};
use vswitch_frame::PortId;

use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::host::port::HOST;
use crate::host::uplink;
use crate::network::driver::overlay;
use crate::publish;
use crate::state::host_port::HostPort;

impl Control {
    /// The forwarding tables of one network, or of all.
    pub async fn fdb(&self, network: Option<&str>) -> Result<Vec<types::FdbEntry>> {
        let names = match network {
            Some(key) => vec![self.state.network_name(key)?],
            None => self.state.networks.keys().cloned().collect(),
        };
        let ports: HashMap<PortId, (&str, &str)> = self
            .state
            .endpoints()
            .map(|(sandbox, endpoint)| {
                (endpoint.port, (sandbox, endpoint.interface.as_deref().unwrap_or_default()))
            })
            .chain(self.host_ports().map(|(_, host)| (host.port, (HOST, host.interface.as_str()))))
            .chain(self.tunnel_ports().map(|(_, port)| (port, (overlay::NAME, ""))))
            .collect();
        let mut entries = Vec::new();
        for name in names {
            let table = self.link.table(self.state.networks[&name].number).await.map_err(|error| {
                Error::new(Code::Internal, format!("cannot read the table of network {name:?}: {error}"))
            })?;
            entries.extend(table.into_iter().map(|entry| {
                let (sandbox, interface) = ports.get(&entry.port).copied().unwrap_or_default();
                types::FdbEntry {
                    network: name.clone(),
                    mac_address: entry.mac,
                    sandbox: sandbox.to_owned(),
                    interface: interface.to_owned(),
                    port: entry.port.0,
                    fixed: entry.fixed,
                    age_ms: entry.age_ms,
                }
            }));
        }
        Ok(entries)
    }

    /// The counters of every port.
    pub fn stats(&self) -> types::Stats {
        let ports = self.endpoints().into_iter().map(|endpoint| {
            let mut counters = self.link.counters(PortId(endpoint.port));
            counters.gone |= endpoint.status == types::Status::Gone;
            types::PortStats::new(
                endpoint.sandbox,
                endpoint.network,
                endpoint.interface,
                endpoint.port,
                &counters,
            )
        });
        let host_ports = self.host_ports().map(|(network, host)| {
            let counters = self.link.counters(host.port);
            let (network, interface) = (network.to_owned(), host.interface.clone());
            types::PortStats::new(HOST.to_owned(), network, interface, host.port.0, &counters)
        });
        let mut uplinks = self.link.uplink_names();
        let there = uplinks.clone();
        let chosen = (0..).zip(self.uplinks.iter().cloned());
        for (place, name) in chosen {
            uplinks.entry(place).or_insert(name);
        }
        let uplinks = uplinks.into_iter().map(|(place, interface)| {
            let port = reserved::uplink(place);
            let mut counters = self.link.counters(port);
            counters.gone |= !there.contains_key(&place);
            types::PortStats::new(uplink::NAME.to_owned(), String::new(), interface, port.0, &counters)
        });
        let tunnels = self.tunnel_ports().map(|(network, port)| {
            let counters = self.link.counters(port);
            types::PortStats::new(
                overlay::NAME.to_owned(),
                network.to_owned(),
                String::new(),
                port.0,
                &counters,
            )
        });
        let all_tunnels = self.tunnel_ports().next().map(|_| {
            let counters = self.link.counters(TUNNELS);
            let name = overlay::NAME_OF_ALL.to_owned();
            types::PortStats::new(name, String::new(), String::new(), TUNNELS.0, &counters)
        });
        let publishes = self.state.sandboxes.values().any(|sandbox| !sandbox.published.is_empty());
        let relays = publishes.then(|| {
            let (name, counters) = (publish::RELAYS.to_owned(), self.link.counters(RELAY));
            types::PortStats::new(name, String::new(), String::new(), RELAY.0, &counters)
        });
        let ports = ports.chain(host_ports).chain(tunnels).chain(all_tunnels).chain(uplinks).chain(relays);
        let datapath = types::DatapathStats { pid: self.link.datapath_pid(), restarts: self.link.restarts() };
        types::Stats { datapath, ports: ports.collect() }
    }

    /// The port of every tunnel, with the name of its network.
    fn tunnel_ports(&self) -> impl Iterator<Item = (&str, PortId)> {
        let networks = self.state.networks.iter();
        networks.filter_map(|(name, network)| Some((name.as_str(), network.overlay.as_ref()?.port)))
    }

    /// Every host port, with the name of its network.
    fn host_ports(&self) -> impl Iterator<Item = (&str, &HostPort)> {
        let networks = self.state.networks.iter();
        networks.filter_map(|(name, network)| Some((name.as_str(), network.host_port.as_ref()?)))
    }
}
