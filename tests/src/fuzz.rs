//! Fuzz targets: what must hold of any bytes. The fuzzers in `tests/fuzz` and an ordinary test over their
//! corpora call the same functions.

use std::cell::Cell;

use vswitch_engine::dns::message::{self, UDP_BYTES};
use vswitch_engine::dns::{Resolution, Road};
use vswitch_engine::{Endpoint, Limits, Network, Port, Station, Switch};
use vswitch_frame::checksum::Sum;
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::headers::Transport;
use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Checksum, Frame, Headers, NetworkId, Offload, Pool, PortId};

use crate::bursts::{FRAMES_MAX, Sent, burst};

/// Slots for a burst and, beside it, all the pieces that a super-frame is cut into.
const SLOTS: usize = FRAMES_MAX + vswitch_frame::offload::SEGMENTS_MAX + 1;

thread_local! {
    static POOL: Cell<Option<Pool>> = const { Cell::new(None) };
}

/// Runs something with this thread's pool and checks that every slot comes back. After a panic the thread
/// gets a new pool, so that a failure can be narrowed down.
pub(crate) fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    let mut pool = POOL.take().unwrap_or_else(|| Pool::new(SLOTS));
    let answer = work(&mut pool);
    assert_eq!(pool.available(), pool.capacity(), "a slot was lost");
    POOL.set(Some(pool));
    answer
}

/// Any bytes as a frame: headers that are found lie inside it, one behind the other.
///
/// # Panics
/// When they do not.
pub fn headers(data: &[u8]) {
    let Ok(headers) = Headers::parse(data) else { return };
    let offsets = [
        headers.network_offset(),
        headers.transport_offset(),
        headers.payload_offset(),
        headers.end_offset(),
        data.len(),
    ];
    assert!(offsets.is_sorted(), "{offsets:?}");
    let has_transport = headers.transport() != Transport::Other;
    assert!(!has_transport || headers.is_ip() && !headers.is_fragment());
}

/// Any bytes as a question for a name: an answer is one, to that question, and no longer than it may be.
///
/// # Panics
/// When it is not.
pub fn names(data: &[u8]) {
    const PORT: PortId = PortId(1);
    let mut switch = Switch::new(Limits::default(), 7);
    let network = Network { name: "lan".to_owned(), resolves: true, ..Network::default() };
    switch.add_network(NetworkId(1), network).expect("a network");
    let endpoint = Endpoint {
        addresses: vec!["10.0.0.2/24".parse().expect("a subnet")],
        names: vec!["web".to_owned()],
        ..Endpoint::default()
    };
    let station = Station::Container(endpoint);
    switch.add_port(PORT, Port { network: NetworkId(1), station, ..Port::default() }).expect("a port");
    let mut answer = Vec::new();
    if switch.resolve(PORT, data, Road::Datagram(UDP_BYTES), 1, &mut answer) == Resolution::Answered {
        let packet = simple_dns::Packet::parse(&answer).expect("an answer");
        assert!(packet.answers.is_empty() || answer.len() <= UDP_BYTES);
        assert_eq!(packet.id().to_be_bytes(), data[..2]);
    }
    // Also as an answer of a server.
    let mut answer = data.to_vec();
    message::age(&mut answer, 5);
    assert_eq!(answer.len(), data.len());
}

/// Any bytes as a virtio-net header and a frame: what is admitted can be split, and the pieces are whole
/// frames that carry all of the payload and nothing else.
///
/// # Panics
/// When they are not.
pub fn offload(data: &[u8]) {
    with_pool(|pool| {
        let mut frame = pool.take().expect("a slot");
        let length = data.len().min(frame.receive_room().len());
        frame.receive_room()[..length].copy_from_slice(&data[..length]);
        frame.received(length);
        if length >= VNET_HEADER_BYTES && frame.parse().is_ok() {
            let pieces = split(&frame, Accepts::NONE, pool);
            if frame.offload.gso.is_some() {
                check_pieces(&frame, &pieces);
            } else {
                check_finished(&frame, &pieces);
            }
            pieces.into_iter().for_each(|piece| pool.free(piece));
        }
        pool.free(frame);
    });
}

/// Pieces of a super-frame are well-formed frames and carry its payload, all of it and nothing else.
fn check_pieces(frame: &Frame, pieces: &[Frame]) {
    let payload = |frame: &Frame| frame.bytes()[frame.headers.payload_offset()..].to_vec();
    assert_eq!(pieces.iter().flat_map(payload).collect::<Vec<_>>(), payload(frame));
    for piece in pieces {
        assert_eq!(Headers::parse(piece.bytes()), Ok(piece.headers));
        assert_eq!(piece.offload, Offload::NONE);
    }
}

