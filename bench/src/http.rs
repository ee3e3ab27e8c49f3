//! One request over the control socket, as any client makes it. No more of HTTP than that.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::error::BenchError;

/// Posts a JSON body on a connection of its own.
///
/// # Errors
/// With the answer, when it is not one of success.
pub fn post(socket: &Path, route: &str, body: &Value) -> Result<(), BenchError> {
    request(socket, "POST", route, &body.to_string()).map(drop)
}

/// Gets something on a connection of its own, and answers with its body.
///
/// # Errors
/// With the answer, when it is not one of success.
pub fn get(socket: &Path, route: &str) -> Result<String, BenchError> {
    request(socket, "GET", route, "")
}

fn request(socket: &Path, method: &str, route: &str, body: &str) -> Result<String, BenchError> {
    let length = body.len();
    let mut stream = UnixStream::connect(socket)?;
    let head = format!("{method} {route} HTTP/1.1\r\nHost: vswitch\r\nConnection: close\r\n");
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let said = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    if status.starts_with('2') {
        return Ok(said.to_owned());
    }
    Err(io::Error::other(format!("{method} {route}: {status} {said}")).into())
}
