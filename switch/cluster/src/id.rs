//! Identifiers, as Docker has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identifier of a network, a sandbox or an endpoint: 64 hexadecimal digits that no other has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id([u8; 32]);

impl Id {
    /// An identifier of these bytes, which should be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `text` is the beginning of the identifier.
    pub fn starts_with(&self, text: &str) -> bool {
        !text.is_empty() && self.to_string().starts_with(text)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 32];
        let digits = text
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
        for (byte, value) in bytes.iter_mut().zip(digits) {
            *byte = value.unwrap_or_default();
        }
        let id = Self(bytes);
        if id.to_string() == text { Ok(id) } else { Err(format!("{text:?} is no identifier")) }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_64_digits() {
        let id = Id::new([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(Id::try_from(id.to_string()), Ok(id));
        for wrong in ["", "ab", &"AB".repeat(32), &"xx".repeat(32), &"ab".repeat(33)] {
            assert!(Id::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert!(id.starts_with("aba") && !id.starts_with("b") && !id.starts_with(""));
    }
}
