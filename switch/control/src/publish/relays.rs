//! Published ports as the datapath's relays know them: the sockets that hold them, and where their clients
//! lead.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vswitch_cluster::family::Family;
use vswitch_contract::fact::{Change, Fact, Held, Key};
use vswitch_contract::relay::{CHUNK, Relayed, Target, Targets, Transport};

use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::link::LinkError;
use crate::network::ipam::Pool;
use crate::publish::claims::{is_large, warn_unserved};
use crate::publish::published::Published;
use crate::publish::spec::{Ports, Protocol};

impl Published {
    /// The range as relays know it. There are none for SCTP.
    pub(crate) fn relayed(&self) -> Option<Relayed> {
        let transport = match self.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => return None,
        };
        let Self { host, host_ports: Ports { first, last }, container_port, .. } = *self;
        Some(Relayed { transport, host, first, last, container_port })
    }
}

impl Control {
    /// Has the clients at the sockets of published ports lead to the targets. The datapath is given sockets
    /// that it has not.
    pub(crate) async fn relay(&self, published: &[Published], targets: Targets) -> Result<()> {
        for one in published {
            let Some((relayed, sockets)) = one.relayed().zip(self.claims.sockets(one)) else { continue };
            match self.link.change(relay(relayed, &sockets, targets)).await.map_err(refusal) {
                Err(error) if error.code == Code::LimitReached && is_large(one) => warn_unserved(one, &error),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Has the datapath close the sockets of a published range.
    pub(crate) async fn close_sockets(&self, relayed: Relayed) -> std::result::Result<(), LinkError> {
        let is_its = |key: &Key| matches!(key, Key::Sockets(of, _) | Key::Targets(of) if *of == relayed);
        self.link.remove_where(is_its).await
    }

    /// Targets of clients at the sockets of a sandbox's published ports.
    pub(crate) fn relay_targets(&self, sandbox: &str) -> Targets {
        let [v4, v6] = Family::ALL.map(|family| self.relay_target(sandbox, family));
        Targets { v4, v6, ..Targets::default() }
    }

    fn relay_target(&self, sandbox: &str, family: Family) -> Option<Target> {
        let (endpoint, network) = self.entrance(sandbox, family)?;
        let address = endpoint.address(family)?;
        let container = address.addr();
        let pool = network.pools.iter().find(|pool| pool.subnet().contains(&container))?;
        let gateway: IpAddr = Pool::gateway(pool);
        Some(Target {
            network: network.number,
            container,
            container_mac: endpoint.mac,
            gateway_mac: network.gateway_mac,
            gateway,
            prefix: address.prefix_len(),
            mtu: network.options.mtu,
            keeps_client: self.provides_default_route(sandbox, endpoint.port, gateway),
        })
    }

    /// Whether a sandbox's default route of the gateway's family leads through a port to it.
    fn provides_default_route(&self, sandbox: &str, port: vswitch_frame::PortId, gateway: IpAddr) -> bool {
        self.default_routes(sandbox, None).gateways_of(port).contains(&gateway)
    }
}

/// The sockets of a published range by pages, and where they lead.
fn relay(relayed: Relayed, sockets: &[Arc<OwnedFd>], targets: Targets) -> Vec<Change> {
    let pages = (0..).zip(sockets.chunks(CHUNK));
    let pages = pages.map(|(page, fds)| Held { fact: Fact::Sockets(relayed, page), fds: fds.to_vec() });
    pages.chain([Fact::Targets(relayed, targets).into()]).map(Change::Set).collect()
}

fn refusal(error: LinkError) -> Error {
    match error {
        LinkError::Refused(why) => Error::new(Code::LimitReached, why),
        LinkError::Down(_) => Error::new(Code::Internal, format!("cannot publish ports: {error}")),
    }
}
