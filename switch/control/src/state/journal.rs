//! The file of the state: a line for each commit, and room for the next ones.
//!
//! # Theory of operation
//! `STATE-DIR/journal` is a text file. Its first line says what it is. Every other line is one commit: a
//! checksum, a space, and as JSON the records that changed, whole, or `null` for those that are gone. The
//! checksum is the CRC-32 of this commit and all before it, so no line can be missing. To commit is to append
//! a line and to wait until it is on the disk; to open is to read them all, and the last word on a record
//! holds. When the journal has grown to several times what it says, it is written anew beside itself and
//! renamed over itself.
//!
//! Room for [`ROOM_MIN`] bytes more is reserved behind the end (`fallocate`, which leaves the length as it
//! is), so that a full disk is known before anything is changed; where a file system cannot do that, there
//! must be as much free.
//!
//! A last line without its end was being written when its writer died, before anybody was told that it is
//! committed: it is cut off. So is a last line of which a whole sector is zero, since the kernel may bring
//! the end of a line to the disk before its middle. Everything else that is not as it was written is
//! refused, and the file is left as it is.
//!
//! The directory is locked while a daemon has it, so there is never a second one.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::statvfs::fstatvfs;

use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::state::State;
use crate::state::change::Change;

/// The journal's name in the state directory.
const JOURNAL: &str = "journal";
/// The journal's name while it is written anew.
const JOURNAL_NEW: &str = "journal.new";
/// The beginning of the first line; the format's number follows.
const HEADER: &str = "vswitch journal, format ";
/// The format written, and the latest that is read.
const FORMAT: u32 = 1;
/// A journal shorter than this, in bytes, is not written anew while there is room.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Times longer than its content that a journal may get.
const REWRITE_RATIO: u64 = 4;
/// Bytes that must be reserved for a change to be begun: more than any but the largest changes take.
pub(super) const ROOM_MIN: u64 = 64 << 10;
/// Bytes that are reserved at once.
const ROOM: u64 = 2 * ROOM_MIN;
/// Bytes that a disk writes as a whole, at least.
const SECTOR: usize = 512;

/// The system calls that a disk may fail, or stall.
pub(super) trait Disk: Debug + Send {
    /// Appends bytes to a file.
    ///
    /// # Errors
    /// The kernel's.
    fn append(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Waits until a file is on the disk.
    ///
    /// # Errors
    /// The kernel's.
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Reserves room for a part of a file that is not written yet.
    ///
    /// # Errors
    /// The kernel's, when there is none.
    fn reserve(&mut self, file: &File, from: u64, bytes: u64) -> io::Result<()> {
        let [offset, length] = [from, bytes].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                let system = fstatvfs(file)?;
                let free = system.blocks_available().saturating_mul(system.fragment_size());
                if free < bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }
            outcome => Ok(outcome?),
        }
    }
}

/// The disk that there is.
#[derive(Debug)]
pub(super) struct Real;

impl Disk for Real {}

/// The journal of a state directory, which is ours as long as the value lives.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    directory: Flock<File>,
    disk: Box<dyn Disk>,
    /// The file, open to be written; `None` when it is not, or nobody knows what its end is like.
    file: Option<File>,
    /// Whether the file on the disk is as it was written, up to `bytes`.
    is_whole: bool,
    /// Its length up to the end of its last whole line.
    bytes: u64,
    /// The end of what is reserved.
    reserved: u64,
    /// The checksum of the last line.
    sum: u32,
    /// The length at which it is written anew.
    rewrite_at: u64,
    /// Its length when it was last written anew.
    bytes_anew: u64,
}

impl Journal {
    /// Opens a state directory to read, and makes it if it is not there. Gives back what was committed to it.
    ///
    /// # Errors
    /// One line that names the directory or file: when another daemon has it, when the journal is damaged,
    /// of a newer format, or not ours. The journal is left as it is then.
    pub(super) fn open(directory: &Path, disk: Box<dyn Disk>) -> Result<(Self, State)> {
        let locked = lock(directory)?;
        let path = directory.join(JOURNAL);
        let (content, is_whole) = match fs::read(&path) {
            Ok(text) => (read(&path, &text)?, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Content::default(), false),
            Err(error) => return Err(failed(&format!("read {}", path.display()), &error)),
        };
        let Content { state, bytes, sum } = content;
        let journal = Self {
            path,
            directory: locked,
            disk,
            file: None,
            is_whole,
            bytes,
            reserved: 0,
            sum,
            rewrite_at: REWRITE_BYTES_MIN,
            bytes_anew: 0,
        };
        Ok((journal, state))
    }

    /// The directory that it is in.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Makes sure that there is room for changes to come, or says why there is none. `whole` is everything
    /// that was committed.
    pub(super) fn prepare(&mut self, whole: &dyn Fn() -> Change) -> io::Result<()> {
        if self.file.is_none() {
            if !self.is_whole {
                return self.write_anew(&whole());
            }
            let file = OpenOptions::new().append(true).open(&self.path)?;
            if file.metadata()?.len() != self.bytes {
                // The end that somebody was writing when he died.
                file.set_len(self.bytes)?;
            }
            self.file = Some(file);
        }
        if self.bytes > self.rewrite_at && self.write_anew(&whole()).is_err() {
            // It is the same, written short or at length.
            self.rewrite_at = self.bytes + REWRITE_BYTES_MIN;
        }
        if self.room() >= ROOM_MIN {
            return Ok(());
        }
        match self.reserve(ROOM) {
            Err(_) if self.bytes > self.bytes_anew.max(ROOM_MIN) * 2 => self.write_anew(&whole()),
            outcome => outcome,
        }
    }

