//! Containers whose namespace was made with IPv6 switched off, as Docker makes it.

use std::fs;
use std::net::IpAddr;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::world::{Container, World};

use super::{VSWITCH, world};

const DUAL: [&str; 4] = ["--subnet", "10.7.0.0/24", "--subnet", "fd07::/64"];

/// Runs `vswitch run` where all settings of the kernel's are read-only.
const READ_ONLY: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"",
    "sh",
];

fn gateway() -> IpAddr {
    "fd07::1".parse().expect("an address")
}

/// A namespace with IPv6 switched off on all that is there, and on all that comes.
fn without_ipv6() -> Namespace {
    let namespace = Namespace::new();
    namespace.inside(|| {
        for which in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").expect("a setting");
        }
    });
    namespace
}

fn is_disabled(container: &Container, interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    container.inside(|| fs::read_to_string(path)).expect("a setting").trim() == "1"
}

#[test]
fn ipv6_is_switched_on_for_the_interface_that_has_an_address_and_for_no_other() {
    let mut world = world();
    world.network("dual", &DUAL);
    for port_type in ["tap", "tap-moved", "veth"] {
        let namespace = without_ipv6();
        namespace.ip(&["tuntap", "add", "other0", "mode", "tap"]);
        let name = namespace.name().to_owned();
        let attach = || {
            world.vswitch(&["attach", "web", "--netns", &name, "--network", "dual", "--port-type", port_type])
        };
        assert_eq!(attach(), "web\n");
        let container = Container::attached("web", namespace);
        let works = || {
            container.pings(gateway());
            assert!(is_disabled(&container, "lo") && is_disabled(&container, "other0"), "{port_type}");
        };
        works();
        world.vswitch(&["detach", "web"]);
        attach();
        works();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.stop(signal);
            world.start_again();
            works();
        }
        world.vswitch(&["detach", "web"]);
    }
}

#[test]
fn a_setting_that_switches_ipv6_off_is_named() {
    let world = world();
    world.network("dual", &DUAL);
    let namespace = Namespace::new();
    let setting = "com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.disable_ipv6=1";
    let refusal = world.refused(&[
        "attach",
        "web",
        "--netns",
        namespace.name(),
        "--network",
        "dual",
        "--driver-opt",
        setting,
    ]);
    assert!(
        refusal.message.contains("switched off by net.ipv6.conf.eth0.disable_ipv6"),
        "{}",
        refusal.message
    );
    assert!(!refusal.message.contains("as root"), "{}", refusal.message);
    assert_eq!(world.json(&["ps"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn where_ipv6_cannot_be_switched_on_there_is_ipv4_and_a_warning() {
    let (world, namespace) = World::start_wrapped(VSWITCH, &READ_ONLY, &[], |_| without_ipv6());
    world.network("dual", &DUAL);
    world.network("six", &["--ipv4=false", "--subnet", "fd08::/64"]);
    let attach = ["attach", "web", "--netns", namespace.name(), "--network"];
    for refused in [&["six"][..], &["dual", "--ip6", "fd07::77"]] {
        let message = world.refused(&[&attach, refused].concat()).message;
        assert!(message.contains("net.ipv6.conf.eth0.disable_ipv6"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let sandbox = world.json(&[&attach[..], &["dual"]].concat());
    let warning =
        "sandbox \"web\" is on network \"dual\" without IPv6: cannot set net.ipv6.conf.eth0.disable_ipv6";
    assert!(sandbox["Warnings"][0].as_str().is_some_and(|text| text.starts_with(warning)), "{sandbox}");
    assert_eq!(sandbox["Endpoints"][0]["GlobalIPv6Address"], "");
    assert!(world.logged().contains(warning.split(':').next().unwrap_or_default()), "{}", world.logged());
    let container = Container::attached("web", namespace);
    container.pings(IpAddr::from([10, 7, 0, 1]));
    world.vswitch(&["publish", "web", "8080:80"]);
}