/// A frame whose checksum was finished differs from what it was in that field alone.
fn check_finished(frame: &Frame, pieces: &[Frame]) {
    let [piece] = pieces else { panic!("{} pieces of a plain frame", pieces.len()) };
    assert_eq!(piece.offload, Offload::NONE);
    let (mut before, mut after) = (frame.bytes().to_vec(), piece.bytes().to_vec());
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        let field = usize::from(start) + usize::from(offset);
        before[field..field + 2].fill(0);
        after[field..field + 2].fill(0);
    }
    assert_eq!(before, after);
}

/// Everything a frame stands for, in order.
pub(crate) fn split(frame: &Frame, accepts: Accepts, pool: &mut Pool) -> Vec<Frame> {
    let mut splitter = Splitter::new(frame, accepts);
    let mut pieces = Vec::new();
    while splitter.next_batch(pool, &mut pieces).expect("enough slots") {}
    pieces
}

/// Any bytes as a burst of several flows: coalescing and splitting it gives back the same frames, to the
/// letter, and the frames of a flow in the same order.
///
/// # Panics
/// When a frame is lost, doubled, changed or overtakes another of its flow.
pub fn coalesce(data: &[u8]) {
    let sent = burst(data);
    let arrived = coalesced_and_split(&sent, Accepts::ALL);
    assert_eq!(arrived.len(), sent.len(), "frames");
    assert_same_order(&sent, &arrived);
}

/// The frames of a burst as they arrive at a receiver that takes super-frames and splits them by itself.
///
/// # Panics
/// When a slot is lost.
pub fn coalesced_and_split(sent: &[Sent], accepts: Accepts) -> Vec<Vec<u8>> {
    with_pool(|pool| {
        let mut frames: Vec<Frame> = sent.iter().map(|sent| sent.receive(pool)).collect();
        Coalescer::new(5).coalesce(&mut frames, accepts, pool);
        let mut arrived = Vec::new();
        for frame in frames {
            check_super_frame(&frame);
            for piece in split(&frame, Accepts::NONE, pool) {
                arrived.push(piece.bytes().to_vec());
                pool.free(piece);
            }
            pool.free(frame);
        }
        arrived
    })
}

/// Checks what the receiving kernel demands of a frame before it takes it.
pub(crate) fn check_super_frame(frame: &Frame) {
    let headers = Headers::parse(frame.bytes()).expect("still well-formed");
    assert_eq!(headers, frame.headers, "headers are where the frame says");
    frame.offload.check(&headers, frame.len()).expect("offload fits the headers");
    assert!(frame.len() - headers.network_offset() <= 65_535, "an IP packet");
}

/// Whether two frames are the same to the letter, but for the IPv4 identification of a packet that may not
/// be fragmented, which has no meaning (RFC 6864, 4.1), and the header checksum that follows from it.
fn means_the_same(one: &[u8], other: &[u8]) -> bool {
    let without = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if let Ok(headers) = Headers::parse(&bytes) {
            let at = headers.network_offset();
            let sum = |bytes: &[u8]| Sum::ZERO.add_bytes(&bytes[at..headers.transport_offset()]).folded();
            if headers.is_ipv4() && bytes[at + 6] & 0x40 != 0 {
                // A wrong checksum is not forgiven: it must arrive as it was sent.
                let right = sum(&bytes) == 0xffff;
                bytes[at + 4..at + 6].fill(0);
                if right {
                    bytes[at + 10..at + 12].fill(0);
                }
            }
        }
        bytes
    };
    without(one) == without(other)
}

/// Matches what arrived to what was sent: each arrival is the first frame still missing that it equals, and
/// none that is still missing before it may not be overtaken.
pub(crate) fn assert_same_order(sent: &[Sent], arrived: &[Vec<u8>]) {
    let mut missing: Vec<&Sent> = sent.iter().collect();
    for bytes in arrived {
        let at = missing.iter().position(|sent| means_the_same(&sent.bytes, bytes));
        let at = at.unwrap_or_else(|| panic!("nobody sent {bytes:02x?}"));
        let found = missing.remove(at);
        let overtaken = missing[..at].iter().find(|other| !found.may_overtake(other));
        assert!(overtaken.is_none(), "{found:?} overtook {overtaken:?}");
    }
}
