//! Disks that go wrong: small ones that are full, ones that may only be read, and ones that stall.
//!
//! Dropping one unmounts it, whoever has files open there, also when the test panics.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::namespace::must;

/// A file system of its own at a path.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// The file it is in, if it is not in memory.
    image: Option<PathBuf>,
    is_frozen: bool,
}

impl Disk {
    /// A file system in memory of so many bytes at `path`, with the files that are there.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn small(path: &Path, bytes: usize) -> Self {
        Self::over(path, |path| {
            let options = format!("size={bytes}");
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
                .expect("mount");
            None
        })
    }

    /// A file system of ext4 in the file `image`, at `path`, with the files that are there.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn ext4(path: &Path, image: &Path) -> Self {
        Self::over(path, |path| {
            File::create(image).and_then(|file| file.set_len(16 << 20)).expect("an image");
            must(Command::new("mkfs.ext4").arg("-q").arg(image));
            must(Command::new("mount").args(["-o", "loop"]).arg(image).arg(path));
            Some(image.to_owned())
        })
    }

    fn over(path: &Path, mount: impl FnOnce(&Path) -> Option<PathBuf>) -> Self {
        let files: Vec<(PathBuf, Vec<u8>)> =
            files(path).into_iter().map(|file| (file.clone(), fs::read(file).expect("a file"))).collect();
        let image = mount(path);
        files.into_iter().for_each(|(file, text)| fs::write(file, text).expect("write"));
        Self { path: path.to_owned(), image, is_frozen: false }
    }

    /// Leaves room for nobody.
    ///
    /// # Panics
    /// When there is still room after all.
    pub fn fill(&self) {
        let mut file = File::create(self.path.join("filler")).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
        fs::remove_file(self.path.join("filler")).expect("a file");
    }

    /// Lets nobody write any more, or everybody again.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_read_only(&self, is_read_only: bool) {
        let flags = if is_read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        // Of the mount only: files that are open for writing are no hindrance, as when a disk fails.
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(None::<&str>, &self.path, None::<&str>, remount, None::<&str>).expect("remount");
    }

    /// Has whoever writes wait, until [`thaw`](Self::thaw).
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn freeze(&mut self) {
        must(Command::new("fsfreeze").arg("--freeze").arg(&self.path));
        self.is_frozen = true;
    }

    /// Lets those go on who wait.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn thaw(&mut self) {
        must(Command::new("fsfreeze").arg("--unfreeze").arg(&self.path));
        self.is_frozen = false;
    }
}

/// The regular files in a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_frozen {
            drop(Command::new("fsfreeze").arg("--unfreeze").arg(&self.path).output());
        }
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        self.image.iter().for_each(|image| drop(fs::remove_file(image)));
    }
}
