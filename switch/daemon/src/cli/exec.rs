//! `vswitch exec`.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use vswitch_control::api::types;
use vswitch_sys::etc;
use vswitch_sys::hostname::set_private_hostname;
use vswitch_sys::netns::NetNs;

use super::client::{Client, path};
use super::outcome::{Failure, Outcome};

/// The exit code of a shell for a command it does not find.
const NOT_FOUND: u8 = 127;
/// The exit code of a shell for a command it may not run.
const NOT_RUNNABLE: u8 = 126;

/// Run a command inside a sandbox
///
/// In its network namespace, with its host name and its own hosts and resolv.conf; exits with what the
/// command exits with.
///
/// Example: vswitch exec web -- ip address
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Exec {
    /// The sandbox
    sandbox: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Exec {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let sandbox: types::Sandbox = client.get(&path("/sandboxes/", &self.sandbox, "")).await?;
        enter(&sandbox)?;
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| Failure("no command".to_owned()))?;
        let error = Command::new(program).args(arguments).exec();
        eprintln!("vswitch: cannot run {program:?}: {error}");
        let missing = error.kind() == ErrorKind::NotFound;
        Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_RUNNABLE }))
    }
}

/// Shows the sandbox's own files in place of the host's. A host that lacks one needs none in its place.
fn show_files(sandbox: &types::Sandbox) -> Result<(), Failure> {
    etc::leave_hosts_mounts().map_err(|error| Failure(format!("cannot leave the host's mounts: {error}")))?;
    let files = [
        (&sandbox.hosts_path, "/etc/hosts"),
        (&sandbox.hostname_path, "/etc/hostname"),
        (&sandbox.resolv_conf_path, "/etc/resolv.conf"),
    ];
    let needed = |file: &str, target: &str| !file.is_empty() && Path::new(target).exists();
    for (file, target) in files.into_iter().filter(|(file, target)| needed(file, target)) {
        let shown = etc::show_in_place(Path::new(file), Path::new(target));
        shown.map_err(|error| Failure(format!("cannot show {file} as {target}: {error}")))?;
    }
    Ok(())
}

fn enter(sandbox: &types::Sandbox) -> Result<(), Failure> {
    if sandbox.netns.is_empty() {
        return Err(Failure(format!(
            "sandbox {:?} is a descriptor: there is no namespace to enter",
            sandbox.name
        )));
    }
    if sandbox.status == types::Status::Gone {
        let types::Sandbox { name, gone_since, .. } = sandbox;
        return Err(Failure(format!("sandbox {name:?} is gone since {gone_since}: attach or make it again")));
    }
    let entered = NetNs::open(Path::new(&sandbox.netns)).and_then(|netns| netns.enter());
    entered.map_err(|error| {
        let mend = if error.kind() == ErrorKind::PermissionDenied { ": run this as root" } else { "" };
        Failure(format!("cannot enter the network namespace {}: {error}{mend}", sandbox.netns))
    })?;
    show_files(sandbox)?;
    if !sandbox.hostname.is_empty() {
        let set = set_private_hostname(&sandbox.hostname);
        set.map_err(|error| Failure(format!("cannot set the host name {:?}: {error}", sandbox.hostname)))?;
    }
    Ok(())
}
