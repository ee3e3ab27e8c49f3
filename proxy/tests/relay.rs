//! A relay against a model with no bound and no ring: whatever the order of reads and writes, each
//! side gets what the other sent, and then its end.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_proxy::{Relay, Side, State};

const CAPACITY: usize = 7;

/// Something that happens at one side of a relay.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It is read from, and at most so many bytes are there.
    Sends(usize),
    /// It is read from, and its end is there.
    Ends,
    /// It is written to, and takes at most so many bytes.
    Takes(usize),
    /// It is told of its peer's end.
    HearsEnd,
    /// It is written to, and would block.
    Blocks,
    /// Its connection breaks.
    Breaks,
}

fn event() -> impl Strategy<Value = (Side, Event)> {
    let side = prop_oneof![Just(Side::Initiator), Just(Side::Target)];
    let event = prop_oneof![
        40 => (1..10usize).prop_map(Event::Sends),
        40 => (0..10usize).prop_map(Event::Takes),
        10 => Just(Event::HearsEnd),
        10 => Just(Event::Blocks),
        4 => Just(Event::Ends),
        1 => Just(Event::Breaks),
    ];
    (side, event)
}

/// One direction of the model: all that was ever sent, and how much of it arrived.
#[derive(Debug, Default)]
struct Direction {
    sent: Vec<u8>,
    arrived: usize,
    ended: bool,
    closed: bool,
}

impl Direction {
    fn held(&self) -> usize {
        if self.closed { 0 } else { self.sent.len() - self.arrived }
    }

    fn may_read(&self) -> bool {
        !self.ended && !self.closed && self.held() < CAPACITY
    }

    fn state(&self) -> State {
        match (self.closed, self.ended) {
            (true, _) => State::Closed,
            (false, true) => State::Ending,
            (false, false) => State::Open,
        }
    }
}

/// A relay and its model, going through the same events.
struct Pair {
    relay: Relay,
    from_initiator: Direction,
    from_target: Direction,
    next_byte: u8,
}

impl Pair {
    fn new() -> Self {
        let (from_initiator, from_target) = Default::default();
        Self { relay: Relay::new(CAPACITY), from_initiator, from_target, next_byte: 0 }
    }

    fn model(&mut self, source: Side) -> &mut Direction {
        match source {
            Side::Initiator => &mut self.from_initiator,
            Side::Target => &mut self.from_target,
        }
    }

    fn step(&mut self, side: Side, event: Event) {
        match event {
            Event::Sends(most) => self.sends(side, most),
            Event::Ends => self.sends(side, 0),
            Event::Takes(most) => self.takes(side, most),
            Event::HearsEnd => {
                self.relay.to(side).end_sent();
                let model = self.model(side.peer());
                model.closed |= model.ended && model.held() == 0;
            }
            Event::Blocks => {
                let tried = self.relay.to(side).send(|_| Err("would block"));
                assert_eq!(tried.is_err(), self.model(side.peer()).held() > 0);
            }
            Event::Breaks => {
                self.relay.abort();
                for source in Side::BOTH {
                    self.model(source).closed = true;
                }
            }
        }
        self.compare();
    }

    fn sends(&mut self, side: Side, most: usize) {
        let mut next = self.next_byte;
        let mut sent = None;
        let Ok(()) = self.relay.from(side).receive(|room| {
            assert!(!room.is_empty());
            let count = most.min(room.len());
            room[..count].fill_with(|| {
                next = next.wrapping_add(1);
                next
            });
            sent = Some(room[..count].to_vec());
            Ok::<usize, Infallible>(count)
        });
        self.next_byte = next;
        let model = self.model(side);
        assert_eq!(sent.is_some(), model.may_read(), "read exactly when there is room");
        if let Some(bytes) = sent {
            model.ended |= bytes.is_empty();
            model.sent.extend(bytes);
        }
    }

