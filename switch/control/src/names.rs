//! Names and identifiers, as Docker has them.

use vswitch_cluster::id::Id;
use vswitch_sys::random;

use crate::error::{Code, Error, Result, failed};

/// Longest name, in bytes: that of a file, since a sandbox is one in `/run/netns`.
const NAME_BYTES_MAX: usize = 255;
const SHORT_ID_DIGITS: usize = 12;

/// Names of network modes, which no network can have.
const RESERVED: [&str; 3] = ["host", "none", "default"];

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

/// An identifier for something new.
///
/// # Errors
/// When the kernel has no random numbers.
pub fn new_id() -> Result<Id> {
    random::bytes().map(Id::new).map_err(|error| failed("draw an identifier", &error))
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
    fn people_are_shown_the_beginning_of_an_identifier() {
        assert_eq!(short_id(&"ab".repeat(32)), "abababababab");
    }
}
