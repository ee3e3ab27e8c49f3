//! `vswitch demo`.
//!
//! Everything happens on a stage: namespaces without names and a private `/run`, which the kernel takes
//! away when this process ends, however it ends. The switch is a real one, started as `vswitch run` and
//! told what to do over its control socket; the traffic is real, from this program's own generators.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use vswitch_control::api::types;
use vswitch_frame::Mac;
use vswitch_sys::netlink::{LinkChange, Netlink};
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::{KernelBridge, Place, Process};
use vswitch_traffic::{enter_stage, ping, ping_pong, start_switch, tcp, udp};

use super::client::Client;
use super::outcome::{Failure, Outcome};
use super::print::print;
use super::{fdb, table};

const CONTAINERS: [&str; 3] = ["alpha", "beta", "gamma"];
/// An address that nobody configured.
const STRANGER: Mac = Mac([0x02, 0x42, 0xc0, 0xff, 0xee, 0x01]);
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const PORT_SECURITY: &str = "vswitch.port_security";
/// The time that an answer may take that is to come.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time after which no answer is believed to come.
const SILENCE: Duration = Duration::from_millis(300);
const ROUNDS: usize = 3;
const BULK: Duration = Duration::from_millis(800);
const ROUND_TRIPS: Duration = Duration::from_millis(300);

/// Show what the switch does, on this machine, in some 15 seconds
///
/// Starts a private switch, makes three containers, lets them ping each other, shows MAC learning and
/// isolation, and measures throughput beside a kernel bridge. Needs root and nothing else; leaves nothing
/// behind.
///
/// Example: vswitch demo
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Demo;

