//! The seal on everything gossip sends, with a key that all hosts of the cluster share.
//!
//! A sealed message is `vsg2`, the length of the cluster's name and the name, a random nonce, and the text
//! under XChaCha20-Poly1305, which covers what is before it, too. Who has not the key can neither read a
//! message nor make or change one. The name is readable, so that a host of another cluster can be told from
//! one that has another key.
//!
//! A key file has one key a line, 64 hexadecimal digits; what is behind a `#` is a remark. The first key
//! seals, and all of them open: to change the key, give every host the new one as a second line, then
//! exchange the lines on every host, then remove the old one.

use std::fmt;
use std::path::Path;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// The beginning of every message, with the number of its format.
const MAGIC: &[u8; 4] = b"vsg2";
/// The longest name of a cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// The most bytes by which a sealed message is longer.
pub const OVERHEAD_BYTES_MAX: usize = MAGIC.len() + 1 + NAME_BYTES_MAX + NONCE_BYTES + 16;
/// The most keys of one file.
const KEYS_MAX: usize = 8;

/// The seal of one cluster: seals its messages, and opens them.
#[derive(Clone)]
pub struct Seal {
    /// The beginning of every message, as far as it can be read.
    head: Vec<u8>,
    keys: Vec<XChaCha20Poly1305>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// The reason that a message was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// Something else than gossip of this version.
    #[error("it is no gossip of a vswitch of this version")]
    Foreign,
    /// A message of another cluster.
    #[error("it is of cluster {0:?}: give both hosts the same --cluster-name, or join another host")]
    OtherCluster(String),
    /// A message that no key of ours opens.
    #[error("it is sealed with another key: give both hosts the same --cluster-key-file")]
    OtherKey,
}

impl Seal {
    /// The seal of a cluster with these keys.
    ///
    /// # Errors
    /// One line, when the name is too long or empty or there is no key.
    pub fn new(cluster: &str, keys: &[[u8; KEY_BYTES]]) -> Result<Self, String> {
        let length = u8::try_from(cluster.len()).ok().filter(|length| (1..=63).contains(length));
        let Some(length) = length else {
            return Err(format!(
                "--cluster-name {cluster:?} has {} bytes: give it 1 to {NAME_BYTES_MAX}",
                cluster.len()
            ));
        };
        if keys.is_empty() {
            return Err("no key to seal gossip with: write one with \"vswitch cluster key\"".to_owned());
        }
        let head = [MAGIC.as_slice(), &[length], cluster.as_bytes()].concat();
        Ok(Self { head, keys: keys.iter().map(|key| XChaCha20Poly1305::new(key.into())).collect() })
    }

    /// The seal of a cluster with the keys of a file.
    ///
    /// # Errors
    /// One line that names the file, when it cannot be read or has something else than keys.
    pub fn read(cluster: &str, path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("cannot read --cluster-key-file {shown}: {error}: write one with \"vswitch cluster key\"")
        })?;
        let keys = parse(&text).map_err(|line| {
            format!("--cluster-key-file {shown}: line {line} is no key: write 64 hexadecimal digits, as \"vswitch cluster key\" does")
        })?;
        if keys.len() > KEYS_MAX {
            return Err(format!(
                "--cluster-key-file {shown} has {} keys: leave at most {KEYS_MAX}",
                keys.len()
            ));
        }
        Self::new(cluster, &keys).map_err(|error| format!("--cluster-key-file {shown}: {error}"))
    }

    /// Seals a message. The nonce must be random.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], text: &[u8]) -> Vec<u8> {
        let payload = Payload { msg: text, aad: &self.head };
        let sealed = self.keys.first().and_then(|key| key.encrypt(XNonce::from_slice(&nonce), payload).ok());
        // Sealing fails for texts of 256 GiB only.
        [self.head.as_slice(), &nonce, &sealed.unwrap_or_default()].concat()
    }

    /// Opens a message.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, message: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (head, rest) = split_head(message).ok_or(Unopened::Foreign)?;
        if head != self.head {
            let name = String::from_utf8_lossy(&head[MAGIC.len() + 1..]).into_owned();
            return Err(Unopened::OtherCluster(name));
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Unopened::Foreign)?;
        let payload = || Payload { msg: sealed, aad: head };
        let mut opened =
            self.keys.iter().filter_map(|key| key.decrypt(XNonce::from_slice(nonce), payload()).ok());
        opened.next().ok_or(Unopened::OtherKey)
    }
}

/// The part of a message that is readable, and the rest.
fn split_head(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = message.strip_prefix(MAGIC)?.first()?;
    message.split_at_checked(MAGIC.len() + 1 + usize::from(*length))
}

/// The keys of a file; otherwise the number of the line that is none.
fn parse(text: &str) -> Result<Vec<[u8; KEY_BYTES]>, usize> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).enumerate();
    lines.filter(|(_, line)| !line.is_empty()).map(|(index, line)| key(line).ok_or(index + 1)).collect()
}

fn key(line: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if line.len() != 2 * KEY_BYTES || !line.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        let digits = line.get(2 * index..2 * index + 2)?;
        // `from_str_radix` takes signs.
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.contains('+'))?;
    }
    Some(key)
}

/// A key as a line of a key file.
pub fn show(key: [u8; KEY_BYTES]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn seal(cluster: &str, keys: &[u8]) -> Seal {
        let keys: Vec<[u8; KEY_BYTES]> = keys.iter().map(|byte| [*byte; KEY_BYTES]).collect();
        Seal::new(cluster, &keys).expect("a seal")
    }

    #[test]
    fn what_is_sealed_is_opened_by_who_has_the_key() {
        let sealed = seal("c", &[1]).seal(NONCE, b"text");
        assert!(!sealed.windows(4).any(|window| window == b"text"));
        assert!(sealed.len() <= b"text".len() + OVERHEAD_BYTES_MAX);
        for keys in [&[1][..], &[2, 1], &[1, 2]] {
            assert_eq!(seal("c", keys).open(&sealed), Ok(b"text".to_vec()));
        }
        assert_eq!(seal("c", &[2]).open(&sealed), Err(Unopened::OtherKey));
        assert_eq!(seal("d", &[1]).open(&sealed), Err(Unopened::OtherCluster("c".to_owned())));
    }

    #[test]
    fn nothing_else_is_opened() {
        let seal = seal("cluster", &[1]);
        let sealed = seal.seal(NONCE, b"text");
        for cut in 0..sealed.len() {
            assert!(seal.open(&sealed[..cut]).is_err(), "{cut}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal.open(&changed).is_err(), "{at}");
        }
        assert_eq!(seal.open(b"GET / HTTP/1.1\r\n"), Err(Unopened::Foreign));
    }

    #[test]
    fn key_files_are_read() {
        let line = show([0xab; KEY_BYTES]);
        assert_eq!(parse(&format!("# ours\n{line}\n\n {line} # old\n")), Ok(vec![[0xab; KEY_BYTES]; 2]));
        assert_eq!(parse(&format!("{line}\nabc")), Err(2));
        assert_eq!(parse(&format!("+{}", &line[1..])), Err(1));
        let error = Seal::read("c", Path::new("/nonexistent")).expect_err("no file");
        assert!(error.contains("/nonexistent"), "{error}");
        assert!(Seal::new("c", &[]).is_err() && Seal::new("", &[[0; KEY_BYTES]]).is_err());
    }
}
