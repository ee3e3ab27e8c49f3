//! The cluster's view in a real etcd: the client alone, and views of several hosts in one process.

mod client;
mod hosts;
mod member;
mod networks;
mod secrets;
mod views;

use std::path::PathBuf;

use tokio::runtime::Builder;
use vswitch_cluster::etcd::address::Address;
use vswitch_cluster::etcd::client::{Access, Client};
use vswitch_tests::namespace::Namespace;

/// Access to an etcd without secrets.
fn access(url: &str) -> Access {
    Access { address: url.parse::<Address>().expect("an address"), tls: None, user: None }
}

fn client(url: &str) -> Client {
    Client::new(&access(url)).expect("a client")
}

/// Runs something inside a namespace, on one thread as control does.
fn run<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.inside(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    })
}

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(vswitch_tests::namespace::unique_name());
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