impl Demo {
    pub(super) fn run(self) -> Outcome {
        enter_stage()?;
        let show = Show::start()?;
        let containers = show.containers()?;
        show.pings(&containers)?;
        show.learning()?;
        show.isolation(&containers)?;
        throughput(&containers)?;
        drop(show);
        print(
            "The switch, the bridge and the containers are gone again; nothing was installed or changed.\n",
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// The switch, and the means to talk to it.
struct Show {
    runtime: Runtime,
    client: Client,
    _switch: Process,
    _host: NetNs,
}

impl Show {
    fn start() -> Result<Self, Failure> {
        let socket = Path::new("/run/vswitch/control.sock");
        let host = NetNs::anonymous()?;
        let switch = start_switch(&host, socket, &socket.with_file_name("state"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print("A private switch is running, in a network namespace of its own.\n\n");
        Ok(Self { runtime, client: Client::new(socket.to_owned()), _switch: switch, _host: host })
    }

    /// Three containers on a network of their own, the last of which then takes another MAC address.
    fn containers(&self) -> Result<Vec<Place>, Failure> {
        // A container may take another MAC address only where nobody checks it.
        self.network("demo", "10.66.0.0/24", &[(PORT_SECURITY, "false")])?;
        let mut places = Vec::new();
        print("Three containers on the network \"demo\":\n\n");
        for name in CONTAINERS {
            let wish = types::NetworkWish { network: "demo".to_owned(), endpoint_config: Default::default() };
            let body = types::SandboxCreate {
                name: name.to_owned(),
                networks: Some(vec![wish]),
                ..Default::default()
            };
            let sandbox: types::Sandbox =
                self.runtime.block_on(self.client.post("/sandboxes/create", &body))?;
            let endpoint = sandbox.endpoints.first().ok_or_else(|| failure("a sandbox has no endpoint"))?;
            let address = endpoint.ip_address.parse()?;
            print(&format!("    {name:<7} {address:<11} {}\n", endpoint.mac_address));
            places.push(Place { netns: PathBuf::from(&sandbox.netns), address, reached_at: None });
        }
        let last = places.last().ok_or_else(|| failure("there are no containers"))?;
        let mut netlink = run_in(&NetNs::open(&last.netns)?, Netlink::open)??;
        netlink.change("eth0", LinkChange { mac: Some(STRANGER), ..LinkChange::default() })?;
        Ok(places)
    }

    fn network(&self, name: &str, subnet: &str, options: &[(&str, &str)]) -> Result<(), Failure> {
        let config = types::IpamConfig { subnet: Some(subnet.parse()?), ..Default::default() };
        let options = options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let body = types::NetworkCreate {
            name: name.to_owned(),
            ipam: types::Ipam { config: vec![config], ..Default::default() },
            options: options.collect::<BTreeMap<_, _>>(),
            ..Default::default()
        };
        self.runtime.block_on(self.client.command("/networks/create", &body))
    }

    fn pings(&self, containers: &[Place]) -> Result<(), Failure> {
        print("\nEach pings the others; median round trips:\n\n");
        let mut rows = Vec::new();
        for (from, name) in containers.iter().zip(CONTAINERS) {
            let mut row = vec![format!("    from {name}")];
            for to in containers {
                row.push(if to == from {
                    String::new()
                } else {
                    let report = ping(from, to.address, 10, PATIENCE)?;
                    if report.answered < report.sent {
                        return Err(failure("a ping was lost"));
                    }
                    format!("{:.0} µs", report.median_us)
                });
            }
            rows.push(row);
        }
        print(&table::render(&["", "to alpha", "to beta", "to gamma"], &rows));
        Ok(())
    }

    fn learning(&self) -> Result<(), Failure> {
        print(&format!(
            "\nMAC learning: before it pinged, gamma took the address {STRANGER}, which nobody had\n\
             configured. The switch learned from its frames where it is:\n\n"
        ));
        let entries: Vec<types::FdbEntry> = self.runtime.block_on(self.client.get("/networks/demo/fdb"))?;
        let learned = |entry: &types::FdbEntry| entry.mac_address == STRANGER && !entry.fixed;
        if !entries.iter().any(learned) {
            return Err(failure("the switch did not learn where gamma is"));
        }
        print(&indented(&fdb::show(entries)));
        Ok(())
    }

    fn isolation(&self, containers: &[Place]) -> Result<(), Failure> {
        self.network("walled", "10.67.0.0/24", &[(ENABLE_ICC, "false")])?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for name in ["alpha", "beta"] {
            let body = types::Connect { container: name.to_owned(), endpoint_config: Default::default() };
            let endpoint: types::Endpoint =
                self.runtime.block_on(self.client.post("/networks/walled/connect", &body))?;
            addresses.push(endpoint.ip_address.parse()?);
        }
        let (Some(walled), [alpha, beta, ..]) = (addresses.last(), containers) else {
            return Err(failure("there are no containers"));
        };
        let off = ping(alpha, *walled, 2, SILENCE)?;
        let on = ping(alpha, beta.address, 2, PATIENCE)?;
        print(&format!(
            "\nIsolation: alpha and beta are also on the network \"walled\", made with {ENABLE_ICC}=false.\n\n    \
             alpha pings beta on \"walled\":  {} of {} answered\n    \
             alpha pings beta on \"demo\":    {} of {} answered\n",
            off.answered, off.sent, on.answered, on.sent
        ));
        let as_it_should = off.answered == 0 && on.answered == on.sent;
        if as_it_should { Ok(()) } else { Err(failure("isolation is not what it should be")) }
    }
}

/// Measures the switch and a kernel bridge in turn.
fn throughput(containers: &[Place]) -> Result<(), Failure> {
    let [from, to, ..] = containers else { return Err(failure("there are no containers")) };
    print("\nThe same traffic across the switch and across a kernel bridge, in turn (10 seconds) ...\n\n");
    let bridge = KernelBridge::new("br0", [10, 9])?;
    let [bridge_from, bridge_to] = &bridge.places;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for _ in 0..ROUNDS {
        ours.measure(from, to)?;
        theirs.measure(bridge_from, bridge_to)?;
    }
    let row = |name: &str, ours: &mut Vec<f64>, theirs: &mut Vec<f64>, unit: &str, digits: usize| {
        let (ours, theirs) = (median(ours), median(theirs));
        let cell = |value: f64| format!("{value:.digits$} {unit}");
        vec![format!("    {name}"), cell(ours), cell(theirs), format!("{:.2}", ours / theirs)]
    };
    let rows = [
        row("TCP, one stream", &mut ours.tcp, &mut theirs.tcp, "Gb/s", 1),
        row("UDP, 18-byte datagrams received", &mut ours.udp, &mut theirs.udp, "million/s", 3),
        row("TCP round trip, one way (less is better)", &mut ours.trip, &mut theirs.trip, "µs", 1),
    ];
    print(&table::render(&["", "vswitch", "kernel bridge", "ratio"], &rows));
    print("\nThe receivers checked what they got. ");
    Ok(())
}

/// Figures that were measured, a value a round.
#[derive(Default)]
struct Figures {
    tcp: Vec<f64>,
    udp: Vec<f64>,
    trip: Vec<f64>,
}

impl Figures {
    fn measure(&mut self, from: &Place, to: &Place) -> Result<(), Failure> {
        self.tcp.push(tcp(from, to, 1, BULK)?.gigabits_per_second());
        let report = udp(from, to, 1, BULK)?;
        if report.reordered + report.duplicated + report.corrupt > 0 {
            return Err(failure(&format!("datagrams came out wrong: {report:?}")));
        }
        self.udp.push(report.millions_per_second());
        self.trip.push(ping_pong(from, to, ROUND_TRIPS)?.p50_us);
        Ok(())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn failure(what: &str) -> Failure {
    Failure(format!("the demo went wrong: {what}"))
}
