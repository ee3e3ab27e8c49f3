//! Journals that were cut, torn and damaged, and those that are whole.

use super::*;

/// A state directory that is gone when the test is.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("vswitch-journal-{test}-{}", std::process::id())))
    }

    fn path(&self) -> PathBuf {
        self.0.join(JOURNAL)
    }

    fn open(&self) -> Result<(Journal, State)> {
        Journal::open(&self.0, Box::new(Real))
    }

    /// Commits some changes and gives back the journal's text.
    fn filled(&self) -> String {
        let (mut journal, mut state) = self.open().expect("open");
        for (name, inode) in [("a", Some(1)), ("b", Some(2)), ("c", Some(3)), ("b", None)] {
            commit(&mut journal, &mut state, name, inode);
        }
        fs::read_to_string(self.path()).expect("text")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Commits that there is a namespace, or none any more.
fn commit(journal: &mut Journal, state: &mut State, name: &str, inode: Option<u64>) {
    let before = state.again();
    match inode {
        Some(inode) => state.namespaces.insert(name.to_owned(), (4, inode).into()),
        None => drop(state.namespaces.remove(name)),
    }
    let change = Change::take(state, &mut Default::default(), &mut None);
    journal.append(&change, &|| Change::whole(&before)).expect("commit");
    journal.prepare(&|| Change::whole(state)).expect("room");
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
        fs::write(directory.path(), &text[..cut]).expect("write");
        let (mut journal, mut state) = directory.open().expect("torn");
        assert_eq!(names(&state), ["a", "b", "c"], "cut at {cut}");
        commit(&mut journal, &mut state, "d", Some(6));
        drop(journal);
        assert_eq!(names(&directory.open().expect("open").1), ["a", "b", "c", "d"], "cut at {cut}");
    }
}

#[test]
fn a_last_line_of_which_sectors_were_never_written_is_torn() {
    let directory = Directory::new("hole");
    directory.filled();
    let (mut journal, mut state) = directory.open().expect("open");
    commit(&mut journal, &mut state, &"long".repeat(1000), Some(9));
    commit(&mut journal, &mut state, &"last".repeat(1000), Some(9));
    drop(journal);
    let text = fs::read(directory.path()).expect("text");
    let lines: Vec<usize> =
        text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let (before, last) = (lines[lines.len() - 3], lines[lines.len() - 2]);
    let with_hole = |from: usize, to: usize| {
        let mut text = text.clone();
        text[from..to].fill(0);
        fs::write(directory.path(), &text).expect("write");
        directory.open().map(|(_, state)| state.namespaces.len())
    };
    let sector = last.next_multiple_of(SECTOR);
    for hole in [last..sector, sector..sector + SECTOR, sector..text.len()] {
        assert_eq!(with_hole(hole.start, hole.end), Ok(3), "{hole:?}");
    }
    // Less than a sector is no disk's doing, nor is a hole before what was committed later.
    let middle = before.next_multiple_of(SECTOR);
    for hole in [sector + 1..sector + SECTOR - 1, middle..middle + SECTOR] {
        let error = with_hole(hole.start, hole.end).expect_err("damaged");
        assert!(error.message.contains("is damaged at line"), "{error}");
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
    let mut damaged: Vec<Vec<u8>> = vec![Vec::new(), b"\n".to_vec(), b"no journal".to_vec(), vec![0; 5000]];
    damaged.extend((0..5).map(without_line));
    damaged.extend((0..text.len() - 1).map(|at| {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        bytes
    }));
    for bytes in damaged {
        fs::write(directory.path(), &bytes).expect("write");
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let error = directory.open().map(drop).expect_err(&shown);
        assert!(error.message.contains(&directory.path().display().to_string()), "{error}");
        assert!(!error.message.contains('\n'), "{error}");
        assert_eq!(fs::read(directory.path()).expect("still there"), bytes);
    }
}

#[test]
fn a_newer_format_is_refused() {
    let directory = Directory::new("newer");
    let newer = directory.filled().replacen("format 1", "format 2", 1);
    fs::write(directory.path(), &newer).expect("write");
    let error = directory.open().map(drop).expect_err("newer");
    assert!(error.message.contains("is of format 2, and this vswitch reads up to 1"), "{error}");
    assert_eq!(fs::read_to_string(directory.path()).expect("still there"), newer);
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
    let (mut journal, mut state) = directory.open().expect("open");
    commit(&mut journal, &mut state, "a", Some(1));
    journal.rewrite_at = 1;
    commit(&mut journal, &mut state, "b", Some(2));
    assert_eq!(fs::read_to_string(directory.path()).expect("text").lines().count(), 2);
    commit(&mut journal, &mut state, "a", None);
    drop(journal);
    assert_eq!(names(&directory.open().expect("open").1), ["b"]);
}

#[test]
fn checksums_are_those_of_the_standard() {
    assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
}
