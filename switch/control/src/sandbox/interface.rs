//! Making an endpoint's interface inside its sandbox's namespace, and destroying it.
//!
//! # Theory of operation
//! One thread enters the namespace, makes the interface under its final name, configures it and leaves
//! with a descriptor. All that can be born where it lives is: moving an interface or deleting one waits
//! for an RCU grace period, tens of milliseconds, so the default TAP is made in place, and a veth pair
//! is made from the far side with its near end in the sandbox. A TAP that is moved is the exception,
//! which is its point: its descriptor does not keep the sandbox's namespace alive.
//!
//! A failure on the way destroys what was made: the last descriptor of a TAP takes the TAP with it, and
//! a veth pair is deleted. Destroying blocks, so control does it on a thread for blocking work.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_cluster::id::Id;
use vswitch_frame::{Accepts, Mac};
use vswitch_sys::device::{self, DeviceKind};
use vswitch_sys::netlink::{LinkChange, Netlink, NetlinkError, VethPeer};
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::{packet, tap};

use crate::api::types::ForeignFd;
use crate::error::failed;
use crate::error::refused;
use crate::error::{Code, Error, Result};
use crate::names;
use crate::network::options::{PortType, Sysctl};
use crate::sandbox::ipv6;

/// Frames an interface's queue towards the switch holds.
pub(crate) const QUEUE_FRAMES: u32 = 1000;
/// Interfaces a sandbox has at most under one prefix.
const INTERFACES_MAX: u32 = 10_000;

const EEXIST: i32 = 17;

/// Wishes for an interface.
#[derive(Debug)]
pub struct Wish<'a> {
    /// Its name; `None` for the prefix and the first free number.
    pub name: Option<&'a str>,
    /// The beginning of its name, before the number.
    pub prefix: &'a str,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Its addresses.
    pub addresses: &'a [IpNet],
    /// Whether its IPv6 address was asked for, so that there is no interface without it.
    pub needs_ipv6: bool,
    /// Settings of the kernel's for it.
    pub sysctls: &'a [Sysctl],
    /// A name nothing else in the daemon's namespaces has.
    pub unique: &'a str,
}

/// An interface that was made.
#[derive(Debug)]
pub struct Made {
    /// Its name in the sandbox; `None` when another process made it.
    pub name: Option<String>,
    /// The switch's side of it.
    pub fd: OwnedFd,
    /// The kind of device behind that.
    pub kind: DeviceKind,
    /// Offloads that its receiver takes.
    pub accepts: Accepts,
    /// Remains of it to destroy when it goes.
    pub remains: Remains,
    /// The reason why it is without the IPv6 address it was to have, if it is.
    pub without_ipv6: Option<String>,
}

/// Remains of an interface to destroy.
#[derive(Debug)]
pub enum Remains {
    /// A descriptor to close, with which a TAP of ours goes.
    Descriptor(OwnedFd),
    /// The far end of a veth pair.
    Veth {
        /// Its name.
        far: String,
        /// The namespace it is in.
        side: Arc<NetNs>,
        /// The packet socket on it.
        socket: OwnedFd,
    },
}

impl Remains {
    /// The name of the far end, if it is a veth pair's.
    pub fn far_name(&self) -> Option<&str> {
        match self {
            Self::Descriptor(_) => None,
            Self::Veth { far, .. } => Some(far),
        }
    }

    /// Whether the interface is gone that it is a packet socket of. Of a TAP the datapath says it.
    pub fn has_vanished(&self) -> bool {
        let (Self::Descriptor(fd) | Self::Veth { socket: fd, .. }) = self;
        packet::interface(fd).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Destroys it. Waits for RCU grace periods: tens of milliseconds.
    pub fn destroy(self) {
        match self {
            Self::Descriptor(fd) => drop(fd),
            Self::Veth { far, side, socket: _ } => {
                // Both fail only when the sandbox's namespace went first and took the pair along.
                let _ = run_in(&side, || Netlink::open().map(|mut netlink| netlink.delete_link(&far)));
            }
        }
    }
}

/// The private namespace where far ends of veth pairs are: without addresses and without IPv6, so that
/// no host stack sees their frames.
#[derive(Debug)]
pub struct FarSide {
    netns: Arc<NetNs>,
    netlink: Netlink,
}

impl FarSide {
    /// Makes the private namespace.
    ///
    /// # Errors
    /// When the kernel refuses a namespace.
    pub fn new() -> io::Result<Self> {
        let netns = NetNs::anonymous()?;
        let netlink = run_in(&netns, || {
            ipv6::disable("default")?;
            Netlink::open()
        })??;
        Ok(Self { netns: Arc::new(netns), netlink })
    }

    /// Takes up the private namespace of an earlier control, by its descriptor.
    ///
    /// # Errors
    /// When it is no network namespace.
    pub fn resume(fd: OwnedFd) -> io::Result<Self> {
        let netns = NetNs::from_fd(fd)?;
        let netlink = run_in(&netns, Netlink::open)??;
        Ok(Self { netns: Arc::new(netns), netlink })
    }

