//! Files that a sandbox of our making finds under `/etc`: `hosts`, `hostname` and `resolv.conf`.
//!
//! # Theory of operation
//!
//! Each such sandbox has a folder `sandboxes/NAME` beside the control socket; "vswitch exec" mounts its
//! files in place of the host's. The folder `sandboxes` is ours alone: it bears a [mark](MARK), and one
//! that is there without it, or is somebody else's to write in, is left as it is, and no daemon starts
//! beside it. Of what is in it only what we write is ever removed, by its name. They follow from the state
//! alone: after each job the files of every sandbox it touched are written anew, in place, so that what has
//! them mounted sees the change. A sandbox that somebody else made has files of their making.
//!
//! A file that cannot be written is no reason to undo what was done: it is logged, and written again with the
//! next change.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result, failed};
use crate::network::describe;
use crate::state::mode::Mode;
use crate::state::{Endpoint, Sandbox, State};

/// Lines of `hosts` for the loopback, as Docker writes them.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The usual name of the control socket, and that of the folder beside it.
const SOCKET: &str = "control.sock";
const FOLDER: &str = "sandboxes";
/// The mark of a folder that is the switch's.
const MARK: &str = ".vswitch";
const MARK_TEXT: &str = "The files of sandboxes that vswitch made. They are written anew when it starts.\n";
const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";
const RESOLV_CONF: &str = "resolv.conf";
/// All that a sandbox's folder has.
const OWN: [&str; 3] = [HOSTS, HOSTNAME, RESOLV_CONF];

/// The files of every sandbox.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    resolv_conf: PathBuf,
}

/// Paths of the files of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Its `/etc/hosts`.
    pub hosts: PathBuf,
    /// Its `/etc/hostname`.
    pub hostname: PathBuf,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Files {
    /// Files beside the control socket, in a folder that no other daemon has: `sandboxes`, or for a socket of
    /// another name than the usual one that name in front of it. `resolv_conf` is the host's, for what is
    /// inherited.
    ///
    /// # Errors
    /// When there is such a folder that is not ours.
    pub fn new(socket: &Path, resolv_conf: PathBuf) -> Result<Self> {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        let own = if name == SOCKET { FOLDER.to_owned() } else { format!("{name}.{FOLDER}") };
        let folder = socket.parent().unwrap_or(Path::new(".")).join(own);
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        take(&folder)?;
        Ok(Self { folder, resolv_conf })
    }

    /// Paths of the files of a sandbox; `None` if it has none of ours.
    pub fn paths(&self, name: &str, sandbox: &Sandbox) -> Option<Paths> {
        let owner = match &sandbox.mode {
            Mode::Own if sandbox.made => name,
            Mode::Shared(other) => other,
            Mode::Own | Mode::Host => return None,
        };
        let folder = self.folder.join(owner);
        let [hosts, hostname, resolv_conf] = [HOSTS, HOSTNAME, RESOLV_CONF].map(|file| folder.join(file));
        Some(Paths { hosts, hostname, resolv_conf })
    }

    /// Writes the files of every sandbox that was touched and removes those of the ones that went.
    pub fn follow(&self, state: &State) {
        for (name, sandbox) in state.sandboxes.changes() {
            self.refresh(state, name, sandbox);
        }
    }

    /// Writes the files of every sandbox, in place, and removes all others.
    pub fn restore(&self, state: &State) {
        for name in self.names() {
            if !state.sandboxes.contains_key(&name) {
                self.refresh(state, &name, None);
            }
        }
        for (name, sandbox) in state.sandboxes.iter() {
            self.refresh(state, name, Some(sandbox));
        }
    }

    /// Removes the files of every sandbox.
    pub fn remove(&self) {
        for folder in self.names().into_iter().map(|name| self.folder.join(name)) {
            log("remove", &folder, remove(&folder, &OWN));
        }
        log("remove", &self.folder, remove(&self.folder, &[MARK]));
    }

    /// The names of the folders in ours.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect()
    }

    fn refresh(&self, state: &State, name: &str, sandbox: Option<&Sandbox>) {
        let folder = self.folder.join(name);
        match sandbox.filter(|sandbox| sandbox.made && sandbox.mode == Mode::Own) {
            Some(sandbox) => log("write", &folder, self.write(&folder, state, name, sandbox)),
            None => log("remove", &folder, remove(&folder, &OWN)),
        }
    }

    fn write(&self, folder: &Path, state: &State, name: &str, sandbox: &Sandbox) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let hostname = sandbox.hostname.as_deref().unwrap_or(name);
        fs::write(folder.join(HOSTS), hosts(name, hostname, &sandbox.endpoints))?;
        fs::write(folder.join(HOSTNAME), format!("{hostname}\n"))?;
        let host = fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        fs::write(folder.join(RESOLV_CONF), resolv_conf(&name_servers(state, &sandbox.endpoints), &host))
    }
}

/// The gateways that a sandbox asks for names, those of the network with the highest priority first.
fn name_servers(state: &State, endpoints: &[Endpoint]) -> Vec<IpAddr> {
    let mut endpoints: Vec<&Endpoint> = endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.priority));
    let gateways = endpoints.into_iter().filter_map(|endpoint| {
        let network = state.networks.get(&endpoint.network)?;
        let gateway = describe::network(&endpoint.network, network).gateway?;
        let in_reach = |address: &IpAddr| endpoint.addresses.iter().any(|net| net.contains(address));
        Some(gateway.addresses.into_iter().filter(in_reach))
    });
    gateways.flatten().collect()
}

