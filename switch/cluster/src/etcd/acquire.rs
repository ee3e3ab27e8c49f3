//! Getting addresses for this host: some that nobody has, or some of another host's.

use std::sync::Arc;

use tokio::sync::oneshot;
use vswitch_sys::{random, wallclock};

use super::super::record::{HostId, Key, Record};
use super::super::view::{Answer, Ask, Event, Wish};
use super::letters::{self, Letter};
use super::shares;
use super::source::{Asked, Keeper, TRIES_MAX};
use super::wire::{Change, KeyValue};

/// Beats that another host has to answer.
const ANSWER_BEATS: u32 = 5;

/// Questions of others that are remembered; at the limit new ones are not answered.
const LETTERS_MAX: usize = 1024;

impl Keeper {
    /// Gets addresses, or asks another host that has them. The answer comes when there is one.
    pub(super) async fn acquire(&mut self, ask: Ask, answer: oneshot::Sender<Answer>) {
        match self.take_share(&ask).await {
            Ok(Some(records)) => drop(answer.send(Ok(records))),
            Ok(None) => {
                let owners = shares::owners(self.mirror.spaces(ask.network), &ask);
                let refusal = format!("{}: nobody has any", what(&ask));
                self.ask_next(ask, owners, answer, refusal).await;
            }
            Err(why) => drop(answer.send(Err(format!("{}: {why}", what(&ask))))),
        }
    }

    /// Takes addresses that nobody has; `None` if there are none.
    async fn take_share(&mut self, ask: &Ask) -> Result<Option<Vec<Record>>, String> {
        let leases = self.ready()?;
        for _ in 0..TRIES_MAX {
            let (mirror, clock) = (&self.mirror, &mut self.clock);
            let version = || clock.next(wallclock::since_epoch());
            let spaces = mirror.spaces(ask.network);
            let Some(records) = shares::take(spaces, ask, version) else { return Ok(None) };
            let wanted = records.iter().cloned().map(Arc::new).collect();
            if self.write(wanted, leases).await.map_err(|error| error.to_string())? {
                return Ok(Some(records));
            }
        }
        Err("too many hosts want some at once: try again".to_owned())
    }

    /// Asks the next owner that is there; without one, the answer says why.
    async fn ask_next(
        &mut self,
        ask: Ask,
        mut owners: Vec<HostId>,
        answer: oneshot::Sender<Answer>,
        mut refusal: String,
    ) {
        while !owners.is_empty() {
            let owner = owners.remove(0);
            if self.mirror.get(&Key::Host(owner)).is_none() {
                refusal = self.away(&ask, owner);
                continue;
            }
            match self.send_question(&ask, owner).await {
                Ok(number) => {
                    let asked = Asked { ask, owner, others: owners, answer, beats: 0 };
                    self.asked.insert(number, asked);
                    return;
                }
                Err(why) => refusal = format!("{}: {why}", what(&ask)),
            }
        }
        // The task that asked may have gone.
        let _ = answer.send(Err(refusal));
    }

    async fn send_question(&mut self, ask: &Ask, owner: HostId) -> Result<String, String> {
        let leases = self.ready()?;
        let number = random::bytes().map_err(|error| format!("cannot draw a number: {error}"))?;
        let number = format!("{:016x}", u64::from_be_bytes(number));
        let change = letters::question(&self.layout.prefix, owner, ask, &number, leases.life);
        self.client.commit(&[], &[change]).await.map_err(|error| error.to_string())?;
        Ok(number)
    }

    fn away(&self, ask: &Ask, owner: HostId) -> String {
        let host = owner.short();
        format!(
            "{}: host {host} has them, which is away: start it again, or give up on it with \
             \"vswitch cluster forget {host}\"",
            what(ask)
        )
    }

    /// Looks at a key that may be a letter to this host.
    pub(super) async fn open(&mut self, found: &KeyValue) {
        match Letter::read(&self.layout.prefix, self.me, &found.key) {
            Some(Letter::Question { from, number }) => self.ask_control(from, number, found),
            Some(Letter::Answer { number }) => {
                if let Some(asked) = self.asked.remove(&number) {
                    let owner = asked.owner.short();
                    let answer = serde_json::from_slice(&found.value);
                    let answer = answer.unwrap_or_else(|error| Err(format!("host {owner}: {error}")));
                    self.close(&number, asked, answer).await;
                }
            }
            None => {}
        }
    }

    /// Hands a question to control, whose answer comes back to the task.
    fn ask_control(&mut self, from: HostId, number: String, found: &KeyValue) {
        if self.answered.len() >= LETTERS_MAX || !self.answered.insert(found.key.clone()) {
            return;
        }
        let Ok(ask) = serde_json::from_slice::<Ask>(&found.value) else { return };
        let (sender, answer) = oneshot::channel();
        let answers = self.answers.clone();
        // Control has gone; so will we.
        let _ = self.events.send(Event::Asked(ask, sender));
        tokio::spawn(async move {
            let answer =
                answer.await.unwrap_or_else(|_| Err("the host that has them stops: try again".to_owned()));
            let _ = answers.send((from, number, answer));
        });
    }

    /// Writes an answer, behind the records that it is about.
    pub(super) async fn reply(&mut self, to: HostId, number: &str, answer: &Answer) {
        self.flush().await;
        let Ok(leases) = self.ready() else { return };
        let change = letters::answer(&self.layout.prefix, to, number, answer, leases.life);
        if let Err(error) = self.client.commit(&[], &[change]).await {
            tracing::warn!("host {} is not answered: {error}", to.short());
        }
    }

    /// Ends a question with its answer, or asks the next owner.
    async fn close(&mut self, number: &str, asked: Asked, answer: Answer) {
        let Asked { ask, owner, others, answer: wanted, .. } = asked;
        let gone: [Change; 2] = letters::forget(&self.layout.prefix, owner, self.me, number);
        if let Err(error) = self.client.commit(&[], &gone).await {
            tracing::debug!("a letter is left in etcd until the lease ends: {error}");
        }
        match answer {
            Ok(records) => {
                records.iter().for_each(|record| self.clock.see(record.version));
                // The task that asked may have gone.
                let _ = wanted.send(Ok(records));
            }
            Err(refusal) => Box::pin(self.ask_next(ask, others, wanted, refusal)).await,
        }
    }

    /// Gives up on owners that do not answer.
    pub(super) async fn give_up_waiting(&mut self) {
        self.asked.values_mut().for_each(|asked| asked.beats += 1);
        while let Some((number, asked)) =
            self.asked.extract_if(.., |_, asked| asked.beats > ANSWER_BEATS).next()
        {
            let (host, what) = (asked.owner.short(), what(&asked.ask));
            self.close(&number, asked, Err(format!("{what}: host {host} does not answer: try again"))).await;
        }
    }
}

fn what(ask: &Ask) -> String {
    match ask.wish {
        Wish::Exact(address) => format!("address {address} of network {:?}", ask.name),
        Wish::Some(subnet) => format!("addresses of {subnet} of network {:?}", ask.name),
    }
}
