//! Relay between host sockets and containers.
#![forbid(unsafe_code)]