    /// A duplicate of its descriptor.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.netns.as_fd().try_clone_to_owned()
    }

    /// Remains to destroy of the pair whose far end is called `far`, with a packet socket on it.
    pub fn remains(&self, far: String, socket: OwnedFd) -> Remains {
        Remains::Veth { far, side: Arc::clone(&self.netns), socket }
    }

    /// Deletes every pair but those whose far ends are in `used`.
    ///
    /// # Errors
    /// Refusals of the kernel.
    pub fn sweep(&mut self, used: &BTreeSet<String>) -> std::result::Result<(), NetlinkError> {
        for link in self.netlink.links()? {
            if link.name != "lo" && !used.contains(&link.name) {
                self.netlink.delete_link(&link.name)?;
            }
        }
        Ok(())
    }
}

/// A name for an endpoint's link that nothing else in the daemon's namespaces has.
pub fn unique_name(endpoint: Id) -> String {
    format!("vsw{}", names::short_id(&endpoint.to_string()))
}

/// Makes an interface in a namespace. `far` is for veth pairs, and made when the first one wants it.
///
/// # Errors
/// When the name is in use, or the kernel refuses; then nothing is left.
pub fn make(port_type: PortType, netns: &NetNs, wish: &Wish<'_>, far: &mut Option<FarSide>) -> Result<Made> {
    match port_type {
        PortType::TapMoved => make_tap_and_move(netns, wish),
        PortType::Veth => {
            let side = match far {
                Some(side) => side,
                None => {
                    far.insert(FarSide::new().map_err(|error| failed("make a private namespace", &error))?)
                }
            };
            make_veth(netns, wish, side)
        }
        PortType::Tap | PortType::Fd => {
            let made = run_in(netns, || make_tap(wish));
            made.map_err(|error| failed("enter the network namespace", &error))?
        }
    }
}

/// Takes a TAP or packet socket of another process.
///
/// # Errors
/// When there is no such process or descriptor, or it is of another kind.
pub fn adopt(foreign: ForeignFd) -> Result<Made> {
    let ForeignFd { pid, fd: number } = foreign;
    let missing = |what: String, error: io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return failed(&format!("look into {what}"), &error);
        }
        Error::new(Code::DescriptorNotFound, format!("{what}: {error}: give --fd PID:FD of a live process"))
    };
    let process = Pidfd::open(pid).map_err(|error| missing(format!("process {pid}"), error))?;
    let fd = process
        .take(number)
        .map_err(|error| missing(format!("descriptor {number} of process {pid}"), error))?;
    let (kind, accepts) = device::adopt(&fd).map_err(|error| {
        let message = format!(
            "descriptor {number} of process {pid} is neither a TAP (IFF_TAP with IFF_NO_PI) nor a raw packet \
             socket: {error}"
        );
        Error::new(Code::WrongKind, message)
    })?;
    let remains = Remains::Descriptor(copy(&fd)?);
    Ok(Made { name: None, fd, kind, accepts, remains, without_ipv6: None })
}

/// In the sandbox's namespace: makes a TAP under its final name.
fn make_tap(wish: &Wish<'_>) -> Result<Made> {
    let (name, (fd, accepts)) = first_free_name(wish, |name| match tap::create(name) {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed(&format!("make TAP {name:?}"), &error)),
    })?;
    finish_tap(name, fd, accepts, wish)
}

/// Makes a TAP here and sends it to the sandbox's namespace, where it gets its final name: in the same
/// request the kernel would move it even if it then cannot rename it.
fn make_tap_and_move(netns: &NetNs, wish: &Wish<'_>) -> Result<Made> {
    let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
    let (fd, accepts) = tap::create(wish.unique).map_err(|error| failed("make a TAP", &error))?;
    let change = LinkChange { netns: Some(netns.as_fd()), ..LinkChange::default() };
    netlink.change(wish.unique, change).map_err(refused)?;
    let finished = run_in(netns, || {
        let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
        let (name, ()) = first_free_name(wish, |name| {
            exists_is_none(
                netlink.change(wish.unique, LinkChange { name: Some(name), ..LinkChange::default() }),
            )
        })?;
        finish_tap(name, fd, accepts, wish)
    });
    finished.map_err(|error| failed("enter the network namespace", &error))?
}

fn finish_tap(name: String, fd: OwnedFd, accepts: Accepts, wish: &Wish<'_>) -> Result<Made> {
    let without_ipv6 = configure(&name, wish)?;
    let remains = Remains::Descriptor(copy(&fd)?);
    let kind = DeviceKind::Tap { vnet_header: true };
    Ok(Made { name: Some(name), fd, kind, accepts, remains, without_ipv6 })
}

fn make_veth(netns: &NetNs, wish: &Wish<'_>, side: &mut FarSide) -> Result<Made> {
    let far = wish.unique;
    let (name, ()) = first_free_name(wish, |name| {
        let peer = VethPeer { name, netns: Some(netns.as_fd()) };
        exists_is_none(side.netlink.create_veth(far, peer))
    })?;
    let made = finish_veth(name, netns, wish, side);
    if made.is_err() {
        let _ = side.netlink.delete_link(far);
    }
    made
}

