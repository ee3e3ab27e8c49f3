//! The journal: what was committed survives any end of any process, and a power cut.
//!
//! # Theory of operation
//! `STATE-DIR/journal` is a text file. Its first line says what it is. Every other line is one commit: a
//! checksum, a space, and as JSON the records that changed, whole, or `null` for those that are gone. The
//! checksum is the CRC-32 of this commit and all before it, so no line can be missing. To
//! commit is to append a line and to wait until it is on the disk; to open is to read them all, and the
//! last word on a record holds. When the journal has grown to several times what it says, it is written
//! anew beside itself and renamed over itself.
//!
//! A last line without its end was being written when its writer died, before anybody was told that it is
//! committed: it is cut off. Everything else that is not as it was written is refused, and the file is
//! left as it is.
//!
//! The directory is locked while a daemon has it, so there is never a second one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use vswitch_cluster::record::{HostId, Record};

use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::state::rules::Rules;
use crate::state::{Identity, Network, Sandbox, State};

/// The journal's name in the state directory.
const JOURNAL: &str = "journal";
/// The journal's name while it is written anew.
const JOURNAL_NEW: &str = "journal.new";
/// The beginning of the first line; the format's number follows.
const HEADER: &str = "vswitch journal, format ";
/// The format written, and the latest that is read.
const FORMAT: u32 = 1;
/// A journal shorter than this, in bytes, is never written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Times longer than its content that a journal may get.
const REWRITE_RATIO: u64 = 4;

/// One commit, as it is written.
#[derive(Serialize)]
struct Change<'a> {
    networks: BTreeMap<&'a str, Option<&'a Network>>,
    sandboxes: BTreeMap<&'a str, Option<&'a Sandbox>>,
    namespaces: BTreeMap<&'a str, Option<&'a Identity>>,
    /// The whole table, if one of the rules changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<&'a Rules>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    said: BTreeMap<&'a str, Option<&'a Record>>,
    /// This host's identifier, once it is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostId>,
}

impl Change<'_> {
    fn is_empty(&self) -> bool {
        let records = self.networks.len() + self.sandboxes.len() + self.namespaces.len() + self.said.len();
        records == 0 && self.rules.is_none() && self.host.is_none()
    }
}

/// One commit, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRead {
    networks: BTreeMap<String, Option<Network>>,
    sandboxes: BTreeMap<String, Option<Sandbox>>,
    namespaces: BTreeMap<String, Option<Identity>>,
    rules: Option<Rules>,
    #[serde(default)]
    said: BTreeMap<String, Option<Record>>,
    host: Option<HostId>,
}

/// The journal of a state directory, which is ours as long as the value lives.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    journal: File,
    bytes: u64,
    /// The checksum of the last line.
    sum: u32,
    /// The length of the journal when it was last written anew, in bytes.
    bytes_anew: u64,
    /// The rules as they were committed.
    rules: Rules,
    /// This host's identifier as it was committed.
    host: Option<HostId>,
    /// Whether an append failed, after which nobody knows what the last line is like.
    broken: bool,
    directory: Flock<File>,
}

impl Store {
    /// Opens a state directory, and makes it if it is not there. Gives back what was committed to it.
    ///
    /// # Errors
    /// One line that names the directory or file: when another daemon has it, when the journal is damaged,
    /// of a newer format, or not ours. The journal is left as it is then.
    pub fn open(directory: &Path) -> Result<(Self, State)> {
        let locked = lock(directory)?;
        let path = directory.join(JOURNAL);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = write_anew(&locked, &path, &State::default()).and_then(|_| fs::read(&path));
                made.map_err(|error| failed(&format!("make {}", path.display()), &error))?
            }
            Err(error) => return Err(failed(&format!("read {}", path.display()), &error)),
        };
        let Content { state, bytes, sum } = read(&path, &text)?;
        let opened = OpenOptions::new().append(true).open(&path).and_then(|journal| {
            journal.set_len(bytes)?;
            Ok(journal)
        });
        let journal = opened.map_err(|error| failed(&format!("open {}", path.display()), &error))?;
        let (rules, host) = (state.rules.clone(), state.host);
        let store =
            Self { path, journal, bytes, sum, bytes_anew: 0, rules, host, broken: false, directory: locked };
        Ok((store, state))
    }

    /// Writes down what changed since the last commit, if anything did.
    ///
    /// # Errors
    /// When the disk does not take it; then the next commit tries again.
    pub fn commit(&mut self, state: &mut State) -> Result<()> {
        let change = Change {
            networks: state.networks.changes(),
            sandboxes: state.sandboxes.changes(),
            namespaces: state.namespaces.changes(),
            rules: (state.rules != self.rules).then_some(&state.rules),
            said: state.said.changes(),
            host: state.host.filter(|_| state.host != self.host),
        };
        if change.is_empty() {
            return Ok(());
        }
        let grown = self.bytes > (self.bytes_anew * REWRITE_RATIO).max(REWRITE_BYTES_MIN);
        let written = if self.broken || grown { self.rewrite(state) } else { self.append(&change) };
        written.map_err(|error| {
            self.broken = true;
            let message = format!(
                "cannot write {}: {error}: what was asked is done but would not survive a restart; make \
                 room and change anything to try again",
                self.path.display()
            );
            Error::new(Code::Internal, message)
        })?;
        state.networks.settle();
        state.sandboxes.settle();
        state.namespaces.settle();
        state.said.settle();
        self.host = state.host;
        self.rules.clone_from(&state.rules);
        Ok(())
    }

    fn append(&mut self, change: &Change<'_>) -> io::Result<()> {
        let (line, sum) = line(self.sum, change)?;
        self.journal.write_all(&line)?;
        self.journal.sync_data()?;
        self.bytes += line.len() as u64;
        self.sum = sum;
        Ok(())
    }

    fn rewrite(&mut self, state: &State) -> io::Result<()> {
        (self.journal, self.bytes, self.sum) = write_anew(&self.directory, &self.path, state)?;
        self.bytes_anew = self.bytes;
        self.broken = false;
        Ok(())
    }
}

