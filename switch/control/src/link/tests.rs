//! The link against datapaths that are not, which refuse, are slow, or keep silent.

use crate::resolver::Resolver;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::{Deref, RangeInclusive};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::timeout;
use vswitch_contract::counters::Counters;
use vswitch_contract::fact::Change;
use vswitch_contract::fact::Fact;
use vswitch_contract::fact::Held;
use vswitch_contract::fact::Key;
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::Options;
use vswitch_contract::order::Order;
use vswitch_contract::order::Reply;
use vswitch_sys::pidfd::Pidfd;
use vswitch_sys::seqpacket::Channel;

use tokio::process::Command;
use vswitch_contract::fact::Facts;
use vswitch_contract::order::Step;
use vswitch_contract::parts::{Arrived, Assembly, GO_ON, packets};
use vswitch_contract::tunnel::TunnelSocket;
use vswitch_frame::NetworkId;
use vswitch_sys::seqpacket::MESSAGE_BYTES_MAX;

use super::shared::*;
use super::talk::*;
use super::*;

/// Behaviour of a datapath that is none, and the facts it was told.
#[derive(Debug, Default)]
struct Script {
    facts: Facts,
    /// Facts under these keys it does not take so many times.
    refuses: BTreeMap<Key, usize>,
    /// It dies of the next change of what is under one of these.
    dies_of: Option<Key>,
    /// It answers to nothing any more.
    silent: bool,
    /// It answers this instead, once.
    babble: Option<Reply>,
    /// Facts in a page of those that are recalled, and how long it takes for one.
    page: usize,
    pause: Duration,
    started: usize,
    longest_order: usize,
}

thread_local! {
    static SCRIPT: Rc<RefCell<Script>> = Rc::default();
}

fn script<T>(look: impl FnOnce(&mut Script) -> T) -> T {
    SCRIPT.with(|script| look(&mut script.borrow_mut()))
}

/// Starts a process that does nothing, and beside it a task that answers for it.
fn spawn(channel: Channel) -> io::Result<Child> {
    script(|script| {
        script.started += 1;
        script.facts = Facts::default();
        script.silent = false;
    });
    let child = Command::new("sleep").arg("600").kill_on_drop(true).spawn()?;
    let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
    tokio::task::spawn_local(answer(channel.into_async()?, Some(Pidfd::open(pid)?)));
    Ok(child)
}

/// Takes orders until the other end is gone, or it dies.
async fn answer(channel: AsyncFd<Channel>, process: Option<Pidfd>) -> io::Result<()> {
    let (mut buffer, mut arriving) = (vec![0; MESSAGE_BYTES_MAX], Assembly::default());
    let mut unsent = Vec::new().into_iter();
    loop {
        let mut guard = channel.readable().await?;
        let Some((length, fds)) = channel.get_ref().receive_all(&mut buffer)? else {
            guard.clear_ready();
            continue;
        };
        if script(|script| script.silent) {
            continue;
        }
        match arriving.take(&buffer[..length]).map_err(io::Error::other)? {
            Arrived::Part => channel.get_ref().send(GO_ON, &[])?,
            Arrived::GoOn => {}
            Arrived::Whole(text) => {
                script(|script| script.longest_order = script.longest_order.max(text.len()));
                let order: Order = serde_json::from_slice(&text)?;
                tokio::time::sleep(script(|script| script.pause)).await;
                let Some(reply) = script(|script| script.carry_out(order, fds)) else {
                    return process.map_or(Ok(()), |process| process.kill());
                };
                unsent = packets(&serde_json::to_vec(&reply)?).collect::<Vec<_>>().into_iter();
            }
        }
        if let Some(packet) = unsent.next() {
            channel.get_ref().send(&packet, &[])?;
        }
    }
}

impl Script {
    /// The answer; none if it dies.
    fn carry_out(&mut self, order: Order, fds: Vec<OwnedFd>) -> Option<Reply> {
        let mut fds = fds.into_iter();
        if let Some(babble) = self.babble.take() {
            return Some(babble);
        }
        match order {
            Order::Tell(steps) => {
                let mut refused = Vec::new();
                for (place, step) in steps.into_iter().enumerate() {
                    let change = match step {
                        Step::Set(fact, count) => Change::Set(Held::new(fact, fds.by_ref().take(count))),
                        Step::Remove(key) => Change::Remove(key),
                    };
                    if self.dies_of == Some(change.key()) {
                        self.dies_of = None;
                        return None;
                    }
                    let left = self.refuses.get_mut(&change.key()).filter(|left| **left > 0);
                    if let (Change::Set(_), Some(left)) = (&change, left) {
                        *left -= 1;
                        refused.push((place, "it does not want to".to_owned()));
                    } else {
                        self.facts.change(change);
                    }
                }
                Some(Reply::Told(refused))
            }
            Order::Greet(_) => Some(Reply::Options(Options { seed: 1 })),
            Order::Recall(behind) => {
                let page = self.facts.behind(behind).take(self.page);
                Some(Reply::Facts(page.map(|held| (held.fact.clone(), 0)).collect()))
            }
            Order::GiveBack(..) => Some(Reply::GivenBack(BTreeSet::new())),
            Order::Start(_)
            | Order::Connect
            | Order::Begin
            | Order::Alive
            | Order::Announce(_)
            | Order::Read(_)
            | Order::Stop => Some(Reply::Done),
        }
    }
}