    fn takes(&mut self, side: Side, most: usize) {
        let mut taken = None;
        let Ok(()) = self.relay.to(side).send(|bytes| {
            assert!(!bytes.is_empty());
            let count = most.min(bytes.len());
            taken = Some(bytes[..count].to_vec());
            Ok::<usize, Infallible>(count)
        });
        let model = self.model(side.peer());
        assert_eq!(taken.is_some(), model.held() > 0, "written exactly when there are bytes");
        if let Some(bytes) = taken {
            assert_eq!(bytes, model.sent[model.arrived..][..bytes.len()]);
            model.arrived += bytes.len();
        }
    }

    fn compare(&mut self) {
        for side in Side::BOTH {
            let model = self.model(side);
            let (held, state, may_read) = (model.held(), model.state(), model.may_read());
            let pipe = self.relay.from(side);
            assert_eq!((pipe.held(), pipe.state()), (held, state));
            assert!(held <= CAPACITY);
            assert_eq!(pipe.wants_to_receive(), may_read);
            assert_eq!(pipe.wants_to_send(), held > 0);
            assert_eq!(pipe.wants_to_end(), state == State::Ending && held == 0);
        }
        assert_eq!(self.relay.is_done(), self.from_initiator.closed && self.from_target.closed);
    }

    /// Lets both sides end, take everything and hear of the end.
    fn finish(&mut self) {
        for side in Side::BOTH {
            while self.model(side).held() > 0 {
                self.step(side.peer(), Event::Takes(usize::MAX));
            }
            self.step(side, Event::Ends);
            self.step(side.peer(), Event::HearsEnd);
        }
        assert!(self.relay.is_done());
    }
}

proptest! {
    #[test]
    fn each_side_gets_what_the_other_sent(events in vec(event(), 0..200)) {
        let broke = events.iter().any(|(_, event)| matches!(event, Event::Breaks));
        let mut pair = Pair::new();
        for (side, event) in events {
            pair.step(side, event);
        }
        pair.finish();
        for direction in [&pair.from_initiator, &pair.from_target] {
            prop_assert!(broke || direction.arrived == direction.sent.len());
        }
    }
}

#[test]
fn a_half_closed_relay_carries_the_answer() {
    let mut relay = Relay::new(64);
    let read = |bytes: &'static [u8]| {
        move |room: &mut [u8]| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok::<usize, Infallible>(bytes.len())
        }
    };
    let expect = |expected: &'static [u8]| {
        move |bytes: &[u8]| {
            assert_eq!(bytes, expected);
            Ok::<usize, Infallible>(bytes.len())
        }
    };
    let Ok(()) = relay.from(Side::Initiator).receive(read(b"question"));
    let Ok(()) = relay.from(Side::Initiator).receive(read(b""));
    assert!(!relay.to(Side::Target).wants_to_end(), "bytes come before the end");
    let Ok(()) = relay.to(Side::Target).send(expect(b"question"));
    assert!(relay.to(Side::Target).wants_to_end());
    relay.to(Side::Target).end_sent();
    let Ok(()) = relay.from(Side::Target).receive(read(b"answer"));
    let Ok(()) = relay.to(Side::Initiator).send(expect(b"answer"));
    assert!(!relay.is_done());
    let Ok(()) = relay.from(Side::Target).receive(read(b""));
    relay.to(Side::Initiator).end_sent();
    assert!(relay.is_done());
}

#[test]
fn a_full_pipe_stops_reading_until_there_is_room() {
    let mut relay = Relay::new(4);
    let pipe = relay.from(Side::Target);
    let Ok(()) = pipe.receive(|room| Ok::<usize, Infallible>(room.len()));
    assert!(!pipe.wants_to_receive());
    let Ok(()) = pipe.receive(|_| -> Result<usize, Infallible> { panic!("read into a full pipe") });
    let Ok(()) = pipe.send(|_| Ok::<usize, Infallible>(1));
    assert!(pipe.wants_to_receive());
    assert_eq!(
        pipe.receive(|room| if room.len() == 1 { Err("would block") } else { Ok(0) }),
        Err("would block")
    );
    assert_eq!((pipe.held(), pipe.state()), (3, State::Open), "an error changes nothing");
}
