//! Helpers that the tests share. The tests themselves are in the folder `tests/tests`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`api`] | requests to a control socket |
//! | [`attacker`] | whoever writes frames and may mean harm |
//! | [`bursts`] | bursts of several flows, some frames out of the ordinary |
//! | [`disk`] | disks that are full, may only be read, or stall |
//! | [`etcd`] | a real etcd, and certificates for it |
//! | [`fuzz`] | what must hold of any bytes |
//! | [`model`] | what clients were answered that there is |
//! | [`names`] | questions for names, and a name server |
//! | [`namespace`] | network namespaces that are gone when the test is |
//! | [`outside`] | a world beyond the host |
//! | [`packets`] | frames made by the book, field by field |
//! | [`raw`] | Ethernet frames, byte by byte, into and out of an interface |
//! | [`repository`] | the repository's own files |
//! | [`soak`] | three hosts to which everything happens that can |
//! | [`talk`] | pings, TCP transfers and datagrams whose content is checked |
//! | [`translation`] | what must hold of frames that are translated |
//! | [`tunnels`] | what must hold of frames and of datagrams that pass through tunnels |
//! | [`underlay`] | an underlay that joins hosts |
//! | [`wait`] | waiting for a condition, with a deadline |
//! | [`web`] | a web server, and a visitor that comes many times |
//! | [`world`] | a running switch with containers |
#![forbid(unsafe_code)]

pub mod api;
pub mod attacker;
pub mod bursts;
pub mod disk;
pub mod etcd;
pub mod fuzz;
pub mod model;
pub mod names;
pub mod namespace;
pub mod outside;
pub mod packets;
pub mod raw;
pub mod repository;
pub mod soak;
pub mod talk;
pub mod translation;
pub mod tunnels;
pub mod underlay;
pub mod wait;
pub mod web;
pub mod world;
