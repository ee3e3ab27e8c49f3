//! Bytes that somebody else chose, as decisions: the first choice of each kind is what zero stands for, so
//! that the end of the bytes is the plainest of frames.

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte; zero at the end.
    pub(super) fn next(&mut self) -> u8 {
        self.rest.split_off_first().copied().unwrap_or(0)
    }

    /// The next two bytes as a number.
    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.next(), self.next()])
    }

    /// One of these.
    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.next()) % from.len()].clone()
    }

    /// Whether something happens that happens once in `times`.
    pub(super) fn once_in(&mut self, times: u8) -> bool {
        self.next() % times == times - 1
    }

    /// The next bytes, as many as the first of them says.
    pub(super) fn some(&mut self) -> Vec<u8> {
        let length = usize::from(self.next()).min(self.rest.len());
        let (some, rest) = self.rest.split_at(length);
        self.rest = rest;
        some.to_vec()
    }
}
