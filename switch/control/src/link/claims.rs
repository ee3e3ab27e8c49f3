//! Claims: duplicates of their sockets are handed to every datapath, which keeps them for the next control.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use vswitch_sys::seqpacket::{Channel, DESCRIPTORS_MAX};

use super::process::{ask_with, unexpected};
use super::{Link, LinkError, State};
use vswitch_contract::claim::{ClaimCommand, Claimed};
use vswitch_contract::command::{Command, Reply};

/// A held port and its socket.
pub type Claim = (Claimed, Arc<OwnedFd>);

impl Link {
    /// Has the datapath keep claims.
    ///
    /// # Errors
    /// [`LinkError`]; a datapath that refuses has none of those that it was not handed before.
    pub async fn keep_claims(&self, claims: Vec<Claim>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.claims.extend(claims.iter().cloned());
        let told = match &state.running {
            Some(running) => hand_over(&running.channel, &claims).await,
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        };
        match told {
            Err(LinkError::Down(_)) => Ok(self.relaunch(&mut state).await?),
            told => told,
        }
    }

    /// Lets go of claims at other addresses than these.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have them.
    pub async fn keep_claims_only_at(&self, addresses: &[IpAddr]) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let before = state.claims.len();
        state.claims.retain(|claimed, _| addresses.contains(&claimed.address));
        if state.claims.len() == before {
            return Ok(());
        }
        let command = ClaimCommand::KeepOnlyAt(addresses.to_vec());
        self.tell(&mut state, Command::Claims(command), None).await
    }

    /// The claims that the datapath has.
    pub async fn claims(&self) -> Vec<Claim> {
        let state = self.shared.state.lock().await;
        state.claims.iter().map(|(claimed, socket)| (*claimed, Arc::clone(socket))).collect()
    }

    /// The packet sockets of the uplinks that the datapath has, by their places.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn uplink_sockets(&self) -> io::Result<BTreeMap<u16, OwnedFd>> {
        let state = self.shared.state.lock().await;
        let uplinks = state.uplinks.iter();
        uplinks.map(|(place, (_, socket))| Ok((*place, socket.try_clone()?))).collect()
    }
}

/// Hands a new datapath all claims there are. One that may not have as many descriptors works without.
pub(super) async fn hand_over_all(channel: &AsyncFd<Channel>, state: &State) -> io::Result<()> {
    let claims: Vec<Claim> =
        state.claims.iter().map(|(claimed, socket)| (*claimed, Arc::clone(socket))).collect();
    match hand_over(channel, &claims).await {
        Err(LinkError::Refused(why)) => tracing::warn!("claimed ports do not outlive this process: {why}"),
        Err(LinkError::Down(error)) => return Err(error),
        Ok(()) => {}
    }
    Ok(())
}

async fn hand_over(channel: &AsyncFd<Channel>, claims: &[Claim]) -> Result<(), LinkError> {
    for page in claims.chunks(DESCRIPTORS_MAX) {
        let claimed = page.iter().map(|(claimed, _)| *claimed).collect();
        let fds: Vec<BorrowedFd<'_>> = page.iter().map(|(_, socket)| socket.as_fd()).collect();
        let command = Command::Claims(ClaimCommand::Keep(claimed));
        let (reply, _) = ask_with(channel, &command, &fds).await?;
        if !matches!(reply, Reply::Done) {
            return Err(unexpected(reply));
        }
    }
    Ok(())
}
