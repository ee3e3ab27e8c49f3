//! A web server that closes first, and `ab`, which visits it many times.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};

use crate::namespace::{inside, must};
use crate::talk;

/// Threads that serve.
const THREADS: usize = 4;
/// Connections that wait to be served at most.
const BACKLOG: i32 = 4096;

/// A server of one short page, whose ends of connections close first and stay in TIME-WAIT.
#[derive(Debug)]
pub struct Web {
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

/// Visits, as `ab` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visits {
    /// Visits that came to an end, well or not.
    pub complete: u64,
    /// Visits that failed.
    pub failed: u64,
}

impl Web {
    /// Serves in a namespace.
    ///
    /// # Panics
    /// When the address or the port is not there.
    pub fn serve(namespace: &Path, at: SocketAddr) -> Self {
        let listener = Arc::new(talk::listen_at(namespace, at));
        listen(&listener, Backlog::new(BACKLOG).expect("a backlog")).expect("listen");
        let threads = (0..THREADS).map(|_| {
            let listener = Arc::clone(&listener);
            std::thread::spawn(move || {
                while let Ok((connection, _)) = listener.accept() {
                    serve_one(connection);
                }
            })
        });
        let threads = threads.collect();
        Self { listener, threads }
    }

    /// Where it serves.
    ///
    /// # Panics
    /// Never.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let listener: RawFd = self.listener.as_raw_fd();
        // Nobody waits for the next connection any more.
        let _ = shutdown(listener, Shutdown::Both);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn serve_one(mut connection: TcpStream) {
    let mut request = [0; 4096];
    // A visitor may hang up.
    if connection.read(&mut request).is_ok_and(|bytes| bytes > 0) {
        let _ = connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}

/// Visits a server so many times, several at once, each by a connection of its own.
///
/// # Panics
/// When `ab` gives up.
pub fn visit(namespace: &Path, at: SocketAddr, visits: u32, at_once: u32) -> Visits {
    let (visits, at_once) = (visits.to_string(), at_once.to_string());
    let url = format!("http://{at}/");
    // Failures are counted, and no reason to give up.
    let said = inside(namespace, || {
        must(Command::new("ab").args(["-q", "-r", "-n", &visits, "-c", &at_once, &url]))
    });
    let number = |what: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
        line.trim().parse().unwrap_or(0)
    };
    Visits { complete: number("Complete requests:"), failed: number("Failed requests:") }
}
