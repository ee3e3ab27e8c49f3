//! Talking to a datapath: an order, and its answer, each in as many packets as it takes.
//!
//! A datapath that is asked has [`PATIENCE`] for each packet. It turns in microseconds: one that does not
//! answer is stopped, loops, or is dead.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use vswitch_contract::fact::Change;
use vswitch_contract::order::{Order, Reply, Step};
use vswitch_contract::parts::{Arrived, Assembly, GO_ON, packets};
use vswitch_sys::seqpacket::{Channel, DESCRIPTORS_MAX, MESSAGE_BYTES_MAX};

/// Time that a living datapath may take for an answer, or a part of one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Time that it may take to begin: it may have a million flows to take up.
const PATIENCE_TO_BEGIN: Duration = Duration::from_secs(30);
/// Changes in one order at most, so that no frame waits for long.
const STEPS_MAX: usize = 500;
/// Bytes of all changes in one order at most, unless a single one takes more: the same, and an order is never
/// too long.
const STEPS_BYTES_MAX: usize = 1 << 20;
/// Bytes of a change beside its fact, and of one that has none, at most.
const STEP_BYTES: usize = 256;

/// Gives an order and awaits the answer, and the descriptors that ride along.
pub(crate) async fn ask(
    channel: &AsyncFd<Channel>,
    order: &Order,
    fds: &[BorrowedFd<'_>],
) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let text = serde_json::to_vec(order)?;
    let patience = if matches!(order, Order::Begin) { PATIENCE_TO_BEGIN } else { PATIENCE };
    let mut unsent = packets(&text).peekable();
    let mut answer = Assembly::default();
    while let Some(packet) = unsent.next() {
        let is_last = unsent.peek().is_none();
        channel.get_ref().send(&packet, if is_last { fds } else { &[] })?;
        if is_last {
            break;
        }
        let (packet, _) = receive(channel, patience).await?;
        if answer.take(&packet).map_err(io::Error::other)? != Arrived::GoOn {
            return Err(io::Error::other("it gave an answer before the end of the order"));
        }
    }
    loop {
        let (packet, fds) = receive(channel, patience).await?;
        match answer.take(&packet).map_err(io::Error::other)? {
            Arrived::Whole(text) => return Ok((serde_json::from_slice(&text)?, fds)),
            Arrived::Part => channel.get_ref().send(GO_ON, &[])?,
            Arrived::GoOn => return Err(io::Error::other("it asked for more than there is")),
        }
    }
}

async fn receive(channel: &AsyncFd<Channel>, patience: Duration) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let received = timeout(patience, async {
        loop {
            let mut guard = channel.readable().await?;
            match channel.get_ref().receive_all(&mut buffer)? {
                Some(received) => return io::Result::Ok(received),
                None => guard.clear_ready(),
            }
        }
    });
    let (length, fds) = match received.await {
        Ok(received) => received?,
        Err(_) => {
            let message = format!("it has not answered for {} s", patience.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
    };
    buffer.truncate(length);
    Ok((buffer, fds))
}

/// Gives an order that has no reason to be refused.
pub(crate) async fn must(
    channel: &AsyncFd<Channel>,
    order: &Order,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let (reply, _) = ask(channel, order, fds).await?;
    if matches!(reply, Reply::Done) { Ok(()) } else { Err(wrong(&reply)) }
}

/// Tells of changes, in order; says which were refused, by their places, and why.
pub(crate) async fn tell(channel: &AsyncFd<Channel>, changes: &[Change]) -> io::Result<Vec<(usize, String)>> {
    let mut refused = Vec::new();
    let mut first = 0;
    while first < changes.len() {
        let rest = &changes[first..];
        let page = &rest[..fitting(rest)];
        let fds: Vec<BorrowedFd<'_>> = page.iter().flat_map(fds_of).collect();
        let order = Order::Tell(page.iter().map(step).collect());
        let (reply, _) = ask(channel, &order, &fds).await?;
        let Reply::Told(of_page) = reply else { return Err(wrong(&reply)) };
        refused.extend(of_page.into_iter().map(|(at, why)| (first + at, why)));
        first += page.len();
    }
    Ok(refused)
}

/// The number of these changes that go in one order.
fn fitting(changes: &[Change]) -> usize {
    let (mut fds, mut bytes) = (0, 0);
    let fit = changes.iter().take(STEPS_MAX).take_while(|change| {
        fds += fds_of(change).count();
        bytes += bytes_of(change);
        fds <= DESCRIPTORS_MAX && bytes <= STEPS_BYTES_MAX
    });
    fit.count().max(1)
}

fn bytes_of(change: &Change) -> usize {
    let fact = if let Change::Set(held) = change { serde_json::to_vec(&held.fact).ok() } else { None };
    STEP_BYTES + fact.map_or(0, |text| text.len())
}

fn fds_of(change: &Change) -> impl Iterator<Item = BorrowedFd<'_>> {
    let held = if let Change::Set(held) = change { Some(held) } else { None };
    held.into_iter().flat_map(|held| &held.fds).map(|fd| fd.as_fd())
}

fn step(change: &Change) -> Step {
    match change {
        Change::Set(held) => Step::Set(held.fact.clone(), held.fds.len()),
        Change::Remove(key) => Step::Remove(*key),
    }
}

/// The error that an unexpected answer is.
pub(crate) fn wrong(reply: &Reply) -> io::Error {
    if let Reply::Refused(why) = reply {
        return io::Error::other(why.clone());
    }
    io::Error::other(format!("it answered {reply:?}"))
}
