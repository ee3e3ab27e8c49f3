//! Ethernet frames, byte by byte, into and out of an interface.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};

use crate::namespace::inside;
use crate::packets::rfc1071;

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

    /// Sends a frame, unless the interface's queue is full; says whether it was taken.
    pub fn offer(&mut self, frame: &[u8]) -> bool {
        matches!(self.sender.send_to(frame, None), Some(Ok(())))
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

/// A record of what `tcpdump` sees on an interface. Unlike [`Wire`] it sees VLAN tags, which the kernel takes
/// off a frame before a packet socket gets it.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    packets: BufReader<ChildStdout>,
}

impl Capture {
    /// Starts to capture the frames that come in on an interface and match a filter of `tcpdump`'s.
    ///
    /// # Panics
    /// When `tcpdump` does not start.
    pub fn start(namespace: &Path, interface: &str, filter: &str) -> Self {
        const FILE_HEADER: usize = 24;
        let mut command = Command::new("tcpdump");
        command.args(["-i", interface, "-Q", "in", "-U", "-s", "0", "-Z", "root", "-w", "-", filter]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tcpdump = inside(namespace, || command.spawn()).expect("tcpdump is installed");
        let mut listening = String::new();
        let errors = tcpdump.stderr.take().expect("piped");
        BufReader::new(errors).read_line(&mut listening).expect("its first words");
        assert!(listening.contains("listening on"), "tcpdump: {listening}");
        let mut packets = BufReader::new(tcpdump.stdout.take().expect("piped"));
        packets.read_exact(&mut [0; FILE_HEADER]).expect("the header of a capture");
        Self { tcpdump, packets }
    }

    /// Waits for the next frame.
    ///
    /// # Panics
    /// When the capture ends.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut header = [0; 16];
        self.packets.read_exact(&mut header).expect("the header of a frame");
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let mut frame = vec![0; usize::try_from(length).expect("a length")];
        self.packets.read_exact(&mut frame).expect("a frame");
        frame
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
    }
}

/// An Ethernet frame.
pub fn ethernet(target: [u8; 6], initiator: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&target[..], &initiator, &ether_type.to_be_bytes(), payload].concat()
}

/// An IPv4 packet with its header's checksum. `fragment` is the place in units of eight bytes, with the
/// flags.
///
/// # Panics
/// When it is longer than a packet may be.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, (id, fragment): (u8, u16), body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).expect("short").to_be_bytes();
    let [flags, place] = fragment.to_be_bytes();
    let mut header =
        [&[0x45, 0][..], &length, &[0, id, flags, place, 64, protocol, 0, 0], &from, &to].concat();
    let sum = rfc1071(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&header[..], body].concat()
}

/// A UDP datagram over IPv4, without a checksum.
///
/// # Panics
/// When it is longer than a packet may be.
pub fn datagram(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short").to_be_bytes();
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length, &[0, 0], payload].concat()
}
