//! The proxy between real sockets on loopback and a simulated container.

mod tcp;
mod udp;
mod world;
