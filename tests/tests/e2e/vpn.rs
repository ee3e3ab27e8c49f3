//! A VPN on the host, by a real program: routes through an interface without a link layer, which containers
//! follow.
//!
//! ```text
//!  host  tun0 10.8.0.2 ── socat ══ up0 ══ down0 ══ socat ── 10.8.0.1 tun0  outside  (also 198.51.100.7)
//!        fd08::2                                            fd08::1                 (also 2001:db8:7::7)
//! ```

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use vswitch_tests::namespace::Namespace;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS};
use vswitch_tests::world::World;
use vswitch_tests::{talk, wait};

use super::VSWITCH;

const PEER: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
/// Ends of the VPN, the host's first.
const ENDS: [[&str; 2]; 2] = [["10.8.0.2", "fd08::2"], ["10.8.0.1", "fd08::1"]];
/// Halves of a default route, as VPN programs add them beside the one there is.
const HALVES: [&str; 4] = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];

/// The programs of both ends, which end with this value.
struct Vpn([Child; 2]);

impl Vpn {
    /// Makes a VPN between a host and the world beyond it. Nothing leads through it yet.
    fn between(host: &Namespace, outside: &Outside) -> Self {
        let both =
            [(host, HOST[0], ROUTERS[0], ENDS[0]), (outside.namespace(), ROUTERS[0], HOST[0], ENDS[1])];
        let programs = both.map(|(namespace, own, other, end)| {
            let tun = format!("TUN:{}/24,tun-name=tun0,tun-type=tun,iff-no-pi,iff-up", end[0]);
            let socket = format!("UDP4-DATAGRAM:{other}:5555,bind={own}:5555");
            let mut command = Command::new("socat");
            command.args([&tun, &socket]).stdout(Stdio::null()).stderr(Stdio::null());
            let program = namespace.inside(|| command.spawn()).expect("socat is installed");
            wait::until("the VPN's interface", || {
                let shown =
                    namespace.output(Command::new("ip").args(["address", "show", "dev", "tun0", "up"]));
                String::from_utf8_lossy(&shown.stdout).contains(end[0]).then_some(())
            });
            namespace.ip(&["link", "set", "tun0", "mtu", "1420"]);
            namespace.ip(&["address", "add", &format!("{}/64", end[1]), "dev", "tun0", "nodad"]);
            program
        });
        for (address, length) in PEER.into_iter().zip([32, 128]) {
            outside.namespace().ip(&["address", "add", &format!("{address}/{length}"), "dev", "lo"]);
        }
        Self(programs)
    }
}

impl Drop for Vpn {
    fn drop(&mut self) {
        for program in &mut self.0 {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Visits a server behind the VPN, which must see the host's address there.
fn visits(world: &World, outside: &Outside, name: &str) {
    let container = world.attach(name, &["--network", "net1"]);
    for (peer, own) in PEER.into_iter().zip(ENDS[0]) {
        container.pings(address(peer));
        let listener = talk::listen(&outside.path(), address(peer));
        let connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
        let (_, from) = listener.accept().expect("accept");
        assert_eq!(from.ip(), address(own), "as the host is known there");
        drop(connection);
        talk::transfer(&container.path, &outside.path(), address(peer), 4 << 20);
        // A router fragments IPv4 only; of IPv6 the sender is told, and the datagram is lost.
        let sizes: &[usize] = if peer.contains(':') { &[1, 1300] } else { &[1, 1300, 3000, 30_000] };
        talk::datagrams(&container.path, &outside.path(), address(peer), sizes);
    }
}

#[test]
fn containers_follow_routes_into_a_vpn() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let vpn = Vpn::between(world.host(), &outside);
    let before = world.attach("before", &["--network", "net1"]);
    before.pings(address(FAR[0]));
    for half in HALVES {
        world.host().ip(&["route", "add", half, "dev", "tun0"]);
    }
    wait::until("a way in", || talk::answers(&before.path, address(PEER[0])).then_some(()));
    visits(&world, &outside, "halves");
    before.pings(address(ROUTERS[0]));
    for half in HALVES {
        world.host().ip(&["route", "delete", half, "dev", "tun0"]);
    }
    for family in ["-4", "-6"] {
        world.host().ip(&[family, "route", "replace", "default", "dev", "tun0"]);
    }
    wait::until("a way in", || talk::answers(&before.path, address(PEER[1])).then_some(()));
    visits(&world, &outside, "default");
    drop(vpn);
}