fn finish_veth(name: String, netns: &NetNs, wish: &Wish<'_>, side: &mut FarSide) -> Result<Made> {
    let far = wish.unique;
    let change = LinkChange { mtu: Some(u32::from(wish.mtu)), up: Some(true), ..LinkChange::default() };
    side.netlink.change(far, change).map_err(refused)?;
    let opened = run_in(&side.netns, || packet::open(far)).and_then(|opened| opened);
    let fd = opened.map_err(|error| failed("open a packet socket", &error))?;
    let configured = run_in(netns, || configure(&name, wish));
    let without_ipv6 = configured.map_err(|error| failed("enter the network namespace", &error))??;
    let remains = side.remains(far.to_owned(), copy(&fd)?);
    Ok(Made {
        name: Some(name),
        fd,
        kind: DeviceKind::Packet(packet::Framing::VnetHeader),
        accepts: Accepts::ALL,
        remains,
        without_ipv6,
    })
}

/// In the sandbox's namespace: gives an interface all that was wished for, and loopback its life. Returns why
/// it is without IPv6, if it is against the wish.
fn configure(name: &str, wish: &Wish<'_>) -> Result<Option<String>> {
    let without_ipv6 = set_ipv6(name, wish)?;
    wish.sysctls.iter().try_for_each(|sysctl| set_sysctl(name, sysctl))?;
    let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
    let change = LinkChange {
        mac: Some(wish.mac),
        mtu: Some(u32::from(wish.mtu)),
        txqueuelen: Some(QUEUE_FRAMES),
        up: Some(true),
        ..LinkChange::default()
    };
    netlink.remove_qdisc(name).map_err(refused)?;
    netlink.change(name, change).map_err(refused)?;
    for address in wish.addresses.iter().filter(|net| without_ipv6.is_none() || net.addr().is_ipv4()) {
        let given = netlink.add_address(name, *address);
        given.map_err(|error| ipv6::refused_address(name, *address, error))?;
    }
    netlink.set_up("lo").map_err(refused)?;
    Ok(without_ipv6)
}

/// Switches IPv6 on or off, as the addresses want it. As Docker does: without an IPv6 network there is no
/// IPv6, and no chatter of it. Returns why it cannot be on, where an IPv4 address is enough.
fn set_ipv6(name: &str, wish: &Wish<'_>) -> Result<Option<String>> {
    let has = |family| wish.addresses.iter().any(|net| Family::of(net.addr()) == family);
    if !has(Family::V6) {
        return ipv6::hush(name).map(|()| None);
    }
    match ipv6::enable_static(name) {
        Ok(()) => Ok(None),
        Err(why) if has(Family::V4) && !wish.needs_ipv6 => Ok(Some(why)),
        Err(why) => {
            let message = format!("interface {name:?} cannot have IPv6: {why}: give it an IPv4 address only");
            Err(Error::new(Code::InvalidArgument, message))
        }
    }
}

/// Tries the name wished for, or the prefix with one number after the other until one is free.
fn first_free_name<T>(
    wish: &Wish<'_>,
    mut attempt: impl FnMut(&str) -> Result<Option<T>>,
) -> Result<(String, T)> {
    if let Some(name) = wish.name {
        let message =
            format!("interface name {name:?} is in use in the sandbox: choose another one with --ifname");
        return attempt(name)?
            .map(|made| (name.to_owned(), made))
            .ok_or_else(|| Error::new(Code::InterfaceInUse, message));
    }
    for number in 0..INTERFACES_MAX {
        let name = format!("{}{number}", wish.prefix);
        if let Some(made) = attempt(&name)? {
            return Ok((name, made));
        }
    }
    let message =
        format!("interface names {}0 to {}9999 are in use in the sandbox", wish.prefix, wish.prefix);
    Err(Error::new(Code::InterfaceInUse, message))
}

/// Writes a setting that was asked for.
fn set_sysctl(interface: &str, sysctl: &Sysctl) -> Result<()> {
    let path = sysctl.path(interface);
    std::fs::write(&path, &sysctl.value).map_err(|error| {
        let message = format!(
            "cannot set {} of interface {interface:?} to {:?}: {error}: see {}",
            sysctl.name,
            sysctl.value,
            path.display()
        );
        Error::new(Code::InvalidArgument, message)
    })
}

fn exists_is_none(outcome: std::result::Result<(), NetlinkError>) -> Result<Option<()>> {
    match outcome {
        Ok(()) => Ok(Some(())),
        Err(error) if error.is(EEXIST) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|error| failed("duplicate a descriptor", &error))
}

/// In the namespace it is in: removes an interface of ours whose switch has just died, and which the kernel
/// has not removed yet.
pub fn remove_leftover(interface: &str, mac: Mac) -> Result<()> {
    let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
    if netlink.find_link(interface).map_err(refused)?.is_some_and(|link| link.mac == Some(mac)) {
        // It may go by itself meanwhile; if it stays, making the next one says so.
        let _ = netlink.delete_link(interface);
    }
    Ok(())
}
