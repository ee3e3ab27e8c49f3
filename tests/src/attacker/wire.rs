//! An interface that the attacker owns, into which it writes any frame with any virtio-net header.

use std::os::fd::OwnedFd;
use std::path::Path;

use vswitch_sys::packet;

use super::bytes::Bytes;
use super::frames;
use super::places::Place;
use crate::namespace::inside;
use crate::talk::Stream;

/// See the [module](self).
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens an interface inside a namespace.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn open(namespace: &Path, interface: &str) -> Self {
        Self { socket: inside(namespace, || packet::open(interface)).expect("a packet socket") }
    }

    /// Sends a frame with a virtio-net header in front; says whether the kernel takes it, which does not take
    /// every header.
    pub fn send(&self, bytes: &[u8]) -> bool {
        nix::unistd::write(&self.socket, bytes).is_ok()
    }
}

/// So many frames from a place, each with a virtio-net header in front; others for another seed.
pub fn frames(from: &Place, seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    /// More than any frame is made of.
    const BYTES_EACH: usize = 600;
    let mut stream = Stream::new(seed);
    (0..count).map(move |_| {
        let mut bytes = [0; BYTES_EACH];
        stream.fill(&mut bytes);
        frames::frame(&mut Bytes::new(&bytes), from)
    })
}
