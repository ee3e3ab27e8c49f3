//! Filters of the networks a client wants to see or to prune, in Docker's words.
//!
//! A filter is a key and values, in JSON: `{"name": ["a", "b"]}`. A network must match every key; one
//! value of a key is enough, but for labels, of which it must have all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::api::types::{Map, Network};
use crate::calendar;
use crate::error::{Code, Error, Result};
use crate::network::predefined::is_predefined;

/// Keys that `network ls` knows.
pub const OF_LIST: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
/// Keys that `network prune` knows.
pub const OF_PRUNE: &[&str] = &["label", "label!", "until"];

/// Values by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Values in a list, or as keys, as Docker's old clients write them: `{"name": {"a": true}}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads them; `now` is what durations of `until` are counted back from.
    ///
    /// # Errors
    /// For what is no JSON of that shape, a key that is not known, and a value that makes no sense.
    pub fn parse(json: &str, known: &[&str], now: Duration) -> Result<Self> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let read: BTreeMap<String, Values> = serde_json::from_str(json).map_err(|error| {
            let message = format!("the filters cannot be read: {error}: write {{\"name\": [\"lan\"]}}");
            Error::new(Code::MalformedJson, message)
        })?;
        let mut filters = BTreeMap::new();
        for (key, values) in read {
            if !known.contains(&key.as_str()) {
                let message = format!("invalid filter {key:?}: use one of {}", known.join(", "));
                return Err(Error::new(Code::InvalidArgument, message));
            }
            let values = match values {
                Values::List(values) => values,
                Values::Set(values) => {
                    values.into_iter().filter(|(_, set)| *set).map(|(value, _)| value).collect()
                }
            };
            let values =
                values.into_iter().map(|value| check(&key, value, now)).collect::<Result<Vec<_>>>()?;
            if !values.is_empty() {
                filters.insert(key, values);
            }
        }
        Ok(Self(filters))
    }

    /// Whether a network passes all of them.
    pub fn admit(&self, network: &Network) -> bool {
        self.0.iter().all(|(key, values)| match key.as_str() {
            "label" => values.iter().all(|value| has_label(&network.labels, value)),
            "label!" => !values.iter().any(|value| has_label(&network.labels, value)),
            _ => values.iter().any(|value| matches(network, key, value)),
        })
    }
}

fn matches(network: &Network, key: &str, value: &str) -> bool {
    let builtin = is_predefined(&network.name);
    match key {
        "name" => network.name.contains(value),
        "id" => network.id.contains(value),
        "driver" => network.driver == value,
        "scope" => network.scope == value,
        "type" => builtin == (value == "builtin"),
        "dangling" => (value == "true") == (!builtin && network.containers.is_empty()),
        "until" => network.created.as_str() < value,
        _ => false,
    }
}

/// Checks a value, and makes of the end of a time a moment that compares with those of networks.
fn check(key: &str, value: String, now: Duration) -> Result<String> {
    let refuse = |mend: &str| Err(Error::new(Code::InvalidArgument, format!("filter {key}={value}: {mend}")));
    match (key, value.as_str()) {
        ("type", "custom" | "builtin") | ("dangling", "true" | "false") => Ok(value),
        ("type", _) => refuse("use custom or builtin"),
        ("dangling", "1") => Ok("true".to_owned()),
        ("dangling", "0") => Ok("false".to_owned()),
        ("dangling", _) => refuse("use true or false"),
        ("until", text) => {
            let ago = calendar::duration(text).map(|ago| now.saturating_sub(ago));
            match ago.or_else(|| calendar::moment(text)) {
                Some(moment) => Ok(calendar::rfc3339(moment)),
                None => refuse("use a duration as in 24h, or a moment as in 2026-11-20T00:00:00Z"),
            }
        }
        _ => Ok(value),
    }
}

/// Whether there is a label of this key, and of this value if one is given.
fn has_label(labels: &Map, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_795_132_800);

    fn network(name: &str, created: &str) -> Network {
        Network {
            name: name.to_owned(),
            id: "ab".repeat(32),
            created: created.to_owned(),
            scope: "local".to_owned(),
            driver: "bridge".to_owned(),
            labels: [("owner".to_owned(), "docs".to_owned())].into(),
            ..Network::default()
        }
    }

    #[test]
    fn networks_pass_or_do_not() {
        let lan = network("lan", "2026-11-19T12:00:00.000000000Z");
        let cases = [
            ("", true),
            ("{}", true),
            (r#"{"name":[]}"#, true),
            (r#"{"name":["la"]}"#, true),
            (r#"{"name":{"la":true}}"#, true),
            (r#"{"name":{"la":false}}"#, true),
            (r#"{"name":["x","an"]}"#, true),
            (r#"{"name":["x"]}"#, false),
            (r#"{"name":["la"],"driver":["host"]}"#, false),
            (r#"{"id":["abab"]}"#, true),
            (r#"{"id":["cc"]}"#, false),
            (r#"{"driver":["bridge"]}"#, true),
            (r#"{"driver":["bri"]}"#, false),
            (r#"{"scope":["swarm"]}"#, false),
            (r#"{"type":["custom"]}"#, true),
            (r#"{"type":["builtin"]}"#, false),
            (r#"{"type":["builtin","custom"]}"#, true),
            (r#"{"label":["owner"]}"#, true),
            (r#"{"label":["owner=docs"]}"#, true),
            (r#"{"label":["owner","x"]}"#, false),
            (r#"{"label":["owner=me"]}"#, false),
            (r#"{"label!":["owner"]}"#, false),
            (r#"{"label!":["owner=me"]}"#, true),
            (r#"{"dangling":["true"]}"#, true),
            (r#"{"dangling":["0"]}"#, false),
            (r#"{"until":["12h"]}"#, false),
            (r#"{"until":["11h59m"]}"#, true),
            (r#"{"until":["2026-11-19"]}"#, false),
            (r#"{"until":["2026-11-19T14:00:00+01:00"]}"#, true),
        ];
        let known = [OF_LIST, OF_PRUNE].concat();
        for (filters, expected) in cases {
            let parsed = Filters::parse(filters, &known, NOW).expect(filters);
            assert_eq!(parsed.admit(&lan), expected, "{filters}");
        }
        let builtin = Filters::parse(r#"{"type":["builtin"],"dangling":["false"]}"#, &known, NOW);
        assert!(builtin.expect("filters").admit(&network("host", "")));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("[]", Code::MalformedJson),
            (r#"{"name":"lan"}"#, Code::MalformedJson),
            (r#"{"colour":["red"]}"#, Code::InvalidArgument),
            (r#"{"until":["1h"]}"#, Code::InvalidArgument),
            (r#"{"type":["any"]}"#, Code::InvalidArgument),
            (r#"{"dangling":["maybe"]}"#, Code::InvalidArgument),
        ];
        for (filters, code) in cases {
            assert_eq!(Filters::parse(filters, OF_LIST, NOW).expect_err(filters).code, code, "{filters}");
        }
        for value in ["soon", "", "-1h", "2026-13-01", "1h2"] {
            let filters = format!(r#"{{"until":["{value}"]}}"#);
            assert!(Filters::parse(&filters, OF_PRUNE, NOW).is_err(), "{value}");
        }
    }
}
