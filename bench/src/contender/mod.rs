//! Contenders: the switch and its peers, each with two containers of its own.
//!
//! A contender lives in a host namespace and two container namespaces that have no names, and its programs
//! are killed when this process ends: the kernel cleans up, however that happens.

mod bridge;
mod docker_rules;
pub mod local;
pub mod outside;
pub mod overlay;
mod ovs;
mod start;
pub mod switch;
pub mod who;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use vswitch_sys::netns::NetNs;
use vswitch_traffic::{KernelBridge, Place, Process, place};

use self::who::{Peer, Who};
use crate::error::BenchError;

/// A contender, set up and running.
#[derive(Debug)]
pub struct Contender {
    /// Its name.
    pub who: Who,
    /// Its two containers: the source and the target of a measurement.
    pub places: [Place; 2],
    /// Programs that keep it running; they end before the namespaces they are in.
    _programs: Vec<Process>,
    _namespaces: Vec<NetNs>,
}

impl Contender {
    /// A bridge of the kernel's as a contender.
    fn on_bridge(peer: Peer, bridge: KernelBridge) -> Self {
        let [from, to] = bridge.containers;
        Self {
            who: Who::Peer(peer),
            places: bridge.places,
            _programs: Vec::new(),
            _namespaces: vec![bridge.host, from, to],
        }
    }
}

/// Makes a directory for a contender's files, on the stage.
fn directory(name: &str) -> io::Result<PathBuf> {
    let path = Path::new("/run").join(name.replace(' ', "-"));
    fs::create_dir(&path)?;
    Ok(path)
}

/// The address of a container, by its number, in the network of all contenders but Docker's.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, 2 + number).into()
}

/// Two containers with nothing in them yet.
fn containers() -> Result<([NetNs; 2], [Place; 2]), BenchError> {
    let [from, to] = [NetNs::anonymous()?, NetNs::anonymous()?];
    let places = [place(&from, address(0)), place(&to, address(1))];
    Ok(([from, to], places))
}
