//! One question to one server (RFC 1035, 4.2; RFC 7766).
//!
//! A forged answer would have to guess the identifier and the port, which are drawn for each question, and
//! repeat the question; whatever else arrives is ignored.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use vswitch_contract::names::message::{self, MESSAGE_BYTES_MAX, Query};
use vswitch_sys::random;

/// The port of name servers.
pub const DNS_PORT: u16 = 53;
/// Time that one server may take, over UDP and TCP together: longer than anybody waits, so that a late answer
/// is kept for who asks again.
pub const TIME_MAX: Duration = Duration::from_secs(5);
/// Time after which a datagram is taken for lost, and sent again.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// Asks a server and returns its whole answer.
///
/// # Errors
/// `TimedOut` after [`TIME_MAX`], and errors of sockets.
pub async fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut question = question.to_vec();
    message::set_id(&mut question, u16::from_ne_bytes(random::bytes()?));
    timeout(TIME_MAX, async {
        let answer = ask_datagram(server, &question).await?;
        if message::is_truncated(&answer) {
            return ask_stream(server, &question).await;
        }
        Ok(answer)
    })
    .await?
}

async fn ask_datagram(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    loop {
        socket.send(question).await?;
        if let Ok(answer) = timeout(RESEND_AFTER, hear(&socket, question)).await {
            return answer;
        }
    }
}

/// The answer to a question; whatever else arrives is ignored.
async fn hear(socket: &UdpSocket, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(question, &answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer(question, &answer) {
        return Ok(answer);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it answered another question"))
}

fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    Query::parse(question).is_ok_and(|query| query.is_answered_by(answer))
}
