//! IPv6 on an interface of ours, in the calling thread's network namespace: on, off, or not to be had.
//!
//! Who made the namespace may have switched IPv6 off for all of it, as Docker does for a container without
//! an IPv6 network. It is switched on for the interface that is given an address, and for no other one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use vswitch_sys::netlink::NetlinkError;

use crate::error::{Code, Error, failed, refused};

const EACCES: i32 = 13;
const EOPNOTSUPP: i32 = 95;

/// Switches IPv6 on.
///
/// # Errors
/// For people: why there can be no IPv6 on the interface.
pub(crate) fn enable(interface: &str) -> Result<(), String> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Err("the kernel is without IPv6".to_owned());
    }
    change(interface, "disable_ipv6", "0")
}

/// Switches IPv6 on, with no addresses and routes but those given here: not what a router advertises, and
/// without looking for duplicates, so that the link-local address is certain.
///
/// # Errors
/// As [`enable`].
pub(crate) fn enable_static(interface: &str) -> Result<(), String> {
    enable(interface)?;
    change(interface, "accept_ra", "0")?;
    change(interface, "accept_dad", "0")
}

/// Switches IPv6 off. A kernel without IPv6 has it off.
///
/// # Errors
/// When the setting cannot be written.
pub(crate) fn disable(interface: &str) -> io::Result<()> {
    match set(interface, "disable_ipv6", "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Switches IPv6 off, for the sake of quiet: where settings are read-only it stays on, which the log says.
///
/// # Errors
/// As [`disable`], but for settings that are read-only.
pub(crate) fn hush(interface: &str) -> Result<(), Error> {
    match disable(interface) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            tracing::warn!("IPv6 stays on without an address on interface {interface:?}: {error}");
            Ok(())
        }
        outcome => outcome.map_err(|error| failed(&format!("disable IPv6 on {interface:?}"), &error)),
    }
}

/// The refusal that a failure to give an interface an address is. Of IPv6 the kernel says no more than that
/// it is denied.
pub(crate) fn refused_address(interface: &str, net: IpNet, error: NetlinkError) -> Error {
    let cause = if net.addr().is_ipv4() {
        return refused(error);
    } else if error.is(EACCES) {
        format!("it is switched off by {}: {error}: do not set that", name(interface, "disable_ipv6"))
    } else if error.is(EOPNOTSUPP) {
        format!("the kernel is without it: {error}: use a network without IPv6")
    } else {
        return refused(error);
    };
    Error::new(Code::InvalidArgument, format!("interface {interface:?} has no IPv6: {cause}"))
}

fn change(interface: &str, setting: &str, value: &str) -> Result<(), String> {
    let refusal = |error| format!("cannot set {} to {value}: {error}", name(interface, setting));
    set(interface, setting, value).map_err(refusal)
}

/// Writes one of IPv6's settings of an interface, unless it is so already: where all settings are read-only
/// that is enough.
fn set(interface: &str, setting: &str, value: &str) -> io::Result<()> {
    let path: PathBuf = ["/proc/sys/net/ipv6/conf", interface, setting].iter().collect();
    if fs::read_to_string(&path)?.trim() == value { Ok(()) } else { fs::write(&path, value) }
}

fn name(interface: &str, setting: &str) -> String {
    format!("net.ipv6.conf.{interface}.{setting}")
}
