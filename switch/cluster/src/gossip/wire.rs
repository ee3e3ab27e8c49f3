//! Texts between members over TCP, where more fits than in a packet.
//!
//! # Theory of operation
//! Who accepts a connection greets first, with a challenge. Each side then sends sealed texts, a length of
//! four bytes before each. A question repeats the challenge and brings a number of its own, and the answer
//! repeats that, so neither can be recorded and played again. The first question is short: who sends it has
//! the key, and only then is anything kept for the connection.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vswitch_sys::random;

use super::seal::{Seal, Unopened};

/// The longest sealed text, in bytes: the most records that one carries, one more, and as many ranks.
pub const TEXT_BYTES_MAX: u32 = 1 << 20;
/// The longest first text of each side, in bytes.
pub const FIRST_BYTES_MAX: u32 = 512;

/// The first text.
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// The challenge, which questions must repeat.
    pub challenge: u64,
}

/// A question or an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letter<T> {
    /// The challenge in a question; in an answer the number of the question.
    pub repeats: u64,
    /// The number of the question.
    pub number: u64,
    /// The question or the answer itself.
    pub body: T,
}

/// The reason that an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An error of the connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A text that is not sealed as ours are.
    #[error("{0}")]
    Unopened(#[from] Unopened),
}

/// Sends a text.
///
/// # Errors
/// Errors of the connection.
pub async fn send(stream: &mut TcpStream, seal: &Seal, text: &impl Serialize) -> Result<(), Failure> {
    let sealed = seal.seal(random::bytes()?, &serde_json::to_vec(text).map_err(io::Error::from)?);
    let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= TEXT_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("there is more to say than fits one text"))?;
    stream.write_all(&[&length.to_be_bytes(), sealed.as_slice()].concat()).await?;
    Ok(())
}

/// Receives a text that has at most so many bytes.
///
/// # Errors
/// [`Failure`].
pub async fn receive<T: DeserializeOwned>(
    stream: &mut TcpStream,
    seal: &Seal,
    bytes_max: u32,
) -> Result<T, Failure> {
    let length = stream.read_u32().await?;
    if length > bytes_max {
        return Err(Unopened::Foreign.into());
    }
    // Room is made as it comes: a length alone costs nothing.
    let mut sealed = Vec::new();
    let mut limited = stream.take(length.into());
    limited.read_to_end(&mut sealed).await?;
    let text = seal.open(&sealed)?;
    Ok(serde_json::from_slice(&text).map_err(io::Error::from)?)
}
