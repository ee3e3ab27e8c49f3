//! Frames by the port they leave by, in order per port.
//!
//! # Theory of operation
//! A burst may be for as many ports as it has frames. So it is gone through once: each frame is chained to
//! the one before it for the same port, by place, and ports are remembered in the order they came up.
//! No step looks at more than one frame, whatever the number of ports.

use vswitch_frame::{Frame, PortId};

/// No place: the end of a chain.
const NONE: u32 = u32::MAX;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Sorter {
    /// The frames, until they are taken.
    frames: Vec<Option<Frame>>,
    /// Behind each frame, the place of the next for the same port.
    next: Vec<u32>,
    /// The places of the first and last frame for a port; only those of `ports` mean anything.
    ends: Vec<(u32, u32)>,
    /// Ports that have frames, the next one last.
    ports: Vec<PortId>,
}

impl Sorter {
    /// Takes frames over. Those of before must have been taken.
    pub(crate) fn sort(&mut self, frames: &mut Vec<(PortId, Frame)>) {
        if self.ends.is_empty() {
            self.ends.resize(PortId::LIMIT, (NONE, NONE));
        }
        self.frames.clear();
        self.next.clear();
        for (port, frame) in frames.drain(..) {
            let at = u32::try_from(self.frames.len()).unwrap_or(NONE);
            self.frames.push(Some(frame));
            self.next.push(NONE);
            let ends = &mut self.ends[port.index()];
            if ends.0 == NONE {
                ends.0 = at;
                self.ports.push(port);
            } else {
                self.next[ends.1 as usize] = at;
            }
            ends.1 = at;
        }
        self.ports.reverse();
    }

    /// Appends the frames for the next port to `queue`, in their order, and says which port it is.
    pub(crate) fn next(&mut self, queue: &mut Vec<Frame>) -> Option<PortId> {
        let port = self.ports.pop()?;
        let (mut at, _) = std::mem::replace(&mut self.ends[port.index()], (NONE, NONE));
        while let Some(frame) = self.frames.get_mut(at as usize) {
            queue.extend(frame.take());
            at = self.next[at as usize];
        }
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use vswitch_frame::Pool;

    use super::*;

    #[test]
    fn ports_come_in_order_and_so_do_their_frames() {
        let mut pool = Pool::new(8);
        let mut sorter = Sorter::default();
        // Twice: nothing is left of the first time.
        for _ in 0..2 {
            let mut frames: Vec<_> = [3, 1, 3, 4095, 1, 3]
                .into_iter()
                .zip(0..)
                .map(|(port, number)| {
                    let mut frame = pool.take().expect("a slot");
                    frame.fill(&[number; 20]);
                    (PortId(port), frame)
                })
                .collect();
            sorter.sort(&mut frames);
            assert!(frames.is_empty());
            let mut sorted = Vec::new();
            let mut queue = Vec::new();
            while let Some(port) = sorter.next(&mut queue) {
                sorted.push((port.0, queue.iter().map(|frame| frame.bytes()[0]).collect()));
                queue.drain(..).for_each(|frame| pool.free(frame));
            }
            assert_eq!(sorted, [(3, vec![0, 2, 5]), (1, vec![1, 4]), (4095, vec![3])]);
        }
        assert_eq!(pool.available(), pool.capacity());
    }
}
