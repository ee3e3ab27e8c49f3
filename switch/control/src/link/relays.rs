//! The sockets of published ports: handed to every datapath, and told where their clients lead.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use vswitch_sys::seqpacket::Channel;

use super::process::{ask_with, unexpected};
use super::{Link, LinkError};
use vswitch_contract::command::{Command, RelayCommand, Reply};
use vswitch_contract::relay::{CHUNK, Relayed, Targets};

/// A published range: its sockets in the order of ports, and where their clients lead.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Control has them, too.
    pub sockets: Arc<Vec<OwnedFd>>,
    /// Where to.
    pub targets: Targets,
}

impl Link {
    /// Has the clients at the sockets of a published range lead to these targets. A range that the datapath does not have
    /// yet is handed over.
    ///
    /// # Errors
    /// [`LinkError`]; a range that is refused the datapath does not have.
    pub async fn relay(
        &self,
        relayed: Relayed,
        sockets: Arc<Vec<OwnedFd>>,
        targets: Targets,
    ) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let known = state.relays.insert(relayed, Relay { sockets, targets });
        let told = match (&state.running, known.map(|known| known.targets)) {
            (Some(_), Some(known)) if known == targets => Ok(()),
            (Some(running), Some(_)) => lead_to(&running.channel, relayed, targets).await,
            (Some(running), None) => hand_over(&running.channel, relayed, &state.relays[&relayed]).await,
            (None, _) => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        };
        match told {
            Ok(()) => Ok(()),
            Err(LinkError::Refused(why)) => {
                state.relays.remove(&relayed);
                Err(LinkError::Refused(why))
            }
            Err(LinkError::Down(_)) => Ok(self.relaunch(&mut state).await?),
        }
    }

    /// Closes the sockets of a published range in the datapath, and lets go of them here.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have them.
    pub async fn close_sockets(&self, relayed: Relayed) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if state.relays.remove(&relayed).is_none() {
            return Ok(());
        }
        self.tell(&mut state, Command::Relay(RelayCommand::CloseSockets(relayed)), None).await
    }

    /// The sockets that the datapath has.
    pub async fn sockets(&self) -> BTreeMap<Relayed, Arc<Vec<OwnedFd>>> {
        let state = self.shared.state.lock().await;
        state.relays.iter().map(|(relayed, relay)| (*relayed, Arc::clone(&relay.sockets))).collect()
    }
}

/// Tells a datapath of a published range that it does not know.
pub(super) async fn hand_over(
    channel: &AsyncFd<Channel>,
    relayed: Relayed,
    relay: &Relay,
) -> Result<(), LinkError> {
    for (nth, sockets) in relay.sockets.chunks(CHUNK).enumerate() {
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        done(
            ask_with(channel, &Command::Relay(RelayCommand::AddSockets(relayed, nth * CHUNK)), &fds).await?.0,
        )?;
    }
    lead_to(channel, relayed, relay.targets).await
}

async fn lead_to(channel: &AsyncFd<Channel>, relayed: Relayed, targets: Targets) -> Result<(), LinkError> {
    done(ask_with(channel, &Command::Relay(RelayCommand::LeadTo(relayed, targets)), &[]).await?.0)
}

fn done(reply: Reply) -> Result<(), LinkError> {
    if matches!(reply, Reply::Done) { Ok(()) } else { Err(unexpected(reply)) }
}
