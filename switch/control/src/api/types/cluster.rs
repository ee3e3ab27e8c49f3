//! The cluster, as one of its hosts sees it.

use serde::{Deserialize, Serialize};

/// Query of `DELETE /cluster/hosts/ID`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetQuery {
    /// Whether to do so even where most of the other hosts are not reached.
    #[serde(default)]
    pub force: bool,
}

/// The cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The identifier of the host that is asked.
    #[serde(rename = "HostID")]
    pub id: String,
    /// Its hosts, in the order of their identifiers.
    pub hosts: Vec<ClusterHost>,
    /// The number of records this host knows.
    pub records: usize,
}

/// A host of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterHost {
    /// Its identifier, which no other host has.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// The address that its tunnels end at.
    #[serde(rename = "VTEP")]
    pub vtep: String,
    /// `self`, `up` or `down`.
    pub state: String,
    /// Its endpoints on networks of the cluster.
    pub endpoints: usize,
}