/// Makes a state directory where there is none, and takes it.
fn lock(directory: &Path) -> Result<Flock<File>> {
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| File::open(directory))
        .map_err(|error| failed(&format!("use {shown} as the state directory"), &error))
        .and_then(|file| {
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                if errno == nix::Error::EWOULDBLOCK {
                    let message = format!(
                        "a daemon is running on state directory {shown}: stop it, or choose another directory \
                         with --state-dir"
                    );
                    return Error::new(Code::NameInUse, message);
                }
                failed(&format!("lock {shown}"), &errno.into())
            })
        })
}

/// Replaces the journal by one that says everything at once; gives back the file, at its end, its length and
/// its checksum.
fn write_anew(directory: &File, path: &Path, state: &State) -> io::Result<(File, u64, u32)> {
    fn whole<T>(records: &BTreeMap<String, T>) -> BTreeMap<&str, Option<&T>> {
        records.iter().map(|(name, record)| (name.as_str(), Some(record))).collect()
    }
    let content = Change {
        networks: whole(&state.networks),
        sandboxes: whole(&state.sandboxes),
        namespaces: whole(&state.namespaces),
        rules: Some(&state.rules),
        said: whole(&state.said),
        host: state.host,
    };
    let mut text = format!("{HEADER}{FORMAT}\n").into_bytes();
    let (line, sum) = line(0, &content)?;
    text.extend(line);
    let new = path.with_file_name(JOURNAL_NEW);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    directory.sync_all()?;
    Ok((file, text.len() as u64, sum))
}

/// The line of a commit behind one whose checksum is `before`, and its own checksum.
fn line(before: u32, change: &Change<'_>) -> io::Result<(Vec<u8>, u32)> {
    let json = serde_json::to_vec(change)?;
    let sum = crc32(before, &json);
    let mut line = format!("{sum:08x} ").into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok((line, sum))
}

/// The content of a journal.
struct Content {
    state: State,
    /// Its length up to the end of its last whole line.
    bytes: u64,
    sum: u32,
}

fn read(path: &Path, text: &[u8]) -> Result<Content> {
    let shown = path.display();
    let whole = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
    let mut lines = whole.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]);
    let refuse = |message: String| Err(Error::new(Code::Internal, message));
    let header = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    match header.and_then(|line| line.strip_prefix(HEADER)).and_then(|format| format.parse::<u32>().ok()) {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => {
            return refuse(format!(
                "{shown} is of format {format}, and this vswitch reads up to {FORMAT}: run the newer vswitch \
                 that wrote it, or choose another directory with --state-dir"
            ));
        }
        Some(_) | None => {
            return refuse(format!(
                "{shown} is damaged or no journal of vswitch: put a copy of it in its place, or move it away \
                 to start with nothing"
            ));
        }
    }
    let mut sum = 0;
    let (mut networks, mut sandboxes, mut namespaces) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut rules, mut said, mut host) = (Rules::default(), BTreeMap::new(), None);
    for (number, line) in lines.enumerate() {
        let number = number + 2;
        let Some(json) = checked(&mut sum, line) else {
            return refuse(format!(
                "{shown} is damaged at line {number}: put a copy of it in its place, or move it away to start \
                 with nothing"
            ));
        };
        let change: ChangeRead = serde_json::from_slice(json).map_err(|error| {
            let message = format!(
                "{shown} cannot be understood at line {number}: {error}: run the vswitch that wrote it, or \
                 choose another directory with --state-dir"
            );
            Error::new(Code::Internal, message)
        })?;
        apply(&mut networks, change.networks);
        apply(&mut sandboxes, change.sandboxes);
        apply(&mut namespaces, change.namespaces);
        rules = change.rules.unwrap_or(rules);
        apply(&mut said, change.said);
        host = change.host.or(host);
    }
    Ok(Content {
        state: State::restore(networks, sandboxes, namespaces, rules, said, host),
        bytes: whole.len() as u64,
        sum,
    })
}

