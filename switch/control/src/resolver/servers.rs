//! Name servers of the host (resolv.conf(5)), and which of them keep silent.
//!
//! A server that says nothing to a question, nor to any other meanwhile, is known to be silent until it
//! speaks again. It is still asked, beside the next one and not before it, so that it costs nobody any time
//! and is heard as soon as it is back.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Servers that are asked, as many as the C library takes.
pub const SERVERS_MAX: usize = 3;
/// Questions that one server may owe an answer to; it is asked no more of them.
pub const OWED_MAX: usize = 1024;
/// Questions that one server may owe an answer to that is known to be silent.
pub const OWED_SILENT_MAX: usize = 16;

/// Servers asked where the host's file names none: Google's, as Docker has it.
const FALLBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// A server, and what is known of it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    memory: Arc<Memory>,
}

#[derive(Debug)]
struct Memory {
    is_silent: AtomicBool,
    /// Answers it gave, to any question.
    answers: AtomicUsize,
    owed: Arc<Semaphore>,
}

impl Server {
    /// One of which nothing is known yet.
    pub fn new(address: IpAddr) -> Self {
        let (is_silent, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
        let owed = Arc::new(Semaphore::new(OWED_MAX));
        Self { address, memory: Arc::new(Memory { is_silent, answers, owed }) }
    }

    /// Whether it is known to be silent.
    pub fn is_silent(&self) -> bool {
        self.memory.is_silent.load(Relaxed)
    }

    /// A place for another question, for as long as that waits; `None` where too many do already.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let owed = OWED_MAX - self.memory.owed.available_permits();
        if self.is_silent() && owed >= OWED_SILENT_MAX {
            return None;
        }
        Arc::clone(&self.memory.owed).try_acquire_owned().ok()
    }

    /// The number of answers that it has given so far.
    pub fn answers(&self) -> usize {
        self.memory.answers.load(Relaxed)
    }

    /// Notes that it answers, whatever the answer is.
    pub fn speaks(&self) {
        self.memory.answers.fetch_add(1, Relaxed);
        if self.memory.is_silent.swap(false, Relaxed) {
            tracing::info!("name server {} answers again", self.address);
        }
    }

    /// Notes that a question was not answered in time, and whether any was since it had given `before`
    /// answers.
    pub fn was_silent_since(&self, before: usize) {
        if self.answers() == before && !self.memory.is_silent.swap(true, Relaxed) {
            tracing::warn!("name server {} keeps silent: it is waited for no longer", self.address);
        }
    }
}

/// The servers a file names, read again whenever it changes.
#[derive(Debug)]
pub struct Servers {
    path: PathBuf,
    read: Option<SystemTime>,
    servers: Vec<Server>,
}

impl Servers {
    /// Servers that the file at `path` names; it is not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: None, servers: Vec::new() }
    }

    /// The servers there are now, in the order of the file. One that was there before is the same.
    pub fn now(&mut self) -> Vec<Server> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified != self.read {
            let addresses = parse(&fs::read_to_string(&self.path).unwrap_or_default()).into_iter();
            let known = |address: IpAddr| self.servers.iter().find(|known| known.address == address).cloned();
            self.servers =
                addresses.map(|address| known(address).unwrap_or_else(|| Server::new(address))).collect();
            self.read = modified;
        }
        self.servers.clone()
    }
}

/// The servers that the text of a `resolv.conf` names, each once.
fn parse(text: &str) -> Vec<IpAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    });
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in words.take(SERVERS_MAX) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() { FALLBACK.to_vec() } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let cases: [(&str, &[&str]); 7] = [
            ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", &["192.0.2.1", "2001:db8::1"]),
            ("# nameserver 192.0.2.1\n  nameserver\t192.0.2.2 \nsearch x", &["192.0.2.2"]),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                &["1.1.1.1", "1.1.1.2", "1.1.1.3"],
            ),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1", &["127.0.0.53", "192.0.2.1"]),
            ("nameserver 127.0.0.53\nnameserver ::1", &["127.0.0.53", "::1"]),
            ("nameserver 1.1.1.1\nnameserver 1.1.1.1", &["1.1.1.1"]),
            ("nameserver nonsense\nnameserver", &["8.8.8.8", "8.8.4.4"]),
        ];
        for (text, expected) in cases {
            let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
            assert_eq!(servers, expected, "{text:?}");
        }
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_what_is_known_stays() {
        let path = std::env::temp_dir().join(format!("vswitch-resolv-{}", std::process::id()));
        let mut servers = Servers::new(path.clone());
        let mut read = || -> Vec<String> {
            servers.now().iter().map(|server| format!("{} {}", server.address, server.is_silent())).collect()
        };
        assert_eq!(read(), ["8.8.8.8 false", "8.8.4.4 false"], "there is no file");
        fs::write(&path, "nameserver 192.0.2.1").expect("written");
        assert_eq!(read(), ["192.0.2.1 false"]);
        fs::write(&path, "nameserver 192.0.2.2\nnameserver 192.0.2.1").expect("written");
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("another time");
        assert_eq!(read(), ["192.0.2.2 false", "192.0.2.1 false"]);
        fs::remove_file(&path).expect("removed");
        assert_eq!(read(), ["8.8.8.8 false", "8.8.4.4 false"]);
    }

    #[test]
    fn a_server_is_silent_that_answers_nothing_at_all() {
        let server = Server::new([192, 0, 2, 1].into());
        let before = server.answers();
        server.speaks();
        server.was_silent_since(before);
        assert!(!server.is_silent(), "it answered another question");
        server.was_silent_since(server.answers());
        assert!(server.is_silent());
        let places: Vec<_> = std::iter::from_fn(|| server.place()).collect();
        assert_eq!(places.len(), OWED_SILENT_MAX);
        server.speaks();
        assert!(!server.is_silent());
        let more: Vec<_> = std::iter::from_fn(|| server.place()).collect();
        assert_eq!(places.len() + more.len(), OWED_MAX);
    }
}
