//! Asking the daemon: one HTTP/1.1 request on one connection to its control socket.

use std::io::ErrorKind;
use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use vswitch_control::error::ErrorBody;

use super::outcome::Failure;

/// A client of the daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.ask(Method::GET, path, Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks for something to be done, and for its outcome.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let answer = self.ask(Method::POST, path, serde_json::to_vec(body)?).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks for something to be done that answers nothing.
    pub(super) async fn command(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?).await.map(drop)
    }

    /// Asks for something to be removed.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask(Method::DELETE, path, Vec::new()).await.map(drop)
    }

    /// Asks for a long list, and hands over each item as it arrives: all of them need not fit in memory.
    pub(super) async fn each<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        mut take: impl FnMut(T),
    ) -> Result<(), Failure> {
        let (mut response, connection) = self.send(method, path, Vec::new()).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await?);
        }
        let mut lines = Lines::default();
        while let Some(frame) = response.body_mut().frame().await {
            lines.arrive(frame?.data_ref().map_or(&[], |data| data), &mut take)?;
        }
        connection.abort();
        lines.end(&mut take)
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let (response, connection) = self.send(method, path, body).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await?);
        }
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok(body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vswitch")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        Ok((sender.send_request(request).await?, connection))
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        if error.kind() == ErrorKind::PermissionDenied {
            return Failure(format!("may not talk to the daemon on {socket}: run this as root"));
        }
        Failure(format!(
            "no daemon on {socket} ({error}): start one with \"vswitch run\", or name its socket with --socket"
        ))
    }
}

async fn refusal(response: Response<Incoming>) -> Result<Failure, Failure> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let refusal = serde_json::from_slice::<ErrorBody>(&body).map(|refusal| refusal.message);
    Ok(Failure(refusal.unwrap_or_else(|_| format!("the daemon answered {status}"))))
}

/// A list of which each line is an item, as the daemon writes long ones.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not arrived.
    unread: Vec<u8>,
    has_ended: bool,
}

impl Lines {
    fn arrive<T: DeserializeOwned>(&mut self, bytes: &[u8], take: &mut impl FnMut(T)) -> Result<(), Failure> {
        self.unread.extend_from_slice(bytes);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.read(&line, take)?;
        }
        Ok(())
    }

    fn end<T: DeserializeOwned>(mut self, take: &mut impl FnMut(T)) -> Result<(), Failure> {
        let last = std::mem::take(&mut self.unread);
        self.read(&last, take)?;
        if self.has_ended { Ok(()) } else { Err(Failure("the daemon's answer was cut off".to_owned())) }
    }

    fn read<T: DeserializeOwned>(&mut self, line: &[u8], take: &mut impl FnMut(T)) -> Result<(), Failure> {
        let line = line.strip_prefix(b"[").unwrap_or(line).trim_ascii_end();
        let line = match line.strip_suffix(b"]") {
            Some(item) => {
                self.has_ended = true;
                item
            }
            None => line.strip_suffix(b",").unwrap_or(line),
        };
        if !line.is_empty() {
            take(serde_json::from_slice(line)?);
        }
        Ok(())
    }
}

/// A path of the API with `key` in it, whatever characters the user put there.
pub(super) fn path(before: &str, key: &str, after: &str) -> String {
    format!("{before}{}{after}", encoded(key))
}

/// A path of the API with those words of a query that are given.
pub(super) fn query<const N: usize>(path: &str, words: [(&str, Option<String>); N]) -> String {
    let given = words.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let words: Vec<String> = given.map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
    format!("{path}?{}", words.join("&"))
}

/// A text with everything escaped that means something in a path or a query (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_line_by_line_however_they_arrive() {
        let read = |text: &str, size: usize| {
            let (mut lines, mut items) = (Lines::default(), Vec::<u32>::new());
            for part in text.as_bytes().chunks(size) {
                lines.arrive(part, &mut |item| items.push(item)).expect("read");
            }
            lines.end(&mut |item| items.push(item)).map(|()| items).map_err(|failure| failure.0)
        };
        for size in 1..12 {
            assert_eq!(read("[10,\n234,\n5]", size), Ok(vec![10, 234, 5]));
            assert_eq!(read("[]", size), Ok(vec![]));
            assert_eq!(read("[10,\n", size), Err("the daemon's answer was cut off".to_owned()));
        }
    }

    #[test]
    fn keys_cannot_leave_their_place_in_a_path() {
        assert_eq!(path("/networks/", "a-b_c.d", "/fdb"), "/networks/a-b_c.d/fdb");
        assert_eq!(path("/networks/", "a/../b?c d", ""), "/networks/a%2F..%2Fb%3Fc%20d");
        let words = [("src", Some("fd00::/8".to_owned())), ("dst", None), ("state", Some("a&b".to_owned()))];
        assert_eq!(query("/flows", words), "/flows?src=fd00%3A%3A%2F8&state=a%26b");
    }
}