    /// Bytes that are reserved and not written.
    fn room(&self) -> u64 {
        self.reserved.saturating_sub(self.bytes)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.disk.reserve(file, self.bytes, bytes)?;
        self.reserved = self.bytes + bytes;
        Ok(())
    }

    /// Writes a commit down, and waits until it is on the disk.
    ///
    /// # Errors
    /// When the disk does not take it; then it is not committed, and the journal is written anew before the
    /// next is.
    pub(super) fn append(&mut self, change: &Change, whole: &dyn Fn() -> Change) -> io::Result<()> {
        if self.file.is_none() {
            self.prepare(whole)?;
        }
        let (line, sum) = line(self.sum, change)?;
        let bytes = line.len() as u64;
        if bytes > self.room() {
            self.reserve(bytes)?;
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotConnected.into()) };
        let written = self.disk.append(file, &line).and_then(|()| self.disk.sync(file));
        if let Err(error) = written {
            // A sync that failed may say nothing the next time.
            (self.file, self.is_whole) = (None, false);
            return Err(error);
        }
        (self.bytes, self.sum) = (self.bytes + bytes, sum);
        Ok(())
    }

    /// Replaces the journal by one that says everything at once.
    fn write_anew(&mut self, whole: &Change) -> io::Result<()> {
        let mut text = format!("{HEADER}{FORMAT}\n").into_bytes();
        let (line, sum) = line(0, whole)?;
        text.extend(line);
        let bytes = text.len() as u64;
        let new = self.path.with_file_name(JOURNAL_NEW);
        let written =
            self.write_beside(&new, &text).and_then(|file| fs::rename(&new, &self.path).map(|()| file));
        let file = written.inspect_err(|_| {
            // It takes room that is needed.
            let _ = fs::remove_file(&new);
        })?;
        // The old one is gone, whatever comes now.
        (self.file, self.is_whole) = (None, false);
        self.directory.sync_all()?;
        (self.file, self.is_whole, self.bytes, self.sum) = (Some(file), true, bytes, sum);
        (self.reserved, self.bytes_anew) = (bytes + ROOM, bytes);
        self.rewrite_at = (bytes * REWRITE_RATIO).max(REWRITE_BYTES_MIN);
        Ok(())
    }

    fn write_beside(&mut self, new: &Path, text: &[u8]) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(new)?;
        file.set_len(0)?;
        self.disk.reserve(&file, 0, text.len() as u64 + ROOM)?;
        self.disk.append(&file, text)?;
        self.disk.sync(&file)?;
        Ok(file)
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

/// The line of a commit behind one whose checksum is `before`, and its own checksum.
fn line(before: u32, change: &Change) -> io::Result<(Vec<u8>, u32)> {
    let json = serde_json::to_vec(change)?;
    let sum = crc32(before, &json);
    let mut line = format!("{sum:08x} ").into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok((line, sum))
}

/// The content of a journal.
#[derive(Default)]
struct Content {
    state: State,
    /// Its length up to the end of its last whole line.
    bytes: u64,
    sum: u32,
}

fn read(path: &Path, text: &[u8]) -> Result<Content> {
    let shown = path.display();
    let whole = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
    let refuse = |message: String| Err(Error::new(Code::Internal, message));
    let mut lines = whole.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    let header = lines.next().and_then(|(_, line)| std::str::from_utf8(&line[..line.len() - 1]).ok());
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
    let (mut sum, mut state) = (0, State::default());
    let mut bytes = header.map_or(0, |line| line.len() + 1);
    while let Some((number, line)) = lines.next() {
        let number = number + 1;
        let before = sum;
        let Some(json) = checked(&mut sum, &line[..line.len() - 1]) else {
            if lines.peek().is_none() && has_hole(line, bytes) {
                sum = before;
                break;
            }
            return refuse(format!(
                "{shown} is damaged at line {number}: put a copy of it in its place, or move it away to start \
                 with nothing"
            ));
        };
        let change: Change = serde_json::from_slice(json).map_err(|error| {
            let message = format!(
                "{shown} cannot be understood at line {number}: {error}: run the vswitch that wrote it, or \
                 choose another directory with --state-dir"
            );
            Error::new(Code::Internal, message)
        })?;
        change.apply(&mut state);
        bytes += line.len();
    }
    Ok(Content { state: state.again(), bytes: bytes as u64, sum })
}

/// Whether a line that begins at this place in its file has a sector, or its part of one, that was never
/// written: no byte of a line is zero.
fn has_hole(line: &[u8], at: usize) -> bool {
    let first = (SECTOR - at % SECTOR).min(line.len());
    let (head, rest) = line.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR)).any(|sector| sector.iter().all(|byte| *byte == 0))
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
#[path = "journal/tests.rs"]
mod tests;
