//! Asking the daemon: one HTTP/1.1 request on one connection to its control socket.

use std::io::ErrorKind;
use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
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

    /// Asks for something to be removed, and for the thing itself.
    pub(super) async fn delete_what<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.ask(Method::DELETE, path, Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vswitch")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        if status.is_success() {
            return Ok(body);
        }
        let refusal = serde_json::from_slice::<ErrorBody>(&body).map(|refusal| refusal.message);
        Err(Failure(refusal.unwrap_or_else(|_| format!("the daemon answered {status}"))))
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
    fn keys_cannot_leave_their_place_in_a_path() {
        assert_eq!(path("/networks/", "a-b_c.d", "/fdb"), "/networks/a-b_c.d/fdb");
        assert_eq!(path("/networks/", "a/../b?c d", ""), "/networks/a%2F..%2Fb%3Fc%20d");
        let words = [("src", Some("fd00::/8".to_owned())), ("dst", None), ("state", Some("a&b".to_owned()))];
        assert_eq!(query("/flows", words), "/flows?src=fd00%3A%3A%2F8&state=a%26b");
    }
}
