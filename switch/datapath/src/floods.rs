//! Frames for many: copied a piece at a time, so that nobody waits for all copies of another's burst.
//!
//! # Theory of operation
//! A frame to a thousand receivers is more work than a thousand frames to one. What a burst has for many goes
//! behind its port's *backlog*, and each turn of the port makes [`COPIES`] copies from the front of it; the
//! port is not read before the backlog is empty. So order is kept, the port's own kernel queue is what grows
//! full, and nothing is dropped that the port could have sent alone. A turn with fewer copies, which is
//! nearly every one, leaves nothing behind.
//!
//! * **Frames held** are [`HELD_MAX`] at most. A port may have half of what others leave, so some is always
//!   left for one more: what exceeds that is dropped at the port that it came from (`flood-limit`).
//! * **Receivers** of a frame that more than one piece is needed for are counted off in their order. Who
//!   comes or goes meanwhile may shift them by one: a copy is missing then, or there is one too many.
//! * **The end of a port** is the end of its backlog.

use std::collections::VecDeque;

use vswitch_contract::counters::Counters;
use vswitch_engine::{Audience, Verdicts};
use vswitch_frame::{DropReason, Frame, Pool, PortId};

/// Copies that one turn of a port makes, but for those of a tunnel to its peers, which leave together.
pub(crate) const COPIES: usize = 256;
/// Frames that wait to be copied, of all ports.
pub(crate) const HELD_MAX: usize = 2048;

/// The frames of every port that wait to be copied.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    backlogs: Vec<Backlog>,
    held: usize,
}

#[derive(Debug, Default)]
struct Backlog {
    /// Each with its audience: a multicast group's, or all (`None`).
    frames: VecDeque<(Option<Audience>, Frame)>,
    /// Receivers that the first frame has been copied to.
    reached: usize,
}

/// The next copies to be made for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Whom its frames are for, all of them.
    pub(crate) audience: Option<Audience>,
    /// How many frames, from the front.
    pub(crate) frames: usize,
    /// The first receiver, by its place among them.
    pub(crate) from: usize,
    /// How many receivers.
    pub(crate) receivers: usize,
}

impl Floods {
    /// How many frames wait.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether frames of a port wait.
    pub(crate) fn has(&self, port: PortId) -> bool {
        self.backlogs.get(port.index()).is_some_and(|backlog| !backlog.frames.is_empty())
    }

    /// Puts the frames for many of a burst behind those of its port.
    pub(crate) fn append(&mut self, port: PortId, verdicts: &mut Verdicts) {
        if verdicts.flood.is_empty() && verdicts.multicast.is_empty() {
            return;
        }
        if self.backlogs.len() <= port.index() {
            self.backlogs.resize_with(port.index() + 1, Backlog::default);
        }
        let frames = &mut self.backlogs[port.index()].frames;
        let before = frames.len();
        frames.extend(verdicts.flood.drain(..).map(|frame| (None, frame)));
        // By audience, in the order of each: pieces are of one.
        while let Some((audience, _)) = verdicts.multicast.first() {
            let audience = *audience;
            let alike = verdicts.multicast.extract_if(.., |(other, _)| *other == audience);
            frames.extend(alike.map(|(audience, frame)| (Some(audience), frame)));
        }
        self.held += frames.len() - before;
    }

    /// The audience of the first frame that waits at a port.
    pub(crate) fn audience(&self, port: PortId) -> Option<Option<Audience>> {
        self.backlogs.get(port.index())?.frames.front().map(|(audience, _)| *audience)
    }

    /// The next piece of a port, of at most `room` copies, when the first frame's audience is so many. Zero
    /// receivers need no room.
    pub(crate) fn piece(&self, port: PortId, receivers: usize, room: usize) -> Option<Piece> {
        let Backlog { frames, reached } = self.backlogs.get(port.index())?;
        let audience = frames.front()?.0;
        let from = (*reached).min(receivers);
        if from > 0 || receivers > room {
            return Some(Piece { audience, frames: 1, from, receivers: room.min(receivers - from) });
        }
        let alike = frames.iter().take_while(|(other, _)| *other == audience);
        let frames = alike.take(room / receivers.max(1)).count();
        Some(Piece { audience, frames, from, receivers })
    }

    /// Moves the frames of a piece to `into`, to be copied and given [back](Self::give_back).
    pub(crate) fn take(&mut self, port: PortId, piece: Piece, into: &mut Vec<Frame>) {
        if let Some(backlog) = self.backlogs.get_mut(port.index()) {
            into.extend(backlog.frames.drain(..piece.frames).map(|(_, frame)| frame));
            self.held -= piece.frames;
        }
    }

    /// Notes that a piece has been copied. Its frames are freed, but for one that has receivers left, of so
    /// many there are.
    pub(crate) fn give_back(
        &mut self,
        port: PortId,
        piece: Piece,
        receivers: usize,
        frames: &mut Vec<Frame>,
        pool: &mut Pool,
    ) {
        let Some(backlog) = self.backlogs.get_mut(port.index()) else { return };
        backlog.reached = piece.from + piece.receivers;
        if backlog.reached < receivers
            && let Some(frame) = frames.pop()
        {
            backlog.frames.push_front((piece.audience, frame));
            self.held += 1;
        } else {
            backlog.reached = 0;
        }
        frames.drain(..).for_each(|frame| pool.free(frame));
    }

