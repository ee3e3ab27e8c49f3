//! TCP, as far as a translator must follow it (RFC 5382; RFC 7857, 2).
//!
//! # Theory of operation
//!
//! Established means that SYN and ACK were seen from both sides, in any order: the handshake of three and
//! the simultaneous open of four segments alike. Closed means FIN from both.
//!
//! **Resets.** A forged reset must not end a flow (RFC 5961). One counts only when its sequence number is
//! within the window of who receives it. If that side goes on all the same, as it does when the reset was a
//! guess that it has challenged, the flow is established again. Resets that do not count pass, for their
//! receiver to judge.

use vswitch_frame::headers::be16;

use crate::flow::{Class, Flow, Side};

/// Where a connection is, as far as a translator sees. The names are those that Linux's connection tracking
/// uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TcpState {
    /// A SYN of one side.
    SynSent,
    /// A SYN of both sides.
    SynReceived,
    /// The handshake is done.
    Established,
    /// A FIN of one side.
    FinWait,
    /// A FIN of both sides.
    TimeWait,
    /// A reset that fits.
    Close,
}

impl TcpState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::SynSent, Self::SynReceived, Self::Established, Self::FinWait, Self::TimeWait, Self::Close];

    /// The name that `conntrack -L` shows.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
        }
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    /// The window scale option of a SYN.
    pub(crate) scale: u8,
    pub(crate) flags: u8,
    /// Bytes of sequence space it takes up.
    pub(crate) length: u32,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Places of the bits of [`Flow::handshake`], two each.
const SYN_SEEN: u32 = 0;
const ACK_SEEN: u32 = 2;
const FIN_SEEN: u32 = 4;
const WAS_RESET: u32 = 6;

impl Segment {
    /// Reads a header with its options; `None` if it is cut short.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = bytes.first_chunk()?;
        let length = usize::from(header[12] >> 4) * 4;
        let options = bytes.get(20..length)?;
        let flags = header[13];
        let marks = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let word = |at: usize| u32::from(be16(header, at)) << 16 | u32::from(be16(header, at + 2));
        Some(Self {
            sequence: word(4),
            acknowledgement: word(8),
            window: be16(header, 14),
            scale: if flags & SYN != 0 { window_scale(options) } else { 0 },
            flags,
            length: u32::try_from(bytes.len() - length).unwrap_or(0) + marks,
        })
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether no sender that follows RFC 9293 makes such flags.
    pub(crate) fn contradicts_itself(&self) -> bool {
        let ends = self.flags & (SYN | FIN | RST);
        ends.count_ones() > 1 || self.flags & (SYN | ACK | RST) == 0
    }

    /// Whether it begins a connection.
    pub(crate) fn begins(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }
}

fn window_scale(options: &[u8]) -> u8 {
    const WINDOW_SCALE: u8 = 3;
    let found = Options::new(options).find(|option| option.kind == WINDOW_SCALE);
    found.and_then(|option| option.value.first()).map_or(0, |&scale| scale.min(14))
}

/// One option of a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpOption<'a> {
    pub(crate) kind: u8,
    /// Where, in the options, the value starts.
    pub(crate) at: usize,
    pub(crate) value: &'a [u8],
}

/// The options of a header, up to the first that is cut short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        const NO_OPERATION: u8 = 1;
        while *self.bytes.get(self.at)? == NO_OPERATION {
            self.at += 1;
        }
        let &[kind, length] = self.bytes.get(self.at..)?.first_chunk()?;
        if kind == 0 || length < 2 {
            return None;
        }
        let (at, end) = (self.at + 2, self.at + usize::from(length));
        self.at = end;
        Some(TcpOption { kind, at, value: self.bytes.get(at..end)? })
    }
}

/// Takes a segment of one side into account, and says what the flow is now.
pub(crate) fn advance(flow: &mut Flow, side: Side, segment: &Segment) -> Class {
    if segment.has(RST) {
        return reset(flow, side, segment);
    }
    let may_begin_again = side == Side::Initiator;
    if flow.class == Class::TcpClosing && segment.begins() && may_begin_again {
        flow.handshake = 0;
    }
    let mine = u32::from(side == Side::Target);
    let mut mark = |place: u32, seen: bool| flow.handshake |= u8::from(seen) << (place + mine);
    mark(SYN_SEEN, segment.has(SYN));
    mark(ACK_SEEN, segment.has(ACK));
    mark(FIN_SEEN, segment.has(FIN));
    // A side that was reset and goes on was not reset.
    flow.handshake &= !(1 << (WAS_RESET + mine));
    let at = side.index();
    if segment.has(SYN) {
        flow.scales[at] = segment.scale;
    }
    if segment.has(ACK) {
        flow.acked[at] = segment.acknowledgement;
        flow.windows[at] = segment.window;
    }
    class(flow.handshake)
}

fn class(handshake: u8) -> Class {
    let both = |place: u32| handshake >> place & 0b11 == 0b11;
    if handshake >> WAS_RESET != 0 || both(FIN_SEEN) {
        Class::TcpClosing
    } else if both(SYN_SEEN) && both(ACK_SEEN) {
        Class::Tcp
    } else {
        Class::TcpOpening
    }
}

/// Where a connection is of which this was seen.
pub(crate) fn state(handshake: u8) -> TcpState {
    let seen = |place: u32| handshake >> place & 0b11;
    if seen(WAS_RESET) != 0 {
        return TcpState::Close;
    }
    match (seen(FIN_SEEN), class(handshake), seen(SYN_SEEN)) {
        (0b11, ..) => TcpState::TimeWait,
        (0b01 | 0b10, ..) => TcpState::FinWait,
        (_, Class::Tcp, _) => TcpState::Established,
        (.., 0b11) => TcpState::SynReceived,
        _ => TcpState::SynSent,
    }
}

fn reset(flow: &mut Flow, side: Side, segment: &Segment) -> Class {
    let receiver = side.other().index();
    let bit = u32::from(side == Side::Initiator);
    let has_acked = flow.handshake >> (ACK_SEEN + bit) & 1 == 1;
    let window = u32::from(flow.windows[receiver]) << flow.scales[receiver];
    let fits = segment.sequence.wrapping_sub(flow.acked[receiver]) <= window;
    if has_acked && fits {
        flow.handshake |= 1 << (WAS_RESET + bit);
    }
    class(flow.handshake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_where_its_segments_have_brought_it() {
        let table = [
            (0b0000_0001, TcpState::SynSent),
            (0b0000_1011, TcpState::SynReceived),
            (0b0000_1111, TcpState::Established),
            (0b0001_1111, TcpState::FinWait),
            (0b0010_1111, TcpState::FinWait),
            (0b0011_1111, TcpState::TimeWait),
            (0b0100_1111, TcpState::Close),
        ];
        for (handshake, expected) in table {
            assert_eq!(state(handshake), expected, "{handshake:#b}");
        }
    }

    #[test]
    fn options_are_read_up_to_the_first_that_is_cut_short() {
        assert_eq!(window_scale(&[1, 3, 3, 7, 0]), 7);
        assert_eq!(window_scale(&[2, 4, 5, 0xb4, 3, 3, 99]), 14);
        for cut in [&[3u8][..], &[3, 3], &[3, 0, 7], &[2, 200, 0], &[0, 3, 3, 7], &[]] {
            assert_eq!(window_scale(cut), 0, "{cut:?}");
        }
    }
}
