//! Names and identifiers, as Docker has them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{Code, Error, Result};

/// Longest name, in bytes: that of a file, since a sandbox is one in `/run/netns`.
const NAME_BYTES_MAX: usize = 255;
const SHORT_ID_DIGITS: usize = 12;

/// Names of network modes, which no network can have.
const RESERVED: [&str; 3] = ["host", "none", "default"];

/// What a network, a sandbox or an endpoint is told from all others by: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id([u8; 32]);

impl Id {
    /// An identifier of these bytes, which should be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
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

    fn try_from(text: String) -> std::result::Result<Self, String> {
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

/// The part of an identifier that people are shown.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_DIGITS).unwrap_or(id)
}

/// Checks the name of something new.
///
/// # Errors
/// When it is not one of Docker's: a letter or digit, then letters, digits, `_`, `.` and `-`.
pub fn check(what: &str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let usable = name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'.' | b'-'))
        && name.len() <= NAME_BYTES_MAX;
    if usable {
        return Ok(());
    }
    let message = format!("{name:?} is no name for a {what}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed");
    Err(Error::new(Code::InvalidArgument, message))
}

/// Checks the name of a new network.
///
/// # Errors
/// As [`check`], and for the names of network modes.
pub fn check_network(name: &str) -> Result<()> {
    check("network", name)?;
    if RESERVED.contains(&name) {
        let message = format!("network {name:?}: the name stands for a network mode: choose another name");
        return Err(Error::new(Code::NetworkPredefined, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for name in ["a", "web-1", "A_b.c", "0"] {
            assert_eq!(check("sandbox", name), Ok(()));
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert_eq!(check("sandbox", name).expect_err(name).code, Code::InvalidArgument);
        }
        assert_eq!(check_network("none").expect_err("reserved").code, Code::NetworkPredefined);
    }

    #[test]
    fn identifiers_have_64_digits() {
        let id = Id::new([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(short_id(&id.to_string()), "abababababab");
        assert_eq!(Id::try_from(id.to_string()), Ok(id));
        for wrong in ["", "ab", &"AB".repeat(32), &"xx".repeat(32), &"ab".repeat(33)] {
            assert!(Id::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert!(id.starts_with("aba") && !id.starts_with("b") && !id.starts_with(""));
    }
}