    /// Drops what a port may not leave waiting, the last first.
    pub(crate) fn trim(&mut self, port: PortId, pool: &mut Pool, counters: &Counters) {
        let Some(Backlog { frames, .. }) = self.backlogs.get_mut(port.index()) else { return };
        let of_others = self.held - frames.len();
        let excess = frames.len().saturating_sub(HELD_MAX.saturating_sub(of_others) / 2);
        if excess > 0 {
            counters.drop(port, DropReason::FloodLimit, excess as u64);
            frames.drain(frames.len() - excess..).for_each(|(_, frame)| pool.free(frame));
            self.held -= excess;
        }
    }

    /// Forgets what waits at a port.
    pub(crate) fn forget(&mut self, port: PortId, pool: &mut Pool) {
        let Some(backlog) = self.backlogs.get_mut(port.index()) else { return };
        self.held -= backlog.frames.len();
        backlog.frames.drain(..).for_each(|(_, frame)| pool.free(frame));
        backlog.reached = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: PortId = PortId(7);
    const OTHER: PortId = PortId(8);

    fn burst(pool: &mut Pool, count: usize) -> Verdicts {
        let frame = |number: usize| {
            let mut frame = pool.take().expect("a slot");
            frame.fill(&[u8::try_from(number % 256).expect("a byte"); 60]);
            frame
        };
        Verdicts { flood: (0..count).map(frame).collect(), ..Verdicts::default() }
    }

    /// Makes a turn's copies for so many receivers. Appends which frame was copied to which of them, and says
    /// how many copies were made.
    fn turn(floods: &mut Floods, pool: &mut Pool, receivers: usize, log: &mut Vec<(u8, usize)>) -> usize {
        let mut room = COPIES;
        let mut copied = Vec::new();
        while room > 0 && floods.audience(FLOODER).is_some() {
            let piece = floods.piece(FLOODER, receivers, room).expect("it has some");
            if piece.frames == 0 {
                break;
            }
            floods.take(FLOODER, piece, &mut copied);
            for frame in &copied {
                log.extend((piece.from..piece.from + piece.receivers).map(|to| (frame.bytes()[0], to)));
            }
            floods.give_back(FLOODER, piece, receivers, &mut copied, pool);
            room -= piece.frames * piece.receivers;
        }
        COPIES - room
    }

    #[test]
    fn every_receiver_gets_every_frame_a_piece_at_a_time() {
        for receivers in [1, 10, 255, 256, 257, 999] {
            let mut pool = Pool::new(40);
            let mut floods = Floods::default();
            floods.append(FLOODER, &mut burst(&mut pool, 40));
            assert!(floods.has(FLOODER) && !floods.has(OTHER));
            let (mut log, mut turns) = (Vec::new(), 0);
            while floods.has(FLOODER) {
                assert!((1..=COPIES).contains(&turn(&mut floods, &mut pool, receivers, &mut log)));
                turns += 1;
            }
            assert!(turns >= (40 * receivers).div_ceil(COPIES), "{receivers} receivers, {turns} turns");
            assert_eq!(log.len(), 40 * receivers);
            for to in 0..receivers {
                let frames = log.iter().filter(|(_, other)| *other == to).map(|(frame, _)| *frame);
                assert!(frames.eq(0..40), "in order");
            }
            assert_eq!((floods.held(), pool.available()), (0, 40));
        }
    }

    #[test]
    fn frames_for_nobody_go() {
        let mut pool = Pool::new(4);
        let mut floods = Floods::default();
        floods.append(FLOODER, &mut burst(&mut pool, 4));
        let piece = floods.piece(FLOODER, 0, COPIES).expect("it has some");
        let mut copied = Vec::new();
        floods.take(FLOODER, piece, &mut copied);
        floods.give_back(FLOODER, piece, 0, &mut copied, &mut pool);
        assert_eq!((floods.has(FLOODER), pool.available()), (false, 4));
    }

    #[test]
    fn a_port_leaves_room_for_others_and_its_end_is_that_of_its_backlog() {
        let counters = Counters::new().expect("memory");
        let mut pool = Pool::new(HELD_MAX);
        let mut floods = Floods::default();
        floods.append(FLOODER, &mut burst(&mut pool, HELD_MAX / 2));
        floods.trim(FLOODER, &mut pool, &counters);
        assert_eq!(floods.held(), HELD_MAX / 2, "a whole burst of one port");
        floods.append(OTHER, &mut burst(&mut pool, HELD_MAX / 2));
        floods.trim(OTHER, &mut pool, &counters);
        assert_eq!(floods.held(), HELD_MAX * 3 / 4, "of another half of the rest");
        let dropped = |port| counters.read(port).drops[DropReason::FloodLimit.index()];
        assert_eq!([dropped(FLOODER), dropped(OTHER)], [0, HELD_MAX as u64 / 4]);
        floods.forget(FLOODER, &mut pool);
        assert!(!floods.has(FLOODER) && floods.has(OTHER));
        assert_eq!(pool.available() + floods.held(), HELD_MAX);
    }
}
