//! Announcing a new endpoint in its network, several times, since announcements are not acknowledged.

use std::time::Duration;

use vswitch_frame::PortId;

use crate::link::Link;
use crate::network::options::Announcements;

/// Has the switch say where the addresses behind a port are, beside whatever else goes on.
pub fn start(link: Link, port: PortId, Announcements { count, interval_ms }: Announcements) {
    tokio::spawn(async move {
        for number in 0..count {
            if number > 0 {
                tokio::time::sleep(Duration::from_millis(interval_ms.into())).await;
            }
            if link.announce(port).await.is_err() {
                return;
            }
        }
    });
}
