//! The chain `DOCKER-USER` of `iptables-save` or `ip6tables-save`, as rules that clients would write. Pure.
//!
//! # Theory of operation
//! Each line of the chain becomes a rule, or two; if one cannot be expressed nothing is imported, and every
//! such line is named with its reason.
//!
//! * **Families.** A chain is of one. A line that says nothing of it becomes a rule for all addresses of it.
//! * **States.** Rules judge what begins a flow, and so does a line without `--ctstate`: replies pass, as
//!   they do behind the line that most chains begin with.
//! * **`RETURN`** leaves the chain, which is what an accept does here. Behind one without a match nothing is
//!   looked at. In iptables it opens no way between networks, so a rule must not be made of it that does.

use super::known::invalid;
use super::words::words;
use crate::api::types::RuleCreate;
use crate::error::Result;

const CHAIN: &str = "DOCKER-USER";
/// Matches whose options are read, or which have none.
const MATCHES: [&str; 8] = ["tcp", "udp", "sctp", "multiport", "conntrack", "state", "limit", "comment"];

/// A line that is being read.
#[derive(Debug, Default)]
struct Line {
    rule: RuleCreate,
    states: Option<Vec<String>>,
    /// Whether it is about what opens a TCP connection.
    syn: bool,
    target: String,
    /// Whether it says anything that a packet must be.
    matches: bool,
}

type Reason = String;

/// Reads a chain. `opens` refuses rules that make no sense, and says whether one opens a way.
///
/// # Errors
/// When there is no such chain, or with each line that cannot be expressed.
pub(super) fn import(
    text: &str,
    opens: impl Fn(&RuleCreate) -> std::result::Result<bool, Reason>,
) -> Result<Vec<RuleCreate>> {
    let lines = chain(text)?;
    let is_v6 = text.contains("ip6tables-save") || lines.iter().any(|line| is_of_v6(line));
    let (mut rules, mut refused) = (Vec::new(), Vec::new());
    for line in &lines {
        match read(line, is_v6, &opens) {
            Ok(Some(own)) => rules.extend(own),
            Ok(None) => break,
            Err(reason) => refused.push(format!("\n  {line}: {reason}")),
        }
    }
    if refused.is_empty() {
        return Ok(rules);
    }
    let (some, all) = (refused.len(), lines.len());
    let message = format!("{some} of {all} lines cannot be imported, and none was:{}", refused.concat());
    Err(invalid(message))
}

/// The lines of the chain. What `iptables -S` prints has no tables.
fn chain(text: &str) -> Result<Vec<&str>> {
    let (mut in_filter, mut is_there, mut lines) = (true, false, Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('*') {
            in_filter = table == "filter";
        }
        // With counters, if they were asked for.
        let line =
            line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, line)| line);
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        is_there |= in_filter && (first == format!(":{CHAIN}") || second == Some(CHAIN));
        if in_filter && first == "-A" && second == Some(CHAIN) {
            lines.push(line);
        }
    }
    if is_there {
        return Ok(lines);
    }
    Err(invalid(format!("there is no chain {CHAIN} in it: give what iptables-save or ip6tables-save prints")))
}

fn is_of_v6(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).any(|pair| match pair[0] {
        "-s" | "-d" | "--ctorigsrc" => pair[1].contains(':'),
        "-p" => matches!(pair[1], "ipv6-icmp" | "icmpv6"),
        _ => false,
    })
}

/// The rules that a line becomes; `None` for one behind which nothing is looked at.
fn read(
    text: &str,
    is_v6: bool,
    opens: &impl Fn(&RuleCreate) -> std::result::Result<bool, Reason>,
) -> std::result::Result<Option<Vec<RuleCreate>>, Reason> {
    let words = words(text).ok_or("a quote is not closed")?;
    let mut line = Line::default();
    let mut rest = words.iter().skip(2).map(String::as_str);
    let mut negated = false;
    while let Some(word) = rest.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        line.take(word, &mut rest, std::mem::take(&mut negated))?;
    }
    let returns = line.target == "RETURN";
    if returns && !line.matches {
        return Ok(None);
    }
    let states = line.states()?;
    let Line { mut rule, .. } = line;
    name_family(&mut rule, is_v6)?;
    let rules: Vec<RuleCreate> = states
        .into_iter()
        .map(|state| RuleCreate { state: state.map(str::to_owned), ..rule.clone() })
        .collect();
    for rule in &rules {
        if opens(rule)? && returns && rule.in_interface != rule.out_interface {
            return Err("RETURN opens no way between networks, and an accept would: take it out".to_owned());
        }
    }
    Ok(Some(rules))
}

/// Has a rule be about one family, as the chain is that it comes from.
fn name_family(rule: &mut RuleCreate, is_v6: bool) -> std::result::Result<(), Reason> {
    let is_said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.starts_with('!'));
    let by_protocol = matches!(rule.protocol.as_deref(), Some("icmp" | "icmpv6"));
    if by_protocol || is_said(&rule.from) || is_said(&rule.to) {
        return Ok(());
    }
    let free = [&mut rule.from, &mut rule.to].into_iter().find(|end| end.is_none());
    let end = free.ok_or("a rule that negates both addresses is not of one family: write it as two lines")?;
    *end = Some(if is_v6 { "::/0" } else { "0.0.0.0/0" }.to_owned());
    Ok(())
}

