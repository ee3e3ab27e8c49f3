//! Private mounts: whether the names of namespaces made here are seen by anybody else.
//!
//! A name is a mount. A daemon that was started in a mount namespace of its own, as `unshare --mount` and
//! systemd's `PrivateMounts=` do, makes it where nobody else sees it, unless mounts are passed on from there.
//! So it is looked for as process 1 and the daemon's parent see it; where it is missing, clients are told
//! the path by the daemon's own view, which works for everybody.

use std::path::{Path, PathBuf};

use crate::control::Control;
use crate::sandbox::gone::numbers_at;
use crate::state::Place;

impl Control {
    /// Finds out whether others see a name that was just made, or is there. Says so once if they do not.
    pub(crate) fn note_mounts(&mut self, place: &Place) {
        if self.has_private_mounts || !is_hidden(place) {
            return;
        }
        self.has_private_mounts = true;
        tracing::warn!(
            "the daemon has a mount namespace of its own: \"ip netns\" does not find what it makes, such as {}; \
             use \"vswitch exec\", or start it without that (systemd: PrivateMounts=no)",
            place.path.display()
        );
    }

    /// The path of a namespace by which everybody finds it.
    pub(crate) fn path_for_all(&self, place: &Place, made: bool) -> PathBuf {
        if made && self.has_private_mounts {
            seen_by(std::process::id(), &place.path)
        } else {
            place.path.clone()
        }
    }
}

/// Whether somebody who may be asked does not find the namespace at its path.
fn is_hidden(place: &Place) -> bool {
    [1, std::os::unix::process::parent_id()].into_iter().any(|pid| {
        match numbers_at(&seen_by(pid, &place.path)) {
            Ok(found) => !place.identity.may_be(found),
            Err(error) => {
                error.kind() == std::io::ErrorKind::NotFound
                    && Path::new("/proc").join(pid.to_string()).exists()
            }
        }
    })
}

/// A path, as a process sees it.
fn seen_by(pid: u32, path: &Path) -> PathBuf {
    let inner = path.strip_prefix("/").unwrap_or(path);
    Path::new("/proc").join(pid.to_string()).join("root").join(inner)
}
