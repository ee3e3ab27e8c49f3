//! Texts between members over TCP, where more fits than in a packet.
//!
//! # Theory of operation
//! Who accepts a connection greets first, with a challenge. Each side then sends sealed texts, a length of
//! four bytes before each. A question repeats the challenge and brings a number of its own, and the answer
//! repeats that, so neither can be recorded and played again.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vswitch_sys::random;

use super::super::record::Record;
use super::super::view::{Answer, Ask};
use super::machine::{Difference, Digest};
use super::member::Member;
use super::seal::{Seal, Unopened};

/// The longest sealed text, in bytes.
const TEXT_BYTES_MAX: u32 = 64 << 20;

/// The first text.
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// The challenge, which questions must repeat.
    pub challenge: u64,
    /// The member that greets.
    pub member: Member,
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

/// A question of a member.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// Whether the records are those of this mark.
    Agree(u64),
    /// A digest, for the difference between the records and it.
    Compare(Digest),
    /// Records to take in.
    Take(Vec<Record>),
    /// A question for addresses.
    Addresses(Ask),
}

/// The answer to a question.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Whether the records agree.
    Agree(bool),
    /// The difference between the records.
    Difference(Difference),
    /// The word that the records were taken in.
    Taken,
    /// Addresses, or why there are none.
    Addresses(Answer),
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

/// Receives a text.
///
/// # Errors
/// [`Failure`].
pub async fn receive<T: DeserializeOwned>(stream: &mut TcpStream, seal: &Seal) -> Result<T, Failure> {
    let length = stream.read_u32().await?;
    if length > TEXT_BYTES_MAX {
        return Err(Unopened::Foreign.into());
    }
    // Room is made as it comes: a length alone costs nothing.
    let mut sealed = Vec::new();
    let mut limited = stream.take(length.into());
    limited.read_to_end(&mut sealed).await?;
    let text = seal.open(&sealed)?;
    Ok(serde_json::from_slice(&text).map_err(io::Error::from)?)
}
