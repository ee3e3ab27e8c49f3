//! Flags of `vswitch run` that make a host one of a cluster.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use clap::Args;
use vswitch_cluster::etcd::address::Address;
use vswitch_cluster::{Options, SourceOptions, gossip, host_name};

use super::etcd::Etcd;
use super::outcome::Failure;

#[derive(Debug, Args)]
pub(super) struct Join {
    /// Join the cluster that a host is in; may be repeated, and may name hosts that are not there yet
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        requires = "cluster_key_file",
        conflicts_with = "cluster"
    )]
    join: Vec<String>,
    /// The address by which the cluster's other hosts reach this one; its tunnels end there, too. That
    /// towards the first host to join if none is given; the first host of a cluster gives this and no --join
    #[arg(long, value_name = "IP[:PORT]")]
    advertise: Option<String>,
    /// The file with the key that all hosts of the cluster share; "vswitch cluster key" writes one
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    cluster_key_file: Option<PathBuf>,
    /// The name of the cluster
    #[arg(long, value_name = "NAME", default_value = "vswitch")]
    cluster_name: String,
    /// Where to listen for the cluster's other hosts, if not at the address that is advertised
    #[arg(long, value_name = "IP:PORT")]
    cluster_bind: Option<SocketAddr>,
    /// The name of this host in the cluster, if not its host name
    #[arg(long, value_name = "NAME")]
    cluster_host: Option<String>,
    #[command(flatten)]
    etcd: Etcd,
}

impl Join {
    /// The settings to take part with, if this host is to.
    pub(super) fn options(self, state_dir: &Path) -> Result<Option<Options>, Failure> {
        if let Some(address) = self.etcd.address() {
            let vtep = match &self.advertise {
                Some(advertise) => read_advertise(advertise)?.ip(),
                None => towards_etcd(address)?,
            };
            return Ok(self.etcd.options(state_dir).map(|options| Options {
                host: self.cluster_host.unwrap_or_else(host_name),
                vtep,
                name: self.cluster_name,
                source: SourceOptions::Etcd(options),
            }));
        }
        let advertise = match (&self.advertise, self.join.first()) {
            (None, None) if self.cluster_key_file.is_some() => {
                let message = "--cluster-key-file: nobody would be told where this host is: give --advertise IP, and --join HOST unless it is the first";
                return Err(Failure(message.to_owned()));
            }
            (None, None) => return Ok(None),
            (Some(advertise), _) => read_advertise(advertise)?,
            (None, Some(first)) => SocketAddr::new(towards(first)?, gossip::PORT),
        };
        let Some(key_file) = self.cluster_key_file else {
            let message = "--advertise: this host is in no cluster: give --cluster-key-file FILE, or --cluster etcd://HOST:2379";
            return Err(Failure(message.to_owned()));
        };
        Ok(Some(Options {
            host: self.cluster_host.unwrap_or_else(host_name),
            vtep: advertise.ip(),
            name: self.cluster_name,
            source: SourceOptions::Gossip(gossip::Options {
                key_file,
                join: self.join,
                advertise,
                bind: self.cluster_bind,
            }),
        }))
    }
}

fn read_advertise(text: &str) -> Result<SocketAddr, Failure> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, gossip::PORT));
    let address = address.or_else(|_| text.parse::<SocketAddr>());
    let address = address.ok().filter(|address| !address.ip().is_unspecified() && address.port() != 0);
    address.ok_or_else(|| {
        Failure(format!(
            "--advertise {text}: no address that others could reach: write one of this host, as in 192.0.2.1"
        ))
    })
}

/// The address of this host towards another one.
fn towards(host: &str) -> Result<IpAddr, Failure> {
    let unknown = |error: std::io::Error| {
        Failure(format!("--join {host}: {error}: say how others reach this host with --advertise IP"))
    };
    own_address(&gossip::with_port(host)).map_err(unknown)
}

/// The address of this host towards an etcd, which others reach if the etcd is not on this very host.
fn towards_etcd(address: &Address) -> Result<IpAddr, Failure> {
    let needed = "say how others reach this host with --advertise IP";
    let first = address.endpoints.iter().find_map(|endpoint| own_address(&endpoint.to_string()).ok());
    let first = first.ok_or_else(|| Failure(format!("--cluster: no way to any of these hosts: {needed}")))?;
    if first.is_loopback() {
        return Err(Failure(format!("--cluster: etcd is on this host: {needed}")));
    }
    Ok(first)
}

fn own_address(other: &str) -> std::io::Result<IpAddr> {
    let mut found = other.to_socket_addrs()?;
    let other = found.next().ok_or_else(|| std::io::Error::other("it has no address"))?;
    let any: SocketAddr = if other.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a datagram socket sends nothing; the kernel chooses the address.
    let socket = UdpSocket::bind(any)?;
    socket.connect(other)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_reachable() {
        let read = |text: &str| read_advertise(text).ok().map(|address| address.to_string());
        assert_eq!(read("192.0.2.1"), Some("192.0.2.1:7946".to_owned()));
        assert_eq!(read("192.0.2.1:80"), Some("192.0.2.1:80".to_owned()));
        assert_eq!(read("2001:db8::1"), Some("[2001:db8::1]:7946".to_owned()));
        for wrong in ["", "host", "0.0.0.0", "::", "192.0.2.1:0", "192.0.2.1:x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
