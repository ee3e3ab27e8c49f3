//! Name servers of the host (resolv.conf(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::SystemTime;

/// Servers that are asked, as many as the C library takes.
pub const SERVERS_MAX: usize = 3;

/// Servers asked where the host has none but its own loopback: Google's, as Docker has it.
const FALLBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// The servers a file names, read again whenever it changes.
#[derive(Debug)]
pub struct Servers {
    path: PathBuf,
    read: Option<SystemTime>,
    servers: Vec<IpAddr>,
}

impl Servers {
    /// Servers that the file at `path` names; it is not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: None, servers: FALLBACK.to_vec() }
    }

    /// These servers, whatever any file says.
    #[cfg(test)]
    pub(crate) fn fixed(servers: Vec<IpAddr>) -> Self {
        Self {
            path: PathBuf::from("/"),
            read: fs::metadata("/").and_then(|root| root.modified()).ok(),
            servers,
        }
    }

    /// The servers there are now.
    pub fn now(&mut self) -> Vec<IpAddr> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified != self.read {
            self.servers = parse(&fs::read_to_string(&self.path).unwrap_or_default());
            self.read = modified;
        }
        self.servers.clone()
    }
}

/// The servers that the text of a `resolv.conf` names.
fn parse(text: &str) -> Vec<IpAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    });
    let servers: Vec<IpAddr> =
        words.filter(|server: &IpAddr| !server.is_loopback()).take(SERVERS_MAX).collect();
    if servers.is_empty() { FALLBACK.to_vec() } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_docker_reads_them() {
        let cases: [(&str, &[&str]); 6] = [
            ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", &["192.0.2.1", "2001:db8::1"]),
            ("# nameserver 192.0.2.1\n  nameserver\t192.0.2.2 \nsearch x", &["192.0.2.2"]),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                &["1.1.1.1", "1.1.1.2", "1.1.1.3"],
            ),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1", &["192.0.2.1"]),
            ("nameserver 127.0.0.53\nnameserver ::1", &["8.8.8.8", "8.8.4.4"]),
            ("nameserver nonsense\nnameserver", &["8.8.8.8", "8.8.4.4"]),
        ];
        for (text, expected) in cases {
            let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
            assert_eq!(servers, expected, "{text:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("vswitch-servers-{}", std::process::id()));
        let mut servers = Servers::new(path.clone());
        assert_eq!(servers.now(), FALLBACK);
        for (seconds, server) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
            fs::write(&path, format!("nameserver {server}\n")).expect("write");
            let file = fs::File::options().write(true).open(&path).expect("open");
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .expect("touch");
            assert_eq!(servers.now(), [server.parse::<IpAddr>().expect("an address")]);
        }
        fs::remove_file(&path).expect("clean up");
        assert_eq!(servers.now(), FALLBACK);
    }
}
