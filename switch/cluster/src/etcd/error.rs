//! Errors of an etcd: one line for a person each, with what to do about it.

use super::address::Endpoint;

/// The reason that something asked of etcd did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A member that is not there.
    #[error("no etcd answers on {endpoint} ({why}): start it, or correct --cluster")]
    Unreachable {
        /// The member.
        endpoint: Endpoint,
        /// The kernel's words.
        why: String,
    },
    /// A member that is there, and says nothing.
    #[error("etcd on {endpoint} did not answer within {seconds} s: look whether it has a quorum")]
    Silent {
        /// The member.
        endpoint: Endpoint,
        /// The time it had, in seconds.
        seconds: u64,
    },
    /// A member that cannot do anything now.
    #[error("etcd on {endpoint} cannot serve now ({why}): look whether it has a quorum")]
    Unavailable {
        /// The member.
        endpoint: Endpoint,
        /// Its words.
        why: String,
    },
    /// A member that is not who it should be, or does not take us for who we should be.
    #[error("TLS with etcd on {endpoint} fails: {why}")]
    Tls {
        /// The member.
        endpoint: Endpoint,
        /// The fault, and how to mend it.
        why: String,
    },
    /// A name or a password that is wrong, or missing.
    #[error("etcd on {endpoint} does not let us in: {why}")]
    Credentials {
        /// The member.
        endpoint: Endpoint,
        /// The fault, and how to mend it.
        why: String,
    },
    /// A token that has expired, or was given by an etcd that has since started again. Mended by a new one.
    #[error("etcd on {endpoint} wants a new token")]
    Token {
        /// The member.
        endpoint: Endpoint,
    },
    /// A right that the user lacks.
    #[error(
        "etcd on {endpoint} denies {user:?} what is needed: grant the user a role with read and write on the prefix /vswitch/"
    )]
    Forbidden {
        /// The member.
        endpoint: Endpoint,
        /// The user.
        user: String,
    },
    /// A history that is gone up to where it was asked for. Mended by a new snapshot.
    #[error("etcd has compacted what was asked for")]
    Compacted,
    /// A lease that has ended. Mended by a new one.
    #[error("the lease in etcd has ended")]
    LeaseEnded,
    /// A member that is no etcd, or not one that we know how to talk to.
    #[error("what answers on {endpoint} is no etcd of version 3.4 or later ({why}): correct --cluster")]
    Protocol {
        /// The member.
        endpoint: Endpoint,
        /// The oddity of its answer.
        why: String,
    },
    /// An answer that is larger than is read. Mended by asking for less.
    #[error("etcd on {endpoint} answers with more than {bytes} bytes")]
    TooLarge {
        /// The member.
        endpoint: Endpoint,
        /// The limit.
        bytes: usize,
    },
    /// A refusal of etcd's, for a reason of its own.
    #[error("etcd on {endpoint} refuses: {why}")]
    Refused {
        /// The member.
        endpoint: Endpoint,
        /// Its words.
        why: String,
    },
}

/// The outcome of asking etcd.
pub type Result<T> = std::result::Result<T, Error>;

/// gRPC's codes (grpc/grpc, doc/statuscodes.md) as far as they matter here.
mod code {
    pub(super) const CANCELLED: i64 = 1;
    pub(super) const DEADLINE_EXCEEDED: i64 = 4;
    pub(super) const NOT_FOUND: i64 = 5;
    pub(super) const PERMISSION_DENIED: i64 = 7;
    pub(super) const OUT_OF_RANGE: i64 = 11;
    pub(super) const UNAVAILABLE: i64 = 14;
    pub(super) const UNAUTHENTICATED: i64 = 16;
}

impl Error {
    /// The error that an etcd means by a code and a message.
    pub(super) fn said(endpoint: &Endpoint, code: i64, message: &str, user: &str) -> Self {
        let endpoint = endpoint.clone();
        let why = message.strip_prefix("etcdserver: ").unwrap_or(message).to_owned();
        match code {
            code::PERMISSION_DENIED => Self::Forbidden { endpoint, user: user.to_owned() },
            code::OUT_OF_RANGE if message.contains("compacted") => Self::Compacted,
            code::NOT_FOUND if message.contains("lease") => Self::LeaseEnded,
            code::UNAUTHENTICATED => Self::Token { endpoint },
            _ if message.contains("auth store is old") => Self::Token { endpoint },
            code::UNAVAILABLE | code::DEADLINE_EXCEEDED | code::CANCELLED => {
                Self::Unavailable { endpoint, why }
            }
            _ if message.contains("user name is empty") => Self::Credentials {
                endpoint,
                why: "give it --cluster-user and --cluster-password-file".to_owned(),
            },
            _ if message.contains("authentication failed") => Self::Credentials {
                endpoint,
                why: format!(
                    "the password of {user:?} is another one, or there is no such user: look at --cluster-user and --cluster-password-file"
                ),
            },
            _ => Self::Refused { endpoint, why },
        }
    }

    /// Whether another member may do better.
    pub fn is_of_one_member(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Unavailable { .. } => true,
            Self::Tls { .. } | Self::Protocol { .. } | Self::Token { .. } => true,
            Self::Credentials { .. } | Self::Forbidden { .. } | Self::Refused { .. } => false,
            Self::Compacted | Self::LeaseEnded | Self::TooLarge { .. } => false,
        }
    }

    /// Whether it may be over in a while without anybody doing anything to this host.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Unavailable { .. } => true,
            Self::Token { .. } | Self::Compacted | Self::LeaseEnded => true,
            Self::Tls { .. } | Self::Credentials { .. } | Self::Forbidden { .. } => false,
            Self::Protocol { .. } | Self::Refused { .. } | Self::TooLarge { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_understood() {
        let endpoint: Endpoint = "10.0.0.1:2379".parse().expect("endpoint");
        let line = |code, message| Error::said(&endpoint, code, message, "switch").to_string();
        for (code, message, expected) in [
            (
                7,
                "etcdserver: permission denied",
                "etcd on 10.0.0.1:2379 denies \"switch\" what is needed: grant the user a role with read and write on the prefix /vswitch/",
            ),
            (
                3,
                "etcdserver: user name is empty",
                "etcd on 10.0.0.1:2379 does not let us in: give it --cluster-user and --cluster-password-file",
            ),
            (
                14,
                "etcdserver: no leader",
                "etcd on 10.0.0.1:2379 cannot serve now (no leader): look whether it has a quorum",
            ),
            (
                8,
                "etcdserver: mvcc: database space exceeded",
                "etcd on 10.0.0.1:2379 refuses: mvcc: database space exceeded",
            ),
        ] {
            assert_eq!(line(code, message), expected);
        }
        let said = |code, message| Error::said(&endpoint, code, message, "");
        assert_eq!(said(5, "etcdserver: requested lease not found"), Error::LeaseEnded);
        assert_eq!(said(11, "etcdserver: mvcc: required revision has been compacted"), Error::Compacted);
        let token = Error::Token { endpoint: endpoint.clone() };
        assert_eq!(said(16, "etcdserver: invalid auth token"), token);
        assert_eq!(said(3, "etcdserver: revision of auth store is old"), token);
    }
}
