//! Frames of the switch's own: nobody asked for them.

use vswitch_frame::PortId;

use crate::turn::Datapath;

impl Datapath {
    /// Sends what is due: router advertisements, and questions about who has joined which group.
    pub(super) fn speak(&mut self) {
        while let Some((frame, targets)) = self.switch.next_advertisement(&mut self.worker.pool) {
            self.worker.burst.push(frame);
            self.flood(&targets);
        }
        while let Some(query) = self.switch.next_query() {
            self.write(&query.bytes);
            let targets: Vec<_> = self.switch.query_targets(&query).collect();
            self.flood(&targets);
        }
    }

    /// Says where the addresses of the container behind a port are, to whom its floods go.
    pub(crate) fn announce(&mut self, port: PortId) {
        for bytes in self.switch.announcements(port) {
            self.write(&bytes);
        }
        let targets: Vec<_> = self.switch.flood_targets(port).collect();
        self.flood(&targets);
    }

    /// Makes a frame of bytes and lets it wait. Without a slot it is left out: all of these are said again.
    fn write(&mut self, bytes: &[u8]) {
        let Some(mut frame) = self.worker.pool.take() else { return };
        frame.fill(bytes);
        match frame.parse() {
            Ok(()) => self.worker.burst.push(frame),
            Err(_) => self.worker.pool.free(frame),
        }
    }

    /// Sends the frames that wait to each of these ports whose MTU they fit.
    fn flood(&mut self, targets: &[(PortId, usize)]) {
        self.worker.flood_burst(targets, &mut self.tunnels, &self.counters);
    }
}
