//! Promises under disks that stall, are full, or fail.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;

/// A state directory that is gone when the test is.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("vswitch-store-{test}-{}", std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Everything that is the matter with a disk.
#[derive(Debug, Default)]
struct Ills {
    /// A lock that stalls syncs for as long as it is held.
    stall: Mutex<()>,
    syncs: AtomicUsize,
    /// The error that each call ends with.
    write: Mutex<Option<Errno>>,
    sync: Mutex<Option<Errno>>,
    room: Mutex<Option<Errno>>,
}

#[derive(Debug)]
struct Ill(Arc<Ills>);

fn ends(with: &Mutex<Option<Errno>>) -> io::Result<()> {
    with.lock().expect("a lock").map_or(Ok(()), |errno| Err(errno.into()))
}

impl Disk for Ill {
    fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        ends(&self.0.write)?;
        Real.append(file, bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        drop(self.0.stall.lock());
        self.0.syncs.fetch_add(1, Relaxed);
        ends(&self.0.sync)?;
        Real.sync(file)
    }

    fn reserve(&mut self, file: &File, from: u64, bytes: u64) -> io::Result<()> {
        ends(&self.0.room)?;
        Real.reserve(file, from, bytes)
    }
}

fn open(directory: &Directory) -> (Store, State, Arc<Ills>) {
    let ills = Arc::new(Ills::default());
    let (store, state) = Store::open_on(&directory.0, Box::new(Ill(ills.clone()))).expect("open");
    (store, state, ills)
}

fn insert(state: &mut State, name: &str) {
    state.namespaces.insert(name.to_owned(), (1, 2).into());
}

fn names(state: &State) -> Vec<String> {
    state.namespaces.keys().cloned().collect()
}

/// The names that the next daemon finds.
fn found(store: Store, directory: &Directory) -> Vec<String> {
    drop(store);
    names(&Store::open(&directory.0).expect("open").1)
}

fn set(ill: &Mutex<Option<Errno>>, errno: impl Into<Option<Errno>>) {
    *ill.lock().expect("a lock") = errno.into();
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the disk stalls while the gate is asked")]
async fn changes_under_a_stalled_sync_go_on_and_are_one_write() {
    let directory = Directory::new("stall");
    let (mut store, mut state, ills) = open(&directory);
    insert(&mut state, "first");
    store.promise(&mut state, None).kept().await.expect("kept");
    let syncs = ills.syncs.load(Relaxed);
    let stalled = ills.stall.lock().expect("a lock");
    let mut promises = Vec::new();
    for number in 0..100 {
        insert(&mut state, &format!("name{number:02}"));
        promises.push(store.promise(&mut state, None));
    }
    // It changes nothing, and is not told before what it saw is on the disk.
    promises.push(store.promise(&mut state, None));
    for promise in &mut promises {
        assert!(promise.0.try_recv().is_err(), "nothing is promised that is not on the disk");
    }
    assert_eq!(names(&store.gate().committed().1), ["first"], "nor shown");
    assert_eq!(store.gate().pass().await, Ok(()), "a stall is no reason to refuse");
    drop(stalled);
    for promise in promises {
        promise.kept().await.expect("kept");
    }
    assert!(ills.syncs.load(Relaxed) - syncs <= 2, "the first, and all others");
    assert_eq!(names(&store.gate().committed().1).len(), 101);
    assert_eq!(found(store, &directory).len(), 101);
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_undone_with_all_that_came_after() {
    let directory = Directory::new("undone");
    let (mut store, mut state, ills) = open(&directory);
    insert(&mut state, "kept");
    store.promise(&mut state, None).kept().await.expect("kept");
    for ill in [&ills.write, &ills.sync] {
        set(ill, Errno::EIO);
        let stalled = ills.stall.lock().expect("a lock");
        insert(&mut state, "broken");
        let broken = store.promise(&mut state, None);
        insert(&mut state, "behind");
        let behind = store.promise(&mut state, None);
        drop(stalled);
        for promise in [broken, behind] {
            let error = promise.kept().await.expect_err("not on the disk");
            assert_eq!(error.code, Code::StorageUnavailable);
            assert!(error.message.starts_with("the change is undone: "), "{error}");
            assert!(error.message.contains(&directory.0.display().to_string()), "{error}");
        }
        store.failed().await;
        insert(&mut state, "too late");
        store.promise(&mut state, None).kept().await.expect_err("nothing is taken before control went back");
        set(ill, None);
        state = store.go_back().0;
        assert_eq!(names(&state), ["kept"]);
        assert_eq!(store.gate().pass().await, Ok(()));
    }
    insert(&mut state, "next");
    store.promise(&mut state, None).kept().await.expect("kept");
    assert_eq!(found(store, &directory), ["kept", "next"]);
}

#[tokio::test]
async fn a_full_disk_is_known_before_anything_is_changed() {
    let directory = Directory::new("full");
    let (mut store, mut state, ills) = open(&directory);
    insert(&mut state, "before");
    store.promise(&mut state, None).kept().await.expect("kept");
    set(&ills.room, Errno::ENOSPC);
    // There is room for this one, and for others of its size.
    insert(&mut state, &"x".repeat(80 << 10));
    store.promise(&mut state, None).kept().await.expect("kept");
    let error = store.gate().pass().await.expect_err("no room for another");
    assert_eq!(error.code, Code::StorageUnavailable);
    assert!(
        error.message.starts_with("no change is made: ") && error.message.contains("make room"),
        "{error}"
    );
    // Findings made meanwhile are owed, and written when there is room.
    insert(&mut state, &"y".repeat(80 << 10));
    insert(&mut state, "owed");
    store.owe(&mut state, None);
    assert!(store.gate().pass().await.is_err());
    assert!(names(&store.gate().committed().1).contains(&"owed".to_owned()), "shown, as it has happened");
    assert!(!names(&store.shared.committed()).contains(&"owed".to_owned()));
    set(&ills.room, None);
    assert_eq!(store.gate().pass().await, Ok(()));
    assert!(names(&store.shared.committed()).contains(&"owed".to_owned()));
    assert_eq!(found(store, &directory).len(), 4);
}

#[tokio::test]
async fn a_change_larger_than_the_room_is_undone_and_others_go_on() {
    let directory = Directory::new("large");
    let (mut store, mut state, ills) = open(&directory);
    set(&ills.room, Errno::ENOSPC);
    insert(&mut state, &"x".repeat(200 << 10));
    store.promise(&mut state, None).kept().await.expect_err("no room");
    state = store.go_back().0;
    assert_eq!(names(&state).len(), 0);
    assert_eq!(store.gate().pass().await, Ok(()), "there is room for smaller ones");
    insert(&mut state, "small");
    store.promise(&mut state, None).kept().await.expect("kept");
    assert_eq!(found(store, &directory), ["small"]);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_from_the_start_is_read() {
    let directory = Directory::new("read");
    let (mut store, mut state, _) = open(&directory);
    insert(&mut state, "known");
    store.promise(&mut state, None).kept().await.expect("kept");
    drop(store);
    let ills = Arc::new(Ills::default());
    set(&ills.room, Errno::EROFS);
    let (store, state) = Store::open_on(&directory.0, Box::new(Ill(ills.clone()))).expect("open");
    assert_eq!(names(&state), ["known"]);
    assert!(store.trouble().is_some_and(|why| why.message.contains("remount,rw")), "{:?}", store.trouble());
    set(&ills.room, None);
    assert_eq!(store.gate().pass().await, Ok(()));
}
