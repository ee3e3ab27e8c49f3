//! Flags of `vswitch run` for a cluster whose records are in an etcd.

use std::path::{Path, PathBuf};

use clap::Args;
use vswitch_cluster::etcd::address::Address;
use vswitch_cluster::etcd::client::Access;
use vswitch_cluster::etcd::{self, tls};

#[derive(Debug, Args)]
pub(super) struct Etcd {
    /// Keep the cluster's records in this etcd, version 3.4 or later; etcds:// for TLS
    #[arg(long, value_name = "etcd://HOST:PORT,...")]
    cluster: Option<Address>,
    /// The certificates of the authority that signed etcd's; TLS is used when this is given
    #[arg(long, value_name = "FILE", requires = "cluster")]
    cluster_ca: Option<PathBuf>,
    /// The certificate that shows etcd who this host is
    #[arg(long, value_name = "FILE", requires_all = ["cluster_key", "cluster_ca"])]
    cluster_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "cluster_cert")]
    cluster_key: Option<PathBuf>,
    /// The user of etcd
    #[arg(long, value_name = "NAME", requires = "cluster_password_file")]
    cluster_user: Option<String>,
    /// The file with the user's password
    #[arg(long, value_name = "FILE", requires = "cluster_user")]
    cluster_password_file: Option<PathBuf>,
    /// How long etcd keeps this host's records without hearing from it
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "cluster",
        value_parser = clap::value_parser!(u32).range(3..=3600),
        default_value_t = etcd::LEASE_S
    )]
    cluster_lease: u32,
}

impl Etcd {
    /// The etcd, if there is to be one.
    pub(super) fn address(&self) -> Option<&Address> {
        self.cluster.as_ref()
    }

    /// The settings to take part in it with.
    pub(super) fn options(self, state_dir: &Path) -> Option<etcd::Options> {
        let identity = self.cluster_cert.zip(self.cluster_key);
        Some(etcd::Options {
            access: Access {
                address: self.cluster?,
                tls: self.cluster_ca.map(|ca| tls::Files { ca, identity }),
                user: self.cluster_user.zip(self.cluster_password_file),
            },
            state_dir: state_dir.to_owned(),
            lease_s: self.cluster_lease,
        })
    }
}
