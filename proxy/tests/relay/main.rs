//! The proxy between real sockets on loopback and a simulated container.

mod adversary;
mod ends;
mod shares;
mod tcp;
mod udp;
mod world;
