//! Refusals, as a client is told them: a stable code, an HTTP status, and one line that names the thing and
//! the mend.

use std::fmt;

use serde::{Deserialize, Serialize};
use vswitch_sys::netlink::NetlinkError;

use crate::privileges;

macro_rules! codes {
    ($($(#[doc = $text:literal])+ $name:ident = $status:literal $label:literal,)+) => {
        /// The reason of a refusal. The labels never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $text])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            /// The name clients see.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Code::$name => $label,)+
                }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self {
                    $(Code::$name => $status,)+
                }
            }
        }
    };
}

codes! {
    /// The body is no JSON, or not of the shape the route takes.
    MalformedJson = 400 "malformed-json",
    /// A value that makes no sense.
    InvalidArgument = 400 "invalid-argument",
    /// A driver option nobody knows.
    UnknownOption = 400 "unknown-option",
    /// A network driver nobody knows.
    UnknownDriver = 400 "unknown-driver",
    /// The address belongs to none of the network's subnets.
    AddressOutside = 400 "address-outside",
    /// The file or descriptor is not of the kind that is needed.
    WrongKind = 400 "wrong-kind",
    /// Removing or making what is always there, or connecting to what is no network of its own.
    NetworkPredefined = 403 "network-predefined",
    /// Removing a network that still has endpoints.
    NetworkInUse = 403 "network-in-use",
    /// The daemon may not do this.
    PermissionDenied = 403 "permission-denied",
    /// No such route.
    RouteNotFound = 404 "route-not-found",
    /// No such network.
    NetworkNotFound = 404 "network-not-found",
    /// No such host, or no cluster.
    HostNotFound = 404 "host-not-found",
    /// No such sandbox.
    SandboxNotFound = 404 "sandbox-not-found",
    /// No such rule.
    RuleNotFound = 404 "rule-not-found",
    /// No such network namespace, or no longer.
    NamespaceNotFound = 404 "namespace-not-found",
    /// No such process, or it has no such descriptor.
    DescriptorNotFound = 404 "descriptor-not-found",
    /// The sandbox has no endpoint on the network.
    NotConnected = 404 "not-connected",
    /// The sandbox does not publish the port.
    PortNotFound = 404 "port-not-found",
    /// The route does not take this method.
    MethodNotAllowed = 405 "method-not-allowed",
    /// A network, a sandbox or a namespace has this name.
    NameInUse = 409 "name-in-use",
    /// The namespace has an interface of this name.
    InterfaceInUse = 409 "interface-in-use",
    /// The address belongs to an endpoint or is the gateway.
    AddressInUse = 409 "address-in-use",
    /// The address belongs to another host, which does not give it, or cannot be reached.
    AddressElsewhere = 409 "address-elsewhere",
    /// The MAC address belongs to an endpoint of the network.
    MacInUse = 409 "mac-in-use",
    /// Another sandbox or another program has the port of the host.
    PortInUse = 409 "port-in-use",
    /// Every address of the network's subnets is in use.
    AddressesExhausted = 409 "addresses-exhausted",
    /// The subnet overlaps that of another network.
    PoolOverlap = 409 "pool-overlap",
    /// Every default subnet overlaps a network or a route of the host.
    PoolsExhausted = 409 "pools-exhausted",
    /// The sandbox has an endpoint on the network.
    AlreadyConnected = 409 "already-connected",
    /// The sandbox was made in another way and is removed in another way.
    WrongRemoval = 409 "wrong-removal",
    /// The sandbox has no network of its own, so there is nothing to connect.
    NetworkMode = 409 "network-mode",
    /// Removing a sandbox whose network others share.
    SandboxInUse = 409 "sandbox-in-use",
    /// Giving up on a host that is there.
    HostInUse = 409 "host-in-use",
    /// As many networks or ports as a switch has.
    LimitReached = 409 "limit-reached",
    /// Nothing can be written down, so nothing is changed.
    StorageUnavailable = 503 "storage-unavailable",
    /// The kernel or the datapath failed at something that should work.
    Internal = 500 "internal",
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The code, for programs.
    pub code: Code,
    /// The message, for people: one line.
    pub message: String,
}

/// A refusal on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// [`Code::label`].
    pub code: String,
    /// [`Error::message`].
    pub message: String,
}

/// The outcome of an operation of control.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal with this message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure of the kernel while doing `action`.
    pub fn from_io(action: &str, error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied {
            Code::PermissionDenied
        } else {
            Code::Internal
        };
        let mend = if code == Code::PermissionDenied { privileges::mend() } else { String::new() };
        Self::new(code, format!("{action}: {error}{mend}"))
    }
}

/// The refusal that a failed call of the kernel is.
pub fn failed(action: &str, error: &std::io::Error) -> Error {
    Error::from_io(&format!("cannot {action}"), error)
}

/// The refusal that a netlink error is.
pub fn refused(error: NetlinkError) -> Error {
    let words = error.words.map(|words| format!(" ({words})")).unwrap_or_default();
    Error::from_io(&format!("cannot {}{words}", error.action), &error.cause)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_kebab_case() {
        for code in Code::ALL {
            assert!(code.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code:?}");
            assert_eq!(Code::ALL.iter().filter(|other| other.label() == code.label()).count(), 1);
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn the_documentation_has_every_code() {
        let documentation = include_str!("../../../docs/api.md");
        for code in Code::ALL {
            let row = format!("| {} | `{}` |", code.status(), code.label());
            assert_eq!(documentation.matches(&row).count(), 1, "{row}");
        }
    }

    #[test]
    fn a_missing_privilege_is_told_from_a_failure() {
        let denied = Error::from_io("make it", &std::io::Error::from_raw_os_error(1));
        assert_eq!(denied.code, Code::PermissionDenied);
        assert!(denied.message.starts_with("make it: Operation not permitted (os error 1): "), "{denied}");
        let failed = Error::from_io("make it", &std::io::Error::from_raw_os_error(5));
        assert_eq!(failed, Error::new(Code::Internal, "make it: Input/output error (os error 5)"));
    }
}
