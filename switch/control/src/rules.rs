//! Rules of the user's: adding, importing, showing, removing.
//!
//! A rule is kept as it was written, with networks, sandboxes and interfaces by name, and translated for the
//! datapath whenever one of them may have another number. The datapath is always given the whole table, which
//! takes the place of the one before at once.
//!
//! * A rule goes when the network that it names is removed here.
//! * It stays when another host removes the network, or nobody here is on it: it applies again once there is
//!   one of this name, from its first packet on. The same is true of sandboxes and interfaces.
//!
//! | module | |
//! |---|---|
//! | `known` | the words that clients and we have for the same thing |
//! | `read` | a rule as a client writes it, and what makes no sense |
//! | `tell` | a rule as the datapath is told it |
//! | `show` | a rule as clients see it |
//! | `iptables` | the chain `DOCKER-USER` as clients would write it |
//! | `words` | the words of an `iptables-save` line |

mod iptables;
mod known;
mod read;
mod show;
mod tell;
#[cfg(test)]
mod tests;
mod words;

use vswitch_contract::fact::{Fact, Key};
use vswitch_contract::network as engine;

use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::state::rules::{Rule, Rules};
use show::show;

/// Rules there may be: each packet that begins a flow is compared with all.
const RULES_MAX: usize = 1000;

impl Control {
    /// Adds a rule.
    pub async fn add_rule(&mut self, wish: types::RuleCreate) -> Result<types::Rule> {
        let before = wish.before;
        let added = self.add_rules(vec![wish], before).await?;
        let first = added.into_iter().next();
        first.ok_or_else(|| Error::new(Code::Internal, "a rule was added and is not there: see the log"))
    }

    /// Imports the chain `DOCKER-USER` of a text of `iptables-save`: all of it, or nothing.
    pub async fn import_rules(&mut self, import: types::RuleImport) -> Result<Vec<types::Rule>> {
        let shown = |wish: &types::RuleCreate| {
            let rule = self.read_rule(0, wish)?;
            Ok::<_, Error>(self.shown(&rule, engine::Count::default()))
        };
        let opens = |wish: &types::RuleCreate| match shown(wish) {
            Ok(rule) => Ok(rule.opens),
            Err(error) => Err(error.message),
        };
        let wishes = iptables::import(&import.text, opens)?;
        if import.dry_run {
            return wishes.iter().map(shown).collect();
        }
        self.add_rules(wishes, import.before).await
    }

    /// Adds rules in their order, before another one or behind all.
    async fn add_rules(
        &mut self,
        wishes: Vec<types::RuleCreate>,
        before: Option<u32>,
    ) -> Result<Vec<types::Rule>> {
        let old = self.state.rules.clone();
        if old.rules.len() + wishes.len() > RULES_MAX {
            let message = format!("{RULES_MAX} rules is the most there can be: remove one");
            return Err(Error::new(Code::LimitReached, message));
        }
        let at = before.map_or(Ok(old.rules.len()), |id| old.place_of(id))?;
        let numbers = old.last + 1..;
        let rules: Result<Vec<Rule>> =
            numbers.zip(&wishes).map(|(id, wish)| self.read_rule(id, wish)).collect();
        let rules = rules?;
        let own = &mut self.state.rules;
        own.last = rules.last().map_or(own.last, |rule| rule.id);
        own.rules.splice(at..at, rules.iter().cloned());
        self.push_rules(old).await?;
        Ok(rules.iter().map(|rule| self.shown(rule, engine::Count::default())).collect())
    }

    /// Removes a rule.
    pub async fn remove_rule(&mut self, id: u32) -> Result<()> {
        let before = self.state.rules.clone();
        let at = before.place_of(id)?;
        self.state.rules.rules.remove(at);
        self.push_rules(before).await
    }

    /// Every rule in order, with what it has decided about.
    pub async fn rules(&self) -> Result<Vec<types::Rule>> {
        let counts = self.link.rule_counts().await;
        let counts = counts.map_err(|error| {
            Error::new(Code::Internal, format!("cannot read the counters of rules: {error}"))
        })?;
        let count = |rule: &Rule| counts.get(&rule.id).copied().unwrap_or_default();
        Ok(self.state.rules.rules.iter().map(|rule| self.shown(rule, count(rule))).collect())
    }

    /// Forgets the rules that name a network which was removed.
    pub(crate) async fn forget_rules_of(&mut self, network: &str) {
        self.state.rules.rules.retain(|rule| !rule.names(network));
        if let Err(error) = self.tell_rules().await {
            tracing::warn!("rules may still be about network {network:?}, which is gone: {error}");
        }
    }

    /// Tells the datapath the rules there are; if that fails, those there were are kept.
    pub(crate) async fn push_rules(&mut self, before: Rules) -> Result<()> {
        let done = self.tell_rules().await;
        if done.is_err() {
            self.state.rules = before;
        }
        done
    }

    /// Tells the datapath the rules as they are for the networks and sandboxes there are now, if it was told
    /// them otherwise. Numbers are given again, to others than those who had them: so this comes before a new
    /// port, and before a number is given back.
    pub(crate) async fn tell_rules(&self) -> Result<()> {
        let table = self.state.rules.rules.iter().filter_map(|rule| tell::translate(&self.state, rule));
        let wanted = Fact::Rules(table.collect());
        let told = self.link.facts(|facts| facts.get(&Key::Rules).map(|held| held.fact.clone())).await;
        let none = || matches!(&wanted, Fact::Rules(rules) if rules.is_empty()) && told.is_none();
        if told.as_ref() == Some(&wanted) || none() {
            return Ok(());
        }
        let done = self.link.set(wanted).await;
        done.map_err(|error| Error::new(Code::Internal, format!("cannot change the rules: {error}")))
    }

    fn read_rule(&self, id: u32, wish: &types::RuleCreate) -> Result<Rule> {
        let has = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
        let networks = |key: &str| self.segment_name(key);
        read::read(&self.state, &networks, &has, id, wish)
    }

    fn shown(&self, rule: &Rule, count: engine::Count) -> types::Rule {
        let told = tell::translate(&self.state, rule);
        show(rule, told.is_some_and(|rule| rule.opens()), count)
    }
}
