//! Sockets of published ports, as control hands them over.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use vswitch_contract::relay::{CHUNK, Established, Relayed, Targets, Transport};
use vswitch_frame::{Instant, NetworkId, Pool};
use vswitch_proxy::Bindings;
use vswitch_sys::datagrams::Datagrams;
use vswitch_sys::poll::Poller;
use vswitch_sys::stream::prepare;

use super::sockets::{OTHERS_PART, Publication, Socket, SocketsError, container_port};
use super::{Relays, targets};
use crate::ready::{RELAYS_FROM, number_of};

impl Relays {
    /// Takes a page of the sockets of a published range; a range leads nowhere at first. Without sockets the
    /// range is closed from that page on.
    ///
    /// # Errors
    /// The reason that they are not taken; then the range has those of the pages before.
    pub(crate) fn set_sockets(
        &mut self,
        relayed: Relayed,
        page: u16,
        fds: &[Arc<OwnedFd>],
        poller: &Poller,
        now: Instant,
    ) -> Result<(), SocketsError> {
        let first = usize::from(page) * CHUNK;
        self.close_from(relayed, first, poller);
        if fds.is_empty() {
            return Ok(());
        }
        let taken = self.take_sockets(relayed, first, fds, poller, now);
        if taken.is_err() {
            self.close_from(relayed, first, poller);
        }
        taken
    }

    fn take_sockets(
        &mut self,
        relayed: Relayed,
        first: usize,
        fds: &[Arc<OwnedFd>],
        poller: &Poller,
        now: Instant,
    ) -> Result<(), SocketsError> {
        if first == 0 {
            self.sockets.made += 1;
            let (number, targets) = (self.sockets.made, Targets::default());
            let publication = Publication { number, targets, sockets: Vec::with_capacity(fds.len()) };
            self.sockets.publications.insert(relayed, publication);
        }
        let held = self.sockets.publications.get(&relayed).map_or(0, |one| one.sockets.len());
        if held != first || fds.len() != (relayed.count() - first.min(relayed.count())).min(CHUNK) {
            return Err(SocketsError::Missing);
        }
        let most = self.descriptors - self.descriptors / OTHERS_PART;
        for (nth, fd) in (first..).zip(fds) {
            if usize::try_from(fd.as_raw_fd()).is_ok_and(|number| number >= most) {
                return Err(SocketsError::Full(self.descriptors));
            }
            let socket = self.open(relayed, nth, Arc::clone(fd), poller, now).map_err(SocketsError::Unfit)?;
            if let Some(publication) = self.sockets.publications.get_mut(&relayed) {
                publication.sockets.push(socket);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        relayed: Relayed,
        nth: usize,
        fd: Arc<OwnedFd>,
        poller: &Poller,
        now: Instant,
    ) -> std::io::Result<Socket> {
        match relayed.transport {
            Transport::Tcp => {
                let last = self.sockets.listening.last_key_value().map_or(RELAYS_FROM - 1, |(last, _)| *last);
                let number = last + 2;
                // A control of before may have claimed it.
                prepare(fd.as_fd())?;
                poller.add(fd.as_fd(), number)?;
                self.sockets.listening.insert(number, (relayed, nth));
                Ok(Socket::Listening(number, fd))
            }
            Transport::Udp => {
                let socket = Datagrams::new(fd)?;
                let refused = |_| std::io::Error::other("it leads nowhere");
                let token = self.proxy.udp_listener(Bindings::default(), socket, now).map_err(refused)?;
                let descriptor = self.proxy.descriptor(token).zip(number_of(token));
                let waits = descriptor.map_or(Ok(()), |(descriptor, number)| poller.add(descriptor, number));
                if let Err(error) = waits {
                    self.proxy.close_listener(token);
                    return Err(error);
                }
                Ok(Socket::Datagrams(token))
            }
        }
    }

    /// Has a published range lead elsewhere. Sessions that would not lead where they do end; relays are
    /// reset, or go on.
    pub(crate) fn lead_to(
        &mut self,
        relayed: Relayed,
        targets: Targets,
        established: Established,
        pool: &mut Pool,
        now: Instant,
    ) {
        let Some(publication) = self.sockets.publications.get_mut(&relayed) else { return };
        publication.targets = targets;
        let number = publication.number;
        for (nth, socket) in publication.sockets.iter().enumerate() {
            if let Socket::Datagrams(token) = socket {
                // Control tells no target with a gateway of another family.
                let _ = self
                    .proxy
                    .lead_to(*token, targets::bindings(&targets, container_port(&relayed, nth), number));
            }
        }
        if established == Established::GoOn {
            return;
        }
        let gone = |binding: &vswitch_proxy::Binding| {
            binding.publication == number && !targets::include(&targets, binding)
        };
        self.proxy.release(gone, pool, &mut self.out, now);
    }

    /// Ends all that clients have with an address of a container's, before it is another's: nothing of theirs
    /// reaches who has it next, nor the reverse.
    pub(crate) fn forget(&mut self, network: NetworkId, container: IpAddr, pool: &mut Pool) {
        self.proxy.forget(network, container, pool, &mut self.out);
    }

    /// Closes the sockets of a published range from one on. Control has duplicates, so they must leave the
    /// poller first.
    fn close_from(&mut self, relayed: Relayed, first: usize, poller: &Poller) {
        let Some(publication) = self.sockets.publications.get_mut(&relayed) else { return };
        for socket in publication.sockets.split_off(first.min(publication.sockets.len())) {
            match socket {
                Socket::Listening(number, fd) => {
                    let _ = poller.remove(fd.as_fd());
                    self.sockets.listening.remove(&number);
                }
                Socket::Datagrams(token) => {
                    if let Some(descriptor) = self.proxy.descriptor(token) {
                        let _ = poller.remove(descriptor);
                    }
                    self.proxy.close_listener(token);
                }
            }
        }
        if publication.sockets.is_empty() {
            self.sockets.publications.remove(&relayed);
        }
    }
}
