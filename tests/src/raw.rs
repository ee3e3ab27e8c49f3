//! Ethernet frames, byte by byte, into and out of an interface.

use std::path::Path;
use std::time::Duration;

use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};

use crate::namespace::inside;

/// A packet socket on one interface.
pub struct Wire {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    /// The interface's own address.
    pub mac: [u8; 6],
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("mac", &self.mac).finish_non_exhaustive()
    }
}

impl Wire {
    /// Opens an interface inside a namespace.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn open(namespace: &Path, interface: &str) -> Self {
        inside(namespace, || {
            let found = datalink::interfaces().into_iter().find(|found| found.name == interface);
            let found = found.unwrap_or_else(|| panic!("no interface {interface}"));
            let timeout = Some(Duration::from_millis(100));
            let config = Config { read_timeout: timeout, read_buffer_size: 70_000, ..Config::default() };
            let Ok(Channel::Ethernet(sender, receiver)) = datalink::channel(&found, config) else {
                panic!("no packet socket on {interface}");
            };
            Self { sender, receiver, mac: found.mac.map_or([0; 6], |mac| mac.octets()) }
        })
    }

    /// Sends a frame, from the destination address on.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn send(&mut self, frame: &[u8]) {
        self.sender.send_to(frame, None).expect("sent").expect("frame taken");
    }

    /// The next frame that satisfies `wanted`, or `None` when the wire is quiet for a tenth of a second.
    pub fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        while let Ok(frame) = self.receiver.next() {
            if wanted(frame) {
                return Some(frame.to_vec());
            }
        }
        None
    }
}

/// An Ethernet frame.
pub fn ethernet(target: [u8; 6], initiator: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&target[..], &initiator, &ether_type.to_be_bytes(), payload].concat()
}
