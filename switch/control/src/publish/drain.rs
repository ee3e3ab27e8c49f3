//! Ports that are published no longer, but for the flows that they have.
//!
//! # Theory of operation
//! Such a port takes no new flow: who begins one is reset. Its socket is held, so that nobody else has it,
//! and its flows are translated. Control asks every [`LOOK_EVERY`] whether there are any, and lets go of it
//! when the last has ended. Relays need nothing of the port, and go on beyond that.

use std::time::Duration;

use vswitch_contract::fact::{Change, Fact};
use vswitch_contract::relay::Binding;

use crate::actor::Handle;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::publish::published::Published;

/// Time between two looks. One passes all flows there are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lets go of drained ports, until the daemon stops.
pub(crate) async fn follow(handle: Handle) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(draining) = handle.look(Control::is_draining).await else { return };
        if !draining {
            continue;
        }
        let done = handle.note(async |control| control.let_go_of_drained().await);
        if let Err(error) = done.await {
            tracing::warn!("drained ports are still held: {error}");
        }
    }
}

impl Control {
    fn is_draining(&self) -> bool {
        self.state.sandboxes.values().any(|sandbox| !sandbox.draining.is_empty())
    }

    /// Has bindings take no new flows.
    pub(crate) async fn close(&self, bindings: Vec<Binding>) -> Result<()> {
        let closed = bindings.into_iter().map(|binding| Change::Set(Fact::Closed(binding).into()));
        let down = |error| Error::new(Code::Internal, format!("cannot drain ports: {error}"));
        self.link.change(closed.collect()).await.map_err(down)
    }

    async fn let_go_of_drained(&mut self) {
        let bindings = self.link.bindings().await;
        let mut drained: Vec<(String, Vec<Published>)> = Vec::new();
        for (name, sandbox) in self.state.sandboxes.iter() {
            let mut over = Vec::new();
            for one in &sandbox.draining {
                if !self.is_in_use(&bindings, one).await {
                    over.push(*one);
                }
            }
            if !over.is_empty() {
                drained.push((name.clone(), over));
            }
        }
        for (name, over) in drained {
            if let Some(sandbox) = self.state.sandboxes.get_mut(&name) {
                sandbox.draining.retain(|one| !over.contains(one));
            }
            self.lead_again(&name).await;
            self.release(over).await.done().await;
        }
    }

    async fn is_in_use(&self, bindings: &[Binding], published: &Published) -> bool {
        for binding in bindings.iter().filter(|binding| published.binds(binding)) {
            // Without an answer nobody knows.
            if self.link.is_in_use(*binding).await.unwrap_or(true) {
                return true;
            }
        }
        false
    }
}