fn apply<T>(records: &mut BTreeMap<String, T>, changes: BTreeMap<String, Option<T>>) {
    for (name, change) in changes {
        match change {
            Some(record) => records.insert(name, record),
            None => records.remove(&name),
        };
    }
}

/// The JSON of a line, if it is what was written behind a line whose checksum is `sum`, which becomes this
/// one's.
fn checked<'a>(sum: &mut u32, line: &'a [u8]) -> Option<&'a [u8]> {
    let (written, json) = (line.get(..8)?, line.get(8..)?.strip_prefix(b" ")?);
    *sum = crc32(*sum, json);
    (written == format!("{sum:08x}").as_bytes()).then_some(json)
}

/// The checksum of Ethernet and of `cksum -a crc32b` (IEEE 802.3), bit by bit: commits are short and rare.
/// `before` is that of the bytes before these, zero if there are none.
fn crc32(before: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state directory that is gone when the test is.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            Self(std::env::temp_dir().join(format!("vswitch-store-{test}-{}", std::process::id())))
        }

        fn journal(&self) -> PathBuf {
            self.0.join(JOURNAL)
        }

        fn open(&self) -> Result<(Store, State)> {
            Store::open(&self.0)
        }

        /// Commits some changes and gives back the journal's text.
        fn filled(&self) -> String {
            let (mut store, mut state) = self.open().expect("open");
            for (name, inode) in [("a", 1), ("b", 2), ("c", 3)] {
                state.namespaces.insert(name.to_owned(), (4, inode).into());
                store.commit(&mut state).expect("commit");
            }
            state.namespaces.remove("b");
            store.commit(&mut state).expect("commit");
            store.commit(&mut state).expect("nothing to commit");
            fs::read_to_string(self.journal()).expect("text")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn names(state: &State) -> Vec<&str> {
        state.namespaces.keys().map(String::as_str).collect()
    }

    #[test]
    fn what_was_committed_is_there_again_and_what_was_torn_is_not() {
        let directory = Directory::new("again");
        let text = directory.filled();
        assert_eq!(text.lines().count(), 6, "{text}");
        assert_eq!(names(&directory.open().expect("open").1), ["a", "c"]);
        let last = text.trim_end().rfind('\n').expect("lines") + 1;
        for cut in last..text.len() {
            fs::write(directory.journal(), &text[..cut]).expect("write");
            let (mut store, mut state) = directory.open().expect("torn");
            assert_eq!(names(&state), ["a", "b", "c"], "cut at {cut}");
            state.namespaces.insert("d".to_owned(), (5, 6).into());
            store.commit(&mut state).expect("commit");
            drop(store);
            assert_eq!(names(&directory.open().expect("open").1), ["a", "b", "c", "d"], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_damaged_is_refused_and_left_as_it_is() {
        let directory = Directory::new("damaged");
        let text = directory.filled();
        let without_line = |number: usize| {
            let lines = text.split_inclusive('\n').enumerate().filter(|(index, _)| *index != number);
            lines.map(|(_, line)| line).collect::<String>().into_bytes()
        };
        let mut damaged: Vec<Vec<u8>> =
            vec![Vec::new(), b"\n".to_vec(), b"no journal".to_vec(), vec![0; 5000]];
        damaged.extend((0..5).map(without_line));
        damaged.extend((0..text.len() - 1).map(|at| {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            bytes
        }));
        for bytes in damaged {
            fs::write(directory.journal(), &bytes).expect("write");
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let error = directory.open().map(drop).expect_err(&shown);
            assert!(error.message.contains(&directory.journal().display().to_string()), "{error}");
            assert!(!error.message.contains('\n'), "{error}");
            assert_eq!(fs::read(directory.journal()).expect("still there"), bytes);
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = Directory::new("newer");
        let newer = directory.filled().replacen("format 1", "format 2", 1);
        fs::write(directory.journal(), &newer).expect("write");
        let error = directory.open().map(drop).expect_err("newer");
        assert!(error.message.contains("is of format 2, and this vswitch reads up to 1"), "{error}");
        assert_eq!(fs::read_to_string(directory.journal()).expect("still there"), newer);
    }

    #[test]
    fn a_directory_has_one_daemon() {
        let directory = Directory::new("one");
        let first = directory.open().expect("first");
        assert_eq!(directory.open().map(drop).expect_err("second").code, Code::NameInUse);
        drop(first);
        directory.open().expect("next");
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let directory = Directory::new("long");
        let (mut store, mut state) = directory.open().expect("open");
        state.namespaces.insert("a".to_owned(), (1, 1).into());
        store.commit(&mut state).expect("commit");
        store.bytes = REWRITE_BYTES_MIN + 1;
        state.namespaces.insert("b".to_owned(), (2, 2).into());
        store.commit(&mut state).expect("commit");
        assert_eq!(fs::read_to_string(directory.journal()).expect("text").lines().count(), 2);
        state.namespaces.remove("a");
        store.commit(&mut state).expect("commit");
        drop(store);
        assert_eq!(names(&directory.open().expect("open").1), ["b"]);
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
    }
}
