//! Open vSwitch's userspace datapath on veth pairs, with a private database and private sockets.
//!
//! It reads and writes the veth's far end through packet sockets and knows nothing of super-frames unless
//! its experimental TSO is enabled; without that the containers have to finish every frame themselves.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use vswitch_sys::netlink::{Netlink, VethPeer};
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::{Process, plug_in};

use super::who::{Peer, Who};
use super::{Contender, address, containers, directory};
use crate::error::BenchError;
use crate::process::Program;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const MEND: &str = "apt-get install openvswitch-switch ethtool";

pub(super) fn contender(tso: bool) -> Result<Contender, BenchError> {
    if !Path::new(SCHEMA).exists() {
        return Err(BenchError::missing("Open vSwitch", MEND));
    }
    let peer = if tso { Peer::OvsTso } else { Peer::Ovs };
    let ovs = Ovs { host: NetNs::anonymous()?, dir: directory(&Who::Peer(peer).to_string())? };
    let database = ovs.start_database(tso)?;
    let switch = ovs.spawn("ovs-vswitchd", &[&ovs.remote("unix"), "--log-file", "-vconsole:off"])?;
    ovs.configure(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;

    let (containers, places) = containers()?;
    let mut netlink = run_in(&ovs.host, Netlink::open)??;
    for ((number, container), port) in (0..).zip(&containers).zip(["port0", "port1"]) {
        netlink.create_veth(port, VethPeer { name: "eth0", netns: Some(container.as_fd()) })?;
        netlink.set_up(port)?;
        ovs.configure(&["add-port", "br0", port])?;
        plug_in(container, address(number))?;
        if !tso {
            Program::new(container, "ethtool", ["-K", "eth0", "tx", "off"], MEND)?.run("")?;
        }
    }
    let [from, to] = containers;
    Ok(Contender {
        who: Who::Peer(peer),
        places,
        _programs: vec![switch, database],
        _namespaces: vec![ovs.host, from, to],
    })
}

struct Ovs {
    host: NetNs,
    dir: PathBuf,
}

impl Ovs {
    fn start_database(&self, tso: bool) -> Result<Process, BenchError> {
        let file = self.dir.join("conf.db");
        let file = file.to_string_lossy();
        self.program("ovsdb-tool", &["create", &file, SCHEMA])?.run("")?;
        let remote = format!("--remote={}", self.remote("punix"));
        let database = self.spawn("ovsdb-server", &[&file, &remote, "--log-file", "-vconsole:off"])?;
        self.configure(&["--retry", "--no-wait", "init"])?;
        let setting = format!("other_config:userspace-tso-enable={tso}");
        self.configure(&["--no-wait", "set", "Open_vSwitch", ".", &setting])?;
        Ok(database)
    }

    fn remote(&self, kind: &str) -> String {
        format!("{kind}:{}", self.dir.join("db.sock").display())
    }

    fn configure(&self, arguments: &[&str]) -> Result<(), BenchError> {
        let database = format!("--db={}", self.remote("unix"));
        let arguments = [&["--timeout=10", database.as_str()], arguments].concat();
        self.program("ovs-vsctl", &arguments)?.run("")?;
        Ok(())
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Process, BenchError> {
        self.program(name, arguments)?.spawn()
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<Program, BenchError> {
        let mut program = Program::new(&self.host, name, arguments.iter().copied(), MEND)?;
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            program.env(variable, &self.dir);
        }
        Ok(program)
    }
}
