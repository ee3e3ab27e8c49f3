//! A place: one end of a measurement.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use vswitch_sys::netns::NetNs;

/// One end of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its network namespace: a path to open, such as `/run/netns/NAME` or `/proc/PID/fd/N`.
    pub netns: PathBuf,
    /// Its address there.
    pub address: IpAddr,
    /// The address others reach it at, where that is another one.
    pub reached_at: Option<IpAddr>,
}

impl Place {
    /// The address others reach it at.
    pub fn goal(&self) -> IpAddr {
        self.reached_at.unwrap_or(self.address)
    }
}

/// A namespace as an end of a measurement, for as long as `netns` lives.
pub fn place(netns: &NetNs, address: IpAddr) -> Place {
    Place { netns: netns_path(netns), address, reached_at: None }
}

/// A path by which other processes reach a namespace that has no name, for as long as `netns` lives.
pub fn netns_path(netns: &NetNs) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}
