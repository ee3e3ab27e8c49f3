//! Reading bodies as Docker's clients write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Options and labels.
pub type Map = BTreeMap<String, String>;

/// Reads `null`, which Docker's clients write for what they do not set, as the default.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads `""`, which Docker's clients write for what they do not set, as nothing.
pub(crate) fn empty_is_none<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text: Option<String> = Option::deserialize(from)?;
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(|text| text.parse().map_err(|error| format!("{text:?}: {error}"))).transpose();
    parsed.map_err(serde::de::Error::custom)
}