impl Line {
    /// Takes an option and its values.
    fn take<'a>(
        &mut self,
        option: &str,
        rest: &mut impl Iterator<Item = &'a str>,
        negated: bool,
    ) -> std::result::Result<(), Reason> {
        let mut value = || rest.next().ok_or_else(|| format!("{option} has no value"));
        let sign = if negated { "!" } else { "" };
        if let Some(field) = self.field(option) {
            let written = format!("{sign}{}", value()?);
            if field.as_ref().is_some_and(|before| *before != written) {
                return Err(format!("{option} says again what is said, and otherwise"));
            }
            *field = Some(written);
            self.matches = true;
            return Ok(());
        }
        if negated {
            return Err(format!("{option} cannot be negated"));
        }
        match option {
            "-m" | "--match" => {
                let name = value()?;
                let known = MATCHES.contains(&name);
                return if known { Ok(()) } else { Err(format!("vswitch has no match {name:?}")) };
            }
            "--ctstate" | "--state" => {
                self.states = Some(value()?.split(',').map(str::to_owned).collect());
            }
            "--ctdir" if value()? == "ORIGINAL" => {}
            "--limit" => self.rule.limit = Some(value()?.to_owned()),
            "--limit-burst" => {
                let burst = value()?;
                self.rule.limit_burst = Some(burst.parse().map_err(|_| format!("{burst:?} is no burst"))?);
            }
            "--comment" => {
                self.rule.comment = Some(value()?.to_owned());
                return Ok(());
            }
            "--syn" => self.syn = true,
            "--tcp-flags" => {
                if (value()?, value()?) != ("FIN,SYN,RST,ACK", "SYN") {
                    return Err("of TCP flags only those that begin a connection are looked at".to_owned());
                }
                self.syn = true;
            }
            "-j" | "--jump" => return self.aim(value()?),
            "--reject-with" => return value().map(drop),
            _ => return Err(format!("vswitch has nothing like {option}")),
        }
        self.matches = true;
        Ok(())
    }

    /// The field of a rule that an option is about, and may negate.
    fn field(&mut self, option: &str) -> Option<&mut Option<String>> {
        let rule = &mut self.rule;
        Some(match option {
            "-s" | "--source" | "--ctorigsrc" => &mut rule.from,
            "-d" | "--destination" => &mut rule.to,
            "-i" | "--in-interface" => &mut rule.in_interface,
            "-o" | "--out-interface" => &mut rule.out_interface,
            "-p" | "--protocol" => &mut rule.protocol,
            "--sport" | "--sports" => &mut rule.source_port,
            "--dport" | "--dports" => &mut rule.destination_port,
            "--ctorigdstport" => &mut rule.published_port,
            _ => return None,
        })
    }

    fn aim(&mut self, target: &str) -> std::result::Result<(), Reason> {
        let action = match target {
            "ACCEPT" | "RETURN" => "accept",
            "DROP" => "drop",
            "REJECT" => "reject",
            "LOG" | "NFLOG" => return Err("vswitch writes no log of packets: take the line out".to_owned()),
            other => return Err(format!("vswitch has no target {other:?}")),
        };
        (self.target, self.rule.action) = (target.to_owned(), action.to_owned());
        Ok(())
    }

    /// The states that there is a rule for each of.
    fn states(&mut self) -> std::result::Result<Vec<Option<&'static str>>, Reason> {
        if self.target.is_empty() {
            return Err("it has no target".to_owned());
        }
        let known = [("ipv6-icmp", "icmpv6"), ("!ipv6-icmp", "!icmpv6"), ("all", "any")];
        if let Some(protocol) = &mut self.rule.protocol
            && let Some((_, ours)) = known.into_iter().find(|(theirs, _)| theirs == protocol)
        {
            ours.clone_into(protocol);
        }
        let Some(states) = &self.states else { return Ok(vec![self.syn.then_some("new")]) };
        let has = |state: &str| states.iter().any(|one| one == state);
        if let Some(other) =
            states.iter().find(|one| !["NEW", "ESTABLISHED", "RELATED"].contains(&one.as_str()))
        {
            return Err(format!("vswitch has no state {other}: take it out"));
        }
        let (established, related) = (has("ESTABLISHED"), has("RELATED"));
        let passes = self.rule.action == "accept";
        if self.syn && (established || related) {
            return Err("what opens a connection belongs to none".to_owned());
        }
        if established != related && !(passes && established) {
            return Err("ESTABLISHED and RELATED are one state here: write RELATED,ESTABLISHED".to_owned());
        }
        let own = [(has("NEW"), Some("new")), (established, Some("established"))];
        Ok(own.into_iter().filter_map(|(is_said, state)| is_said.then_some(state)).collect())
    }
}