/// The text of a sandbox's `hosts`.
fn hosts(name: &str, hostname: &str, endpoints: &[Endpoint]) -> String {
    let mut text = LOCALHOST.to_owned();
    let names = if name == hostname { hostname.to_owned() } else { format!("{hostname} {name}") };
    for net in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{names}", net.addr());
    }
    text
}

/// The text of a sandbox's `resolv.conf`: its gateways, and what the host searches. A sandbox without a
/// network has the host's, as in Docker.
fn resolv_conf(servers: &[IpAddr], host: &str) -> String {
    if servers.is_empty() {
        return host.to_owned();
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search =
        host.lines().rfind(|line| matches!(line.split_whitespace().next(), Some("search" | "domain")));
    search.iter().for_each(|search| {
        let _ = writeln!(text, "{search}");
    });
    text + "options ndots:0\n"
}

/// Takes a folder that is ours or is not there.
fn take(folder: &Path) -> Result<()> {
    let action = format!("use {} for the files of sandboxes", folder.display());
    let parent = folder.parent().unwrap_or(Path::new("/"));
    let made = fs::create_dir_all(parent).and_then(|()| DirBuilder::new().mode(0o755).create(folder));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_ours(folder).map_err(|error| failed(&action, &error))? {
                let message = format!(
                    "{} is there and is not vswitch's: move it away, or choose another path with --socket",
                    folder.display()
                );
                return Err(Error::new(Code::NameInUse, message));
            }
        }
        made => made.map_err(|error| failed(&action, &error))?,
    }
    log("mark", folder, fs::write(folder.join(MARK), MARK_TEXT));
    Ok(())
}

/// Whether a folder is one that nobody else writes in, and has our mark, or nothing but what we write in one:
/// so did daemons leave it that knew no mark.
fn is_ours(folder: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    let nobody_else = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !found.is_dir() || !nobody_else {
        return Ok(false);
    }
    if fs::symlink_metadata(folder.join(MARK)).is_ok_and(|mark| mark.is_file()) {
        return Ok(true);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_own = |name: OsString| OWN.iter().any(|own| name == *own);
        let all_own = || {
            fs::read_dir(entry.path())
                .map(|mut all| all.all(|one| one.is_ok_and(|one| is_own(one.file_name()))))
        };
        if !entry.file_type()?.is_dir() || !all_own()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a folder with these files. One that has others stays, with them.
fn remove(folder: &Path, files: &[&str]) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    files.iter().try_for_each(|file| gone(fs::remove_file(folder.join(file))))?;
    gone(fs::remove_dir(folder))
}

fn log(what: &str, folder: &Path, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("cannot {what} {}: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_ours_is_left_as_it_is() {
        let parent = std::env::temp_dir().join(format!("vswitch-files-{}", std::process::id()));
        let folder = parent.join(FOLDER);
        let new = || Files::new(&parent.join(SOCKET), "/nonexistent".into());
        // None there; ours; and one of a daemon that knew no mark.
        drop(new().expect("made"));
        drop(new().expect("ours"));
        fs::remove_file(folder.join(MARK)).expect("a mark");
        fs::create_dir(folder.join("web")).expect("a folder");
        fs::write(folder.join("web").join(HOSTS), "").expect("a file");
        let files = new().expect("of the time before");
        files.restore(&State::default());
        assert!(!folder.join("web").exists());
        files.remove();
        assert!(!folder.exists());

        let refused = |shown: &str| {
            let error = new().map(drop).expect_err(shown);
            assert!(error.message.contains("is not vswitch's") && !error.message.contains('\n'), "{error}");
        };
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("thesis"), "text").expect("a file");
        refused("a file in it");
        fs::remove_file(folder.join("thesis")).expect("a file");
        fs::create_dir(folder.join("web")).expect("a folder");
        fs::write(folder.join("web/thesis"), "text").expect("a file");
        refused("a folder with other files");
        assert_eq!(fs::read_to_string(folder.join("web/thesis")).expect("still there"), "text");

        // Files that somebody puts into ours stay, too.
        fs::write(folder.join(MARK), "").expect("a mark");
        let files = new().expect("ours");
        files.restore(&State::default());
        files.remove();
        assert_eq!(fs::read_to_string(folder.join("web/thesis")).expect("still there"), "text");
        fs::remove_dir_all(&folder).expect("clean up");
        std::os::unix::fs::symlink("/etc", &folder).expect("a link");
        refused("a link");
        fs::remove_dir_all(&parent).expect("clean up");
    }

    #[test]
    fn a_sandbox_asks_its_gateways() {
        let host = "nameserver 192.0.2.1\ndomain old\nsearch example.com lan\noptions rotate\n";
        let servers = ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("an address"));
        let expected = "nameserver 10.0.0.1\nnameserver fd00::1\nsearch example.com lan\noptions ndots:0\n";
        assert_eq!(resolv_conf(&servers, host), expected);
        assert_eq!(resolv_conf(&servers[..1], ""), "nameserver 10.0.0.1\noptions ndots:0\n");
        assert_eq!(resolv_conf(&[], host), host);
    }

    #[test]
    fn a_sandbox_knows_itself() {
        assert_eq!(hosts("web", "web", &[]), LOCALHOST);
        assert!(LOCALHOST.lines().all(|line| line.split_once('\t').is_some()), "{LOCALHOST}");
    }
}
