//! Conversations over TCP: comparing what is known, and asking for addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use vswitch_sys::random;

use super::super::record::{HostId, Key, Value};
use super::super::space::Range;
use super::super::view::{Answer, Ask, Event, Wish};
use super::compare::{self, Asker, nonsense};
use super::door::{Door, PROOF_PATIENCE, Waiting};
use super::member::Member;
use super::node::{Node, now};
use super::seal::Seal;
use super::talk::{Appointment, Question, Reply, Talk, Welcome};
use super::wire::{self, FIRST_BYTES_MAX, Failure, Greeting, Letter, TEXT_BYTES_MAX};

/// The time that one question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time that one conversation may take.
const TALK_PATIENCE: Duration = Duration::from_secs(60);

/// A connection to another member.
#[derive(Debug)]
pub struct Exchange<'a> {
    seal: &'a Seal,
    stream: TcpStream,
    challenge: u64,
    welcome: Welcome,
}

impl<'a> Exchange<'a> {
    /// Connects, and hears which member is there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open(seal: &'a Seal, address: SocketAddr) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(address).await?;
        // Letters are written at once, and each waits for its answer.
        stream.set_nodelay(true)?;
        let Greeting { challenge } = wire::receive(&mut stream, seal, FIRST_BYTES_MAX).await?;
        let reply = ask(&mut stream, seal, challenge, Question::Hello).await?;
        let Reply::Welcome(welcome) = reply else { return Err(nonsense().into()) };
        Ok(Self { seal, stream, challenge, welcome })
    }

    /// The member that is there.
    pub fn with(&self) -> Member {
        self.welcome.member
    }

    async fn ask(&mut self, question: Question) -> Result<Reply, Failure> {
        let asked = ask(&mut self.stream, self.seal, self.challenge, question);
        timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

async fn ask(stream: &mut TcpStream, seal: &Seal, challenge: u64, body: Question) -> Result<Reply, Failure> {
    let number = u64::from_ne_bytes(random::bytes()?);
    wire::send(stream, seal, &Letter { repeats: challenge, number, body }).await?;
    let answer: Letter<Reply> = wire::receive(stream, seal, TEXT_BYTES_MAX).await?;
    if answer.repeats == number { Ok(answer.body) } else { Err(nonsense().into()) }
}

/// Holds a conversation with another member.
pub(super) async fn hold(node: Arc<Node>, (address, talk): Appointment) {
    let held = timeout(TALK_PATIENCE, try_hold(&node, address, &talk)).await;
    let held = held.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
    if let Err(error) = &held {
        tracing::debug!("records were not compared with {address}: {error}");
    }
    node.act(|machine| machine.ended(&talk, held.is_ok()));
}

async fn try_hold(node: &Arc<Node>, address: SocketAddr, talk: &Talk) -> Result<(), Failure> {
    let opened = timeout(PATIENCE, Exchange::open(&node.seal, address)).await;
    let mut exchange = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut asker = Asker::new(talk, exchange.welcome, now());
    let mut reply = None;
    while let Some(question) = node.act(|machine| asker.next(machine, reply.take(), now()))? {
        reply = Some(exchange.ask(question).await?);
    }
    Ok(())
}

/// Serves other members, until the daemon stops.
pub(super) async fn listen(node: Arc<Node>, listener: TcpListener) {
    let door = Arc::new(Door::new());
    while !node.events.is_closed() {
        match listener.accept().await {
            Ok((stream, from)) => {
                let waiting = door.arrive(from);
                let (number, node, inner) = (waiting.number(), Arc::clone(&node), Arc::clone(&door));
                let task = tokio::spawn(async move {
                    match serve(&node, &inner, waiting, stream, from).await {
                        Err(Failure::Unopened(error)) => node.complain(from.ip(), &error),
                        Ok(()) | Err(Failure::Io(_)) => {}
                    }
                });
                door.watch(number, task.abort_handle());
            }
            Err(error) => {
                tracing::debug!("gossip: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    node: &Arc<Node>,
    door: &Door,
    waiting: Waiting,
    mut stream: TcpStream,
    from: SocketAddr,
) -> Result<(), Failure> {
    let challenge = u64::from_ne_bytes(random::bytes()?);
    stream.set_nodelay(true)?;
    let late = |_| Failure::from(io::Error::from(io::ErrorKind::TimedOut));
    let mut question =
        timeout(PROOF_PATIENCE, prove(&mut stream, &node.seal, challenge)).await.map_err(late)??;
    let Some(_served) = door.come_in(waiting, from).await else { return Ok(()) };
    let until = tokio::time::Instant::now() + TALK_PATIENCE;
    loop {
        let body = answer(node, question.body).await;
        let letter = Letter { repeats: question.number, number: 0, body };
        let next = async {
            wire::send(&mut stream, &node.seal, &letter).await?;
            wire::receive(&mut stream, &node.seal, TEXT_BYTES_MAX).await
        };
        question = match timeout(PATIENCE, next).await.map_err(late)? {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            received => received?,
        };
        if question.repeats != challenge || tokio::time::Instant::now() > until {
            return Err(nonsense().into());
        }
    }
}

/// Has somebody prove to have the key, by a short question that repeats a challenge.
async fn prove(stream: &mut TcpStream, seal: &Seal, challenge: u64) -> Result<Letter<Question>, Failure> {
    wire::send(stream, seal, &Greeting { challenge }).await?;
    let question: Letter<Question> = wire::receive(stream, seal, FIRST_BYTES_MAX).await?;
    if question.repeats == challenge { Ok(question) } else { Err(nonsense().into()) }
}

async fn answer(node: &Arc<Node>, question: Question) -> Reply {
    if let Question::Addresses(ask) = question {
        return Reply::Addresses(ask_control(node, ask).await);
    }
    let answered = node.act(|machine| compare::answer(machine, question, now()));
    answered.unwrap_or(Reply::Taken)
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
        let Some(address) = node.machine().members().address_of(owner) else {
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
    let reply = exchange.ask(Question::Addresses(ask.clone())).await?;
    let Reply::Addresses(answer) = reply else { return Err(nonsense().into()) };
    Ok(answer)
}

/// The owners of what is asked for, those that are up first; among them the one with the largest range.
fn owners(node: &Node, ask: &Ask) -> Vec<HostId> {
    let machine = node.machine();
    let mut ranges: Vec<(bool, u128, HostId)> = machine
        .ledger()
        .spaces(ask.network)
        .filter_map(|record| match (&record.key, &record.value) {
            (Key::Space(_, first), Some(Value::Space(space))) => Some((*first, space)),
            _ => None,
        })
        .filter_map(|(first, space)| {
            let owner = space.owner.filter(|owner| *owner != ask.host)?;
            let range = Range { first, last: space.last };
            let serves = match ask.wish {
                Wish::Exact(address) => range.contains(address),
                Wish::Some(subnet) => subnet.contains(&first),
            };
            serves.then(|| (machine.members().address_of(owner).is_none(), u128::MAX - range.size(), owner))
        })
        .collect();
    ranges.sort();
    let mut owners: Vec<HostId> = ranges.into_iter().map(|(_, _, owner)| owner).collect();
    let mut seen = BTreeSet::new();
    owners.retain(|owner| seen.insert(*owner));
    // Unreachable owners come last, so that their mend is said only when nobody else could help.
    owners
}

#[cfg(test)]
mod tests;
