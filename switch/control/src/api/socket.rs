//! The control socket: one daemon to a path, and only for those who may.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::stat::{Mode, umask};

use crate::error::failed;
use crate::error::{Code, Error, Result};

/// Read and write for the owner and the group: what it takes to connect.
const KEPT_OUT: Mode = Mode::from_bits_truncate(0o117);

/// Listens at `path`, for its owner and group only. A socket left over from a daemon that died is
/// replaced.
///
/// # Errors
/// When a daemon listens there, or something else is there.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| failed(&format!("make {}", dir.display()), &error))?;
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            let message =
                format!("a daemon is running on {shown}: stop it, or choose another path with --socket");
            return Err(Error::new(Code::NameInUse, message));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path).map_err(|error| failed(&format!("replace {shown}"), &error))?;
        }
        Err(_) if path.exists() && !is_socket(path) => {
            let message = format!("{shown} is there and is no socket: choose another path with --socket");
            return Err(Error::new(Code::NameInUse, message));
        }
        Err(error) => return Err(failed(&format!("look at {shown}"), &error)),
    }
    let before = umask(KEPT_OUT);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(|error| failed(&format!("listen on {shown}"), &error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&format!("listen on {shown}"), &error))?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("vswitch-socket-{}", std::process::id()));
        let path = dir.join("control.sock");
        let first = listen(&path).expect("first");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o660);
        assert_eq!(listen(&path).expect_err("live").code, Code::NameInUse);
        drop(first);
        let second = listen(&path).expect("stale");
        drop(second);
        std::fs::remove_file(&path).expect("remove");
        std::fs::write(&path, "").expect("write");
        assert_eq!(listen(&path).expect_err("a file").code, Code::NameInUse);
        assert!(path.exists());
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}
