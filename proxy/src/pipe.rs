//! One direction of a relay: bytes on their way from a source to a sink, and then the source's end.
//!
//! # Theory of operation
//!
//! A ring of fixed size, allocated once. When it is full the pipe no longer wants to receive: its owner
//! stops reading, the source's TCP window closes, and the source slows down to the sink's pace. That
//! is all the back-pressure there is. A read or a write gets the largest piece that does not wrap, so a full
//! turn of the ring takes two of each.
//!
//! The end of the source is passed on like a byte behind the last one, and says nothing about the other
//! direction: that is what makes a connection *half-closed* (RFC 9293, 3.6).

/// How far a pipe has come. It only moves forward, and only as the last column says.
///
/// | state | receives | sends | moves on |
/// |---|---|---|---|
/// | `Open` | while there is room | while there are bytes | to `Ending` when the source ends |
/// | `Ending` | no | the bytes that are left, then the end | to `Closed` when the end is sent |
/// | `Closed` | no | no | never |
///
/// [`Pipe::abort`] goes to `Closed` from anywhere, and forgets the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The source may still send.
    Open,
    /// The source has sent its end, which has not been passed on.
    Ending,
    /// The sink has got everything, or never will.
    Closed,
}

/// One direction of a relay: a bounded ring of bytes from a source to a sink, and then the source's end.
#[derive(Debug)]
pub struct Pipe {
    ring: Box<[u8]>,
    /// Where in the ring the first byte is. Below the ring's length.
    first: usize,
    held: usize,
    state: State,
}

impl Pipe {
    /// An open pipe that holds at most `capacity` bytes, which must not be zero.
    ///
    /// # Panics
    /// When `capacity` is zero: such a pipe would never pass anything on.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a pipe without room");
        Self { ring: vec![0; capacity].into_boxed_slice(), first: 0, held: 0, state: State::Open }
    }

    /// How far it has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Bytes received and not yet sent.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether to read from the source.
    pub fn wants_to_receive(&self) -> bool {
        self.state == State::Open && self.held < self.ring.len()
    }

    /// Whether to write to the sink.
    pub fn wants_to_send(&self) -> bool {
        self.held > 0 && self.state != State::Closed
    }

    /// Whether to tell the sink that there will be no more, as `shutdown` does. Then call
    /// [`end_sent`](Self::end_sent).
    pub fn wants_to_end(&self) -> bool {
        self.state == State::Ending && self.held == 0
    }

    /// Has `read` fill free room from the source, and answer as the system call does: how many bytes it
    /// wrote at the start of the room, zero for the source's end. Unless the pipe
    /// [wants to receive](Self::wants_to_receive), `read` is not called.
    ///
    /// # Errors
    /// That of `read`; nothing has changed then.
    pub fn receive<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        if !self.wants_to_receive() {
            return Ok(());
        }
        let capacity = self.ring.len();
        let from = (self.first + self.held) % capacity;
        let to = if from < self.first { self.first } else { capacity };
        let room = &mut self.ring[from..to];
        let length = room.len();
        match read(room)?.min(length) {
            0 => self.state = State::Ending,
            received => self.held += received,
        }
        Ok(())
    }

    /// Has `write` pass bytes on to the sink, and answer as the system call does: how many it took from
    /// the start of them. Unless the pipe [wants to send](Self::wants_to_send), `write` is not called.
    ///
    /// # Errors
    /// That of `write`; nothing has changed then.
    pub fn send<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<usize, E>) -> Result<(), E> {
        if !self.wants_to_send() {
            return Ok(());
        }
        let capacity = self.ring.len();
        let bytes = &self.ring[self.first..capacity.min(self.first + self.held)];
        let sent = write(bytes)?.min(bytes.len());
        self.held -= sent;
        // An empty ring starts over, so that the next read gets all of it in one piece.
        self.first = if self.held == 0 { 0 } else { (self.first + sent) % capacity };
        Ok(())
    }

    /// The sink has been told that there will be no more. Without effect unless the pipe
    /// [wants to end](Self::wants_to_end).
    pub fn end_sent(&mut self) {
        if self.wants_to_end() {
            self.state = State::Closed;
        }
    }

    /// Gives up: nothing more will pass.
    pub fn abort(&mut self) {
        self.held = 0;
        self.state = State::Closed;
    }
}
