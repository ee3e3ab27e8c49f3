//! Duplicates of the sockets by which control holds ports of the host, kept for the next control.
//!
//! Nothing is read from them. As long as one process has such a socket, the host's stack answers nothing at its port, and no
//! program gets it: connections through it outlive either process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vswitch_contract::claim::{ClaimCommand, Claimed};
use vswitch_sys::seqpacket::DESCRIPTORS_MAX;

/// The sockets that are kept.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    sockets: BTreeMap<Claimed, OwnedFd>,
}

impl Claims {
    /// Carries out a command; says why not, if it cannot.
    pub(super) fn carry_out(&mut self, command: ClaimCommand, fds: Vec<OwnedFd>) -> Result<(), String> {
        match command {
            ClaimCommand::Keep(claimed) if claimed.len() == fds.len() => {
                self.sockets.extend(claimed.into_iter().zip(fds));
                Ok(())
            }
            ClaimCommand::Keep(claimed) => {
                Err(format!("{} of {} descriptors arrived: allow more (ulimit -n)", fds.len(), claimed.len()))
            }
            ClaimCommand::KeepOnlyAt(addresses) => {
                self.sockets.retain(|claimed, _| addresses.contains(&claimed.address));
                Ok(())
            }
        }
    }

    /// The claims behind one, as many as fit a message; the first, if none is named.
    pub(super) fn behind(&self, after: Option<Claimed>) -> (Vec<Claimed>, Vec<BorrowedFd<'_>>) {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.sockets.range((after, Bound::Unbounded)).take(DESCRIPTORS_MAX);
        page.map(|(claimed, socket)| (*claimed, socket.as_fd())).unzip()
    }
}

#[cfg(test)]
mod tests {
    use vswitch_nat::Protocol;

    use super::*;

    fn claimed(address: [u8; 4], port: u16) -> Claimed {
        Claimed { protocol: Protocol::Tcp, address: address.into(), port }
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        let open = || std::fs::File::open("/dev/null").expect("a file").into();
        std::iter::repeat_with(open).take(count).collect()
    }

    #[test]
    fn pages_have_every_claim_once() {
        let mut claims = Claims::default();
        let all: Vec<Claimed> = (1..=600).map(|port| claimed([10, 0, 0, 1], port)).collect();
        let kept = claims.carry_out(ClaimCommand::Keep(all.clone()), descriptors(all.len()));
        assert_eq!(kept, Ok(()));
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let (page, fds) = claims.behind(seen.last().copied());
            assert_eq!(page.len(), fds.len());
            sizes.push(page.len());
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!((seen, sizes), (all, vec![253, 253, 94, 0]));
    }

    #[test]
    fn claims_go_with_their_address_and_come_with_their_sockets() {
        let mut claims = Claims::default();
        let both = vec![claimed([10, 0, 0, 1], 7), claimed([10, 0, 0, 2], 7)];
        let refused = claims.carry_out(ClaimCommand::Keep(both.clone()), descriptors(1));
        assert!(refused.expect_err("one is missing").starts_with("1 of 2 descriptors"));
        claims.carry_out(ClaimCommand::Keep(both.clone()), descriptors(2)).expect("kept");
        claims.carry_out(ClaimCommand::KeepOnlyAt(vec![both[1].address]), Vec::new()).expect("done");
        assert_eq!(claims.behind(None).0, both[1..]);
    }
}