/// A link to such a datapath.
struct Linked {
    link: Link,
    socket: PathBuf,
}

impl Deref for Linked {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn linked() -> Linked {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("vswitch-link-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let socket = std::env::temp_dir().join(name);
    let (options, facts) = (Options { seed: 1 }, Facts::default());
    let (bound, spare) = (socket.clone(), socket.with_extension("spare"));
    let state =
        State { socket: bound, spare, spawn, options, facts, running: None, latest: 0, stopped: false };
    let resolver = Resolver::new("/nonexistent".into());
    let link = Link::of(Counters::new().expect("memory"), Mirror::new().expect("memory"), resolver, state);
    link.launch(&mut *link.shared.state.lock().await).await.expect("it starts");
    Linked { link, socket }
}

/// Runs a test on a thread of its own, as datapaths that are none are tasks there.
async fn locally(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

fn peer(last: u8) -> Fact {
    Fact::Peer(NetworkId(1), IpAddr::from([192, 0, 2, last]))
}

fn grant(last: u8, ports: RangeInclusive<u16>) -> Fact {
    Fact::Grant(vswitch_contract::claim::Protocol::Udp, IpAddr::from([192, 0, 2, last]), vec![ports])
}

/// A fact that has a descriptor: another each time.
fn socket() -> Held {
    let fd = File::open("/dev/null").expect("a file").into();
    Held::new(Fact::TunnelSocket(TunnelSocket::Receiver { port: 4789 }), [fd])
}

/// All facts, each with the number of its descriptors.
fn all(facts: &Facts) -> Vec<(Fact, usize)> {
    facts.range(..).map(|held| (held.fact.clone(), held.fds.len())).collect()
}

/// Asserts that both have these facts, and nothing else.
async fn both_have(link: &Link, expected: &[Held]) {
    let expected: Vec<_> = expected.iter().map(|held| (held.fact.clone(), held.fds.len())).collect();
    assert_eq!(link.facts(all).await, expected, "the table");
    assert_eq!(script(|script| all(&script.facts)), expected, "the datapath");
}

#[tokio::test]
async fn a_batch_of_which_one_is_refused_leaves_all_as_it_was() {
    locally(async {
        let link = linked().await;
        let before = [socket(), peer(9).into(), grant(1, 1..=5).into()];
        link.change(before.iter().cloned().map(Change::Set).collect()).await.expect("taken");
        script(|script| script.refuses = [(peer(3).key(), 2)].into());
        let batch = || {
            let said = [grant(1, 1..=9), peer(2), peer(3), peer(4)].map(|fact| Change::Set(fact.into()));
            let gone = [peer(9).key(), socket().fact.key()].map(Change::Remove);
            [&said[..], &gone[..]].concat()
        };
        let refusal = link.change(batch()).await.expect_err("the third is refused");
        assert_eq!(refusal.to_string(), "the datapath refused: it does not want to");
        both_have(&link, &before).await;
        let dropped = link.offer(batch()).await.expect("as far as it goes");
        assert_eq!(dropped.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [peer(3).key()]);
        both_have(&link, &[peer(2).into(), peer(4).into(), grant(1, 1..=9).into()]).await;
        assert_eq!((link.restarts(), script(|script| script.started)), (0, 1));
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_says_a_thing_twice_means_the_last() {
    locally(async {
        let link = linked().await;
        link.set(peer(1)).await.expect("taken");
        let again = vec![
            Change::Remove(peer(1).key()),
            Change::Set(peer(1).into()),
            Change::Set(peer(2).into()),
            Change::Remove(peer(2).key()),
        ];
        link.change(again).await.expect("taken");
        both_have(&link, &[peer(1).into()]).await;
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_next_datapath_refuses_is_as_it_was_in_both() {
    locally(async {
        let link = linked().await;
        let before = [socket(), peer(9).into(), grant(1, 1..=5).into()];
        link.change(before.iter().cloned().map(Change::Set).collect()).await.expect("taken");
        // It dies over the change, and the next one does not take what the change says.
        script(|script| {
            (script.dies_of, script.refuses) = (Some(peer(3).key()), [(peer(3).key(), 1)].into())
        });
        let changes = [grant(1, 1..=9), peer(3)].map(|fact| Change::Set(fact.into()));
        link.change(changes.to_vec()).await.expect_err("the second is refused");
        both_have(&link, &before).await;
        assert_eq!((link.restarts(), script(|script| script.started)), (1, 2));
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_value_that_the_next_datapath_refuses_gives_way_to_the_one_before() {
    locally(async {
        // Refused by the one that dies, and by the next; then what was before is, too, or is not.
        for (refusals, started) in [(2, 2), (4, 3)] {
            script(|script| *script = Script::default());
            let link = linked().await;
            let before = [socket(), peer(1).into()];
            link.change(before.iter().cloned().map(Change::Set).collect()).await.expect("taken");
            let key = before[0].fact.key();
            script(|script| {
                (script.dies_of, script.refuses) = (Some(peer(1).key()), [(key, refusals)].into())
            });
            let changes = vec![Change::Set(socket()), Change::Remove(peer(1).key())];
            link.change(changes).await.expect_err("the first is refused");
            // One that does not go back is replaced, so nothing is in one of both only.
            both_have(&link, &before[started - 2..]).await;
            assert_eq!(script(|script| script.started), started);
            link.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_datapath_is_replaced_and_told_what_it_did_not_answer_to() {
    locally(async {
        let link = linked().await;
        link.set(socket()).await.expect("taken");
        script(|script| script.silent = true);
        link.set(peer(1)).await.expect("taken by the next");
        both_have(&link, &[socket(), peer(1).into()]).await;
        assert_eq!((link.restarts(), script(|script| script.started)), (1, 2));
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_answers_something_else_is_replaced_unasked() {
    locally(async {
        let link = linked().await;
        link.set(peer(1)).await.expect("taken");
        tokio::task::spawn_local(link.link.clone().look_after());
        // As one does that was late with an answer nobody waits for any more.
        script(|script| script.babble = Some(Reply::Told(Vec::new())));
        timeout(PATIENCE * 3, async {
            while link.restarts() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("replaced");
        both_have(&link, &[peer(1).into()]).await;
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_a_silent_datapath_that_is_to_be_stopped() {
    locally(async {
        let link = linked().await;
        script(|script| script.silent = true);
        let (asking, looking) = (link.link.clone(), link.link.clone());
        let asked = tokio::task::spawn_local(async move { asking.set(peer(1)).await });
        tokio::task::spawn_local(looking.look_after());
        tokio::task::yield_now().await;
        timeout(PATIENCE, link.stop()).await.expect("sooner than it is taken for dead");
        let refusal = asked.await.expect("no panic").expect_err("not done");
        assert_eq!(refusal.to_string(), "the datapath does not run: the daemon is stopping");
        assert_eq!(script(|script| script.started), 1, "no other was started");
    })
    .await;
}

#[tokio::test]
async fn what_a_living_datapath_is_asked_last_is_done() {
    locally(async {
        let link = linked().await;
        link.give_up();
        link.set(peer(1)).await.expect("taken");
        both_have(&link, &[peer(1).into()]).await;
        assert_eq!(script(|script| script.started), 1);
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_order_is_never_too_long() {
    locally(async {
        let link = linked().await;
        let ranges: Vec<_> = (0..20_000).map(|number| number * 3..=number * 3 + 1).collect();
        let long = |last| {
            let address = IpAddr::from([192, 0, 2, last]);
            Fact::Grant(vswitch_contract::claim::Protocol::Udp, address, ranges.clone())
        };
        let grants: Vec<Held> = (1..=40).map(|last| long(last).into()).collect();
        link.change(grants.iter().cloned().map(Change::Set).collect()).await.expect("taken");
        both_have(&link, &grants).await;
        assert!(script(|script| script.longest_order) < 4 << 20);
        link.stop().await;
    })
    .await;
}

#[tokio::test]
async fn facts_may_take_longer_than_an_answer() {
    locally(async {
        let (near, far) = Channel::pair().expect("a pair");
        let expected: Vec<Held> = (1..=250).map(|last| peer(last).into()).collect();
        script(|script| {
            expected.iter().for_each(|held| drop(script.facts.change(Change::Set(held.clone()))));
            (script.page, script.pause) = (5, PATIENCE / 40);
        });
        tokio::task::spawn_local(answer(far.into_async().expect("a runtime"), None));
        let facts = survivor::recall(&near.into_async().expect("a runtime")).await.expect("all");
        assert_eq!(all(&facts), expected.iter().map(|held| (held.fact.clone(), 0)).collect::<Vec<_>>());
    })
    .await;
}
