//! Exchanges over TCP: comparing ledgers, and asking for addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use vswitch_sys::random;

use super::super::record::{HostId, Key, Value};
use super::super::space::Range;
use super::super::view::{Answer, Ask, Event, Wish};
use super::member::Member;
use super::node::Node;
use super::now;
use super::seal::Seal;
use super::wire::{self, Failure, Greeting, Letter, Question, Reply};

/// The time that one exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections that are served at once.
const CONNECTIONS_MAX: usize = 64;

/// A connection to another member.
#[derive(Debug)]
pub struct Exchange<'a> {
    seal: &'a Seal,
    stream: TcpStream,
    greeting: Greeting,
}

impl<'a> Exchange<'a> {
    /// Connects, and hears which member is there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open(seal: &'a Seal, address: SocketAddr) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(address).await?;
        let greeting = wire::receive(&mut stream, seal).await?;
        Ok(Self { seal, stream, greeting })
    }

    /// The member that is there.
    pub fn with(&self) -> Member {
        self.greeting.member
    }

    async fn ask(&mut self, body: Question) -> Result<Reply, Failure> {
        let number = u64::from_ne_bytes(random::bytes()?);
        let letter = Letter { repeats: self.greeting.challenge, number, body };
        wire::send(&mut self.stream, self.seal, &letter).await?;
        let answer: Letter<Reply> = wire::receive(&mut self.stream, self.seal).await?;
        if answer.repeats == number { Ok(answer.body) } else { Err(nonsense()) }
    }
}

/// Compares all records with those of another member, and exchanges what either lacks.
pub(super) async fn compare(node: Arc<Node>, address: SocketAddr) {
    match timeout(PATIENCE, try_compare(&node, address)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("records were not compared with {address}: {error}"),
        Err(_) => tracing::debug!("records were not compared with {address}: it takes too long"),
    }
}

async fn try_compare(node: &Arc<Node>, address: SocketAddr) -> Result<(), Failure> {
    let mut exchange = Exchange::open(&node.seal, address).await?;
    let mark = node.machine().mark();
    if matches!(exchange.ask(Question::Agree(mark)).await?, Reply::Agree(true)) {
        return Ok(());
    }
    let digest = node.machine().digest();
    let Reply::Difference(difference) = exchange.ask(Question::Compare(digest)).await? else {
        return Err(nonsense());
    };
    node.act(|machine| machine.merge(difference.newer, now()));
    let wanted = node.machine().records(&difference.wanted);
    if !wanted.is_empty() {
        exchange.ask(Question::Take(wanted)).await?;
    }
    Ok(())
}

/// Serves other members, until the daemon stops.
pub(super) async fn listen(node: Arc<Node>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while !node.events.is_closed() {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    let served = timeout(PATIENCE, serve(&node, stream)).await;
                    if let Ok(Err(Failure::Unopened(error))) = served {
                        node.complain(from.ip(), &error);
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("gossip: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(node: &Arc<Node>, mut stream: TcpStream) -> Result<(), Failure> {
    let challenge = u64::from_ne_bytes(random::bytes()?);
    let member = node.machine().me();
    wire::send(&mut stream, &node.seal, &Greeting { challenge, member }).await?;
    loop {
        let question: Letter<Question> = match wire::receive(&mut stream, &node.seal).await {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            received => received?,
        };
        if question.repeats != challenge {
            return Err(nonsense());
        }
        let body = answer(node, question.body).await;
        wire::send(&mut stream, &node.seal, &Letter { repeats: question.number, number: 0, body }).await?;
    }
}

async fn answer(node: &Arc<Node>, question: Question) -> Reply {
    match question {
        Question::Agree(mark) => Reply::Agree(node.machine().agrees(mark)),
        Question::Compare(digest) => Reply::Difference(node.machine().compare(&digest)),
        Question::Take(records) => {
            node.act(|machine| machine.merge(records, now()));
            Reply::Taken
        }
        Question::Addresses(ask) => Reply::Addresses(ask_control(node, ask).await),
    }
}

async fn ask_control(node: &Node, ask: Ask) -> Answer {
    let stopping = "the host that has them is stopping: try again".to_owned();
    let (answer, answered) = oneshot::channel();
    if node.events.send(Event::Asked(ask, answer)).is_err() {
        return Err(stopping);
    }
    answered.await.unwrap_or(Err(stopping))
}

/// Asks the owners of addresses for some, those with most of them first.
pub(super) async fn acquire(node: Arc<Node>, ask: Ask, answer: oneshot::Sender<Answer>) {
    // The task that asked may have gone.
    let _ = answer.send(try_acquire(&node, &ask).await);
}

async fn try_acquire(node: &Arc<Node>, ask: &Ask) -> Answer {
    let owners = owners(node, ask);
    let what = match ask.wish {
        Wish::Exact(address) => format!("address {address} of network {:?}", ask.name),
        Wish::Some(subnet) => format!("addresses of {subnet} of network {:?}", ask.name),
    };
    let mut refusal =
        format!("{what}: nobody is known to have any: wait for the cluster, see \"vswitch cluster ls\"");
    for owner in owners {
        let Some(address) = node.machine().address_of(owner) else {
            refusal = format!(
                "{what}: they are host {}'s, which cannot be reached: start it again, or give up on it with \
                 \"vswitch cluster forget {}\"",
                owner.short(),
                owner.short()
            );
            continue;
        };
        match timeout(PATIENCE, ask_owner(node, address, ask)).await {
            Ok(Ok(Ok(records))) => {
                node.act(|machine| machine.publish(records.clone(), now()));
                return Ok(records);
            }
            Ok(Ok(Err(why))) => refusal = why,
            Ok(Err(error)) => {
                refusal = format!("{what}: host {} does not answer: {error}: try again", owner.short())
            }
            Err(_) => refusal = format!("{what}: host {} takes too long to answer: try again", owner.short()),
        }
    }
    Err(refusal)
}

async fn ask_owner(node: &Arc<Node>, address: SocketAddr, ask: &Ask) -> Result<Answer, Failure> {
    let mut exchange = Exchange::open(&node.seal, address).await?;
    match exchange.ask(Question::Addresses(ask.clone())).await? {
        Reply::Addresses(answer) => Ok(answer),
        Reply::Agree(_) | Reply::Difference(_) | Reply::Taken => Err(nonsense()),
    }
}

/// The owners of what is asked for, those that are up first; among them the one with the largest range.
fn owners(node: &Node, ask: &Ask) -> Vec<HostId> {
    let machine = node.machine();
    let mut ranges: Vec<(bool, u128, HostId)> = machine
        .spaces(ask.network)
        .filter_map(|record| match (record.key, record.value) {
            (Key::Space(_, first), Some(Value::Space(space))) => Some((first, space)),
            _ => None,
        })
        .filter_map(|(first, space)| {
            let owner = space.owner.filter(|owner| *owner != ask.host)?;
            let range = Range { first, last: space.last };
            let serves = match ask.wish {
                Wish::Exact(address) => range.contains(address),
                Wish::Some(subnet) => subnet.contains(&first),
            };
            serves.then(|| (machine.address_of(owner).is_none(), u128::MAX - range.size(), owner))
        })
        .collect();
    ranges.sort();
    let mut owners: Vec<HostId> = ranges.into_iter().map(|(_, _, owner)| owner).collect();
    let mut seen = BTreeSet::new();
    owners.retain(|owner| seen.insert(*owner));
    // Unreachable owners come last, so that their mend is said only when nobody else could help.
    owners
}

fn nonsense() -> Failure {
    io::Error::new(io::ErrorKind::InvalidData, "it says something else than it was asked").into()
}
