//! The identity of the cluster that an etcd has under a name, and whether it is the one of this host.
//!
//! The first host of a cluster draws an identifier and writes it to etcd; each host notes it in its state
//! directory. So a host that is pointed at an etcd with other networks under the same name says so, and
//! touches nothing.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vswitch_sys::random;

use super::client::Client;
use super::error::Error;
use super::wire::{Change, Condition, KeyRange, KeyValue, Outcome};

/// The number of the form of keys and records. We understand no other: in the first one, keys named networks
/// by their names.
const FORMAT: u32 = 2;

/// The key under the cluster's prefix.
pub(super) const KEY: &str = "cluster";

/// The file in the state directory.
const FILE: &str = "etcd-cluster";

/// The value under the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Identity {
    format: u32,
    id: String,
}

/// The identifier of its cluster, as this host remembers it.
#[derive(Debug)]
pub(super) struct Memory {
    file: PathBuf,
    id: Option<String>,
}

impl Memory {
    /// Reads the note in the state directory.
    pub(super) fn read(state_dir: &Path) -> Result<Self, String> {
        let file = state_dir.join(FILE);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Self { id: Some(text.trim().to_owned()), file }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { id: None, file }),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }

    /// The identity to write to an etcd that has no cluster of the name: the one that this host knows, or a
    /// new one.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let bytes = random::bytes().map_err(|error| format!("cannot draw an identifier: {error}"))?;
                format!("{:032x}", u128::from_be_bytes(bytes))
            }
        };
        Ok(Identity { format: FORMAT, id })
    }

    /// Compares an etcd's identity with the remembered one, and remembers it.
    pub(super) fn accept(&mut self, value: &[u8], prefix: &str) -> Result<(), String> {
        let unknown = || {
            format!(
                "etcd has something else than a cluster of vswitch under {prefix}: choose another --cluster-name"
            )
        };
        let found: Identity = serde_json::from_slice(value).map_err(|_| unknown())?;
        if found.format < FORMAT {
            return Err(format!(
                "the cluster under {prefix} in etcd was made by an older vswitch, whose records mean something \
                 else here: stop vswitch on all hosts and remove all keys under {prefix}, or choose another \
                 --cluster-name"
            ));
        }
        if found.format > FORMAT {
            return Err(format!(
                "the cluster under {prefix} in etcd was made by a newer vswitch: install that one here"
            ));
        }
        match &self.id {
            Some(id) if *id == found.id => Ok(()),
            Some(id) => Err(format!(
                "etcd has another cluster under {prefix} ({}) than the one this host belongs to ({id}): \
                 correct --cluster or --cluster-name, or remove {} to change over",
                found.id,
                self.file.display()
            )),
            None => {
                // The state directory may be a new one.
                let folder = self.file.parent().unwrap_or(Path::new("/"));
                let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.and_then(|()| fs::write(&self.file, format!("{}\n", found.id)))
                    .map_err(|error| format!("{}: {error}", self.file.display()))?;
                self.id = Some(found.id);
                Ok(())
            }
        }
    }
}

/// Looks whether everything is right, as far as this can be seen now.
///
/// # Errors
/// One line: something that must be mended first. An etcd that is not there now is no error, but handed back.
pub(super) async fn look(
    client: &Client,
    memory: &mut Memory,
    prefix: &str,
) -> Result<Option<Error>, String> {
    match client.read(&KeyRange::one(&format!("{prefix}{KEY}"))).await {
        Ok((found, _)) => verify(client, memory, prefix, &found).await.map(|()| None),
        Err(error) if error.is_passing() => Ok(Some(error)),
        Err(error) => Err(error.to_string()),
    }
}

/// Compares the cluster that is there with ours, or writes that it is ours when there is none.
///
/// # Errors
/// One line.
pub(super) async fn verify(
    client: &Client,
    memory: &mut Memory,
    prefix: &str,
    all: &[KeyValue],
) -> Result<(), String> {
    let key = format!("{prefix}{KEY}");
    if let Some(found) = all.iter().find(|found| found.key == key) {
        return memory.accept(&found.value, prefix);
    }
    let value = serde_json::to_vec(&memory.identity()?).map_err(|error| error.to_string())?;
    let conditions = [Condition { key: key.clone(), mod_revision: 0 }];
    let changes = [Change::Put { key, value: value.clone(), lease: None }];
    match client.commit(&conditions, &changes).await.map_err(|error| error.to_string())? {
        Outcome::Done(_) => memory.accept(&value, prefix),
        Outcome::Stale(now) => {
            let found = now.into_iter().next().map(|found| found.value);
            memory.accept(&found.unwrap_or_default(), prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_belongs_to_one_cluster() {
        let folder = std::env::temp_dir().join(format!("vswitch-identity-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        let mut memory = Memory::read(&folder).expect("memory");
        let first = serde_json::to_vec(&memory.identity().expect("identity")).expect("json");
        memory.accept(&first, "/vswitch/a/").expect("the first one is taken");
        let mut memory = Memory::read(&folder).expect("memory");
        assert_eq!(serde_json::to_vec(&memory.identity().expect("identity")).expect("json"), first);
        memory.accept(&first, "/vswitch/a/").expect("the same one");
        let other = serde_json::to_vec(&Identity { format: FORMAT, id: "x".to_owned() }).expect("json");
        let refusal = memory.accept(&other, "/vswitch/a/").expect_err("another one");
        assert!(refusal.starts_with("etcd has another cluster under /vswitch/a/ (x) than"), "{refusal}");
        for (format, who) in [(FORMAT + 1, "newer vswitch"), (FORMAT - 1, "older vswitch")] {
            let other = serde_json::to_vec(&Identity { format, id: "x".to_owned() }).expect("json");
            let refusal = memory.accept(&other, "/p/").expect_err("another form");
            assert!(refusal.contains(who) && !refusal.contains('\n'), "{refusal}");
        }
        assert!(memory.accept(b"hello", "/p/").expect_err("not ours").contains("something else"));
        fs::remove_dir_all(&folder).expect("removed");
    }
}
