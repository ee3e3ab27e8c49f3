//! Golden frames: what goes in and what comes out, byte for byte.
//!
//! A file holds frames in hexadecimal, virtio-net header first: lines that start with `>` go in, lines that
//! start with `<` must come out. What is left white is not compared. The vnet header is in the byte order of
//! little-endian machines.

use std::path::Path;

use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Frame, Pool};
use vswitch_tests::repository;

/// The frames on the lines of a golden file that start with `mark`.
fn frames(path: &str, mark: char) -> Vec<Vec<u8>> {
    let text = repository::document(path).text;
    let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
    let bytes = |line: &str| -> Vec<u8> {
        let digits: Vec<char> = line.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        pairs.map(|pair| u8::from_str_radix(&pair, 16).expect("hexadecimal")).collect()
    };
    lines.map(bytes).collect()
}

fn received(bytes: &[u8], pool: &mut Pool) -> Frame {
    let mut frame = pool.take().expect("a slot");
    frame.receive_room()[..bytes.len()].copy_from_slice(bytes);
    frame.received(bytes.len());
    frame.parse().expect("well-formed");
    frame
}

fn compare(name: &str, work: impl FnOnce(Vec<Frame>, &mut Pool) -> Vec<Frame>) {
    let path = Path::new("tests/golden").join(name).display().to_string();
    let mut pool = Pool::new(64);
    let sent = frames(&path, '>').iter().map(|bytes| received(bytes, &mut pool)).collect();
    let expected = frames(&path, '<');
    assert!(!expected.is_empty(), "{path} expects nothing");
    let arrived: Vec<Vec<u8>> =
        work(sent, &mut pool).iter_mut().map(|frame| frame.with_vnet_header().to_vec()).collect();
    let hex =
        |frames: &[Vec<u8>]| -> Vec<String> { frames.iter().map(|frame| format!("{frame:02x?}")).collect() };
    assert_eq!(hex(&arrived), hex(&expected), "{path}");
}

fn coalesced(mut frames: Vec<Frame>, pool: &mut Pool) -> Vec<Frame> {
    Coalescer::new(1).coalesce(&mut frames, Accepts::ALL, pool);
    frames
}

fn split(frames: Vec<Frame>, pool: &mut Pool) -> Vec<Frame> {
    let mut pieces = Vec::new();
    for frame in &frames {
        let mut splitter = Splitter::new(frame, Accepts::NONE);
        while splitter.next_batch(pool, &mut pieces).expect("slots") {}
    }
    pieces
}

#[test]
#[cfg(target_endian = "little")]
fn datagrams_over_ipv4_become_one() {
    compare("coalesce-udp4.hex", coalesced);
}

#[test]
#[cfg(target_endian = "little")]
fn segments_over_ipv6_behind_a_tag_become_one() {
    compare("coalesce-tcp6-tagged.hex", coalesced);
}

#[test]
#[cfg(target_endian = "little")]
fn a_tcp_super_frame_over_ipv4_is_split() {
    compare("split-tcp4.hex", split);
}

#[test]
#[cfg(target_endian = "little")]
fn a_udp_super_frame_over_ipv6_is_split() {
    compare("split-udp6.hex", split);
}
