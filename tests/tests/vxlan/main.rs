//! Tunnels beside others' understanding of them: random bursts from host to host, `pnet`, and the kernel.

#![forbid(unsafe_code)]

mod document;
mod kernel;
mod oracle;
mod pump;
mod round_trip;
