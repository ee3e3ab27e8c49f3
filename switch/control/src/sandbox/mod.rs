//! Sandboxes: making, attaching, showing, removing.
//!
//! | file | |
//! |---|---|
//! | [`mode`] | whose network a sandbox uses |
//! | [`endpoints`] | connecting to networks |
//! | [`gone`] [`again`] | containers that are gone, and that are back |
//! | [`interface`] [`ipv6`] [`default_route`] | what is made in its namespace |
//! | [`mounts`] | the name of its namespace, as others see it |
//! | [`files`] | what it finds under `/etc` |
//! | [`announce`] | telling a network of a new endpoint |

pub(crate) mod again;
pub mod announce;
pub mod default_route;
pub mod endpoints;
pub mod files;
pub(crate) mod gone;
pub mod interface;
pub(crate) mod ipv6;
pub mod mode;
pub(crate) mod mounts;

use std::io::ErrorKind;
use std::path::PathBuf;

use vswitch_sys::netlink::Netlink;
use vswitch_sys::netns::{NetNs, named_path, run_in};

use crate::api::types;
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::error::{failed, refused};
use crate::names;
use crate::network::predefined::DEFAULT_NETWORK;
use crate::publish::{self, DISCARDED, Wishes};
use crate::sandbox::endpoints::Source;
use crate::state::mode::Mode;
use crate::state::{Identity, Place, Sandbox};

impl Control {
    /// Makes a sandbox: with a network namespace of its own, or one that uses another's.
    pub async fn create_sandbox(&mut self, wish: types::SandboxCreate) -> Result<types::Sandbox> {
        names::check("sandbox", &wish.name)?;
        wish.hostname.iter().try_for_each(|hostname| names::check("host", hostname))?;
        self.refuse_taken(&wish.name)?;
        let wishes = Wishes::parse(&wish.publish, &wish.expose, wish.publish_all)?;
        let mut warnings = Vec::new();
        match mode::Wish::parse(wish.networks)? {
            mode::Wish::Networks(networks) => {
                warnings = self.create_connected(&wish.name, wish.hostname, networks).await?;
                self.grant_or_drop(&wish.name, wishes).await?;
            }
            mode::Wish::Host => {
                if !wishes.specs.is_empty() {
                    warnings.push(DISCARDED.to_owned());
                }
                self.create_using(&wish.name, wish.hostname, Mode::Host)?;
            }
            mode::Wish::Shared(other) => {
                wishes.refuse_shared(&other)?;
                self.create_sharing(&wish.name, wish.hostname, &other)?;
            }
        }
        Ok(types::Sandbox { warnings, ..self.sandbox(&wish.name)? })
    }

    /// Publishes the ports that a new sandbox wishes for; if they cannot be, there is no sandbox.
    async fn grant_or_drop(&mut self, name: &str, wishes: Wishes) -> Result<()> {
        let granted = self.grant(name, wishes).await;
        if granted.is_err() {
            self.drop_sandbox(name).await.done().await;
        }
        granted
    }

    /// Makes a sandbox with a network namespace of its own. Returns warnings for whoever asked for it.
    async fn create_connected(
        &mut self,
        name: &str,
        hostname: Option<String>,
        networks: Vec<types::NetworkWish>,
    ) -> Result<Vec<String>> {
        // Before anything is made: most refusals are for a name that is misspelt.
        for network in &networks {
            self.need_network(&network.network).await?;
            self.state.network_name(&network.network)?;
        }
        let netns = self.make_namespace(name).await?;
        let place = Place { path: named_path(name), identity: identity(&netns)? };
        self.note_mounts(&place);
        let mut sandbox = self.new_sandbox(Some(place))?;
        (sandbox.hostname, sandbox.made) = (Some(hostname.unwrap_or_else(|| name.to_owned())), true);
        self.state.sandboxes.insert(name.to_owned(), sandbox);
        let mut warnings = Vec::new();
        for network in networks {
            match self.join(&network.network, name, network.endpoint_config).await {
                Ok(warning) => warnings.extend(warning),
                Err(error) => {
                    self.drop_sandbox(name).await.done().await;
                    return Err(error);
                }
            }
        }
        Ok(warnings)
    }

    /// Makes a sandbox that shares the network of another one, and its host name, as Docker does. Where
    /// that one shares a network itself, it is this network.
    fn create_sharing(&mut self, name: &str, hostname: Option<String>, other: &str) -> Result<()> {
        if hostname.is_some() {
            let message = format!(
                "conflicting options: a host name cannot be used with --network container:{other}: \
                 it has that of {other:?}"
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let other = self.state.sandbox_name(other)?;
        let sandbox = &self.state.sandboxes[&other];
        let mode = match &sandbox.mode {
            Mode::Own if sandbox.place.is_none() => {
                let message = format!(
                    "sandbox {other:?} is a descriptor, without a network namespace to share: name another \
                     sandbox"
                );
                return Err(Error::new(Code::WrongKind, message));
            }
            Mode::Own => Mode::Shared(other.clone()),
            mode @ (Mode::Host | Mode::Shared(_)) => mode.clone(),
        };
        let hostname = sandbox.hostname.clone();
        self.create_using(name, hostname, mode)
    }

    /// Makes a sandbox without a network namespace of its own.
    fn create_using(&mut self, name: &str, hostname: Option<String>, mode: Mode) -> Result<()> {
        let sandbox = Sandbox { hostname, mode, made: true, ..self.new_sandbox(None)? };
        self.state.sandboxes.insert(name.to_owned(), sandbox);
        Ok(())
    }

    /// Attaches a namespace or a descriptor that someone else made.
    pub async fn attach(&mut self, wish: types::Attach) -> Result<types::Sandbox> {
        names::check("sandbox", &wish.name)?;
        let is_away = self.state.sandboxes.get(&wish.name).is_some_and(Sandbox::is_away);
        if !is_away {
            self.refuse_taken(&wish.name)?;
        }
        let wishes = Wishes::parse(&wish.publish, &wish.expose, wish.publish_all)?;
        let network = wish.network.as_deref().unwrap_or(DEFAULT_NETWORK);
        self.need_network(network).await?;
        let network = self.state.network_name(network)?;
        let (place, source) = find_source(&wish)?;
        if is_away {
            let (found, config) = ((place, source), wish.endpoint_config);
            let warning = self.attach_again(&wish.name, &network, found, config, wishes).await?;
            return Ok(types::Sandbox {
                warnings: warning.into_iter().collect(),
                ..self.sandbox(&wish.name)?
            });
        }
        let sandbox = self.new_sandbox(place)?;
        self.state.sandboxes.insert(wish.name.clone(), sandbox);
        let warning = match self.add_endpoint(&network, &wish.name, source, wish.endpoint_config).await {
            Ok(warning) => warning,
            Err(error) => {
                self.drop_sandbox(&wish.name).await.done().await;
                return Err(error);
            }
        };
        self.grant_or_drop(&wish.name, wishes).await?;
        Ok(types::Sandbox { warnings: warning.into_iter().collect(), ..self.sandbox(&wish.name)? })
    }

    /// Removes a sandbox that [`create_sandbox`](Self::create_sandbox) made, and its namespace.
    pub async fn remove_sandbox(&mut self, key: &str) -> Result<Cleanup> {
        let name = self.state.sandbox_name(key)?;
        if !self.state.sandbox(&name)?.made {
            let message =
                format!("sandbox {name:?} was attached, not created: use \"vswitch detach {name}\"");
            return Err(Error::new(Code::WrongRemoval, message));
        }
        self.refuse_shared(&name)?;
        Ok(self.drop_sandbox(&name).await)
    }

    /// Removes the endpoints of a sandbox that [`attach`](Self::attach) attached, and forgets it.
    pub async fn detach(&mut self, key: &str) -> Result<Cleanup> {
        let name = self.state.sandbox_name(key)?;
        if self.state.sandbox(&name)?.made {
            let message =
                format!("sandbox {name:?} was created, not attached: use \"vswitch sandbox rm {name}\"");
            return Err(Error::new(Code::WrongRemoval, message));
        }
        self.refuse_shared(&name)?;
        Ok(self.drop_sandbox(&name).await)
    }

    /// Every sandbox.
    pub fn sandboxes(&self) -> Vec<types::Sandbox> {
        self.state.sandboxes.iter().map(|(name, sandbox)| self.show_sandbox(name, sandbox)).collect()
    }

    /// One sandbox.
    pub fn sandbox(&self, key: &str) -> Result<types::Sandbox> {
        let name = self.state.sandbox_name(key)?;
        Ok(self.show_sandbox(&name, &self.state.sandboxes[&name]))
    }

    pub(crate) async fn drop_sandbox(&mut self, name: &str) -> Cleanup {
        let mut cleanup = Cleanup::default();
        let Some(mut sandbox) = self.state.sandboxes.remove(name) else { return cleanup };
        if let Err(error) = self.bind(sandbox.number, Vec::new()).await {
            tracing::warn!("published ports of sandbox {name:?} may still lead somewhere: {error}");
        }
        let published = [std::mem::take(&mut sandbox.published), std::mem::take(&mut sandbox.draining)];
        cleanup.join(self.release(published.concat()).await);
        for endpoint in std::mem::take(&mut sandbox.endpoints) {
            cleanup.join(self.remove_endpoint(endpoint).await);
        }
        forget_namespace(name, &sandbox);
        match self.tell_rules().await {
            Ok(()) => self.state.sandbox_numbers.give_back(sandbox.number),
            Err(error) => tracing::warn!("rules may still be about sandbox {name:?}, which is gone: {error}"),
        }
        cleanup
    }

    fn show_sandbox(&self, name: &str, sandbox: &Sandbox) -> types::Sandbox {
        let network = sandbox.endpoints.first().map(|endpoint| endpoint.network.as_str());
        let files = self.files.paths(name, sandbox).unwrap_or_default();
        let shown = |path: PathBuf| path.display().to_string();
        let gone = self.gone_since(sandbox);
        types::Sandbox {
            name: name.to_owned(),
            id: sandbox.id.to_string(),
            created: sandbox.created.clone(),
            origin: if sandbox.made { "created" } else { "attached" }.to_owned(),
            hostname: sandbox.hostname.clone().unwrap_or_default(),
            network_mode: sandbox.mode.label(network),
            netns: self.namespace_path(sandbox).map(shown).unwrap_or_default(),
            hosts_path: shown(files.hosts),
            hostname_path: shown(files.hostname),
            resolv_conf_path: shown(files.resolv_conf),
            status: types::Status::of(gone),
            gone_since: gone.unwrap_or_default().to_owned(),
            endpoints: sandbox.endpoints.iter().map(|endpoint| self.show_endpoint(name, endpoint)).collect(),
            ports: publish::published::show(&sandbox.published, &sandbox.exposed, |_| true),
            warnings: Vec::new(),
        }
    }

    /// The path of the network namespace that a sandbox uses.
    fn namespace_path(&self, sandbox: &Sandbox) -> Option<PathBuf> {
        let owner = match &sandbox.mode {
            Mode::Own => sandbox,
            Mode::Host => return Some(PathBuf::from(format!("/proc/{}/ns/net", std::process::id()))),
            Mode::Shared(other) => self.state.sandboxes.get(other)?,
        };
        owner.place.as_ref().map(|place| self.path_for_all(place, owner.made))
    }

    /// Refuses to take away a network that others share.
    fn refuse_shared(&self, name: &str) -> Result<()> {
        let shared = Mode::Shared(name.to_owned());
        let sharers = self.state.sandboxes.iter().filter(|(_, sandbox)| sandbox.mode == shared);
        let sharers: Vec<&str> = sharers.map(|(sharer, _)| sharer.as_str()).collect();
        if sharers.is_empty() {
            return Ok(());
        }
        let message =
            format!("others share the network of sandbox {name:?}: remove {} first", sharers.join(", "));
        Err(Error::new(Code::SandboxInUse, message))
    }

    fn new_sandbox(&mut self, place: Option<Place>) -> Result<Sandbox> {
        let id = crate::names::new_id()?;
        let number = self.state.sandbox_numbers.take().ok_or_else(too_many)?;
        Ok(Sandbox {
            id,
            number,
            created: crate::calendar::now(),
            hostname: None,
            mode: Mode::Own,
            place,
            made: false,
            endpoints: Vec::new(),
            published: Vec::new(),
            draining: Vec::new(),
            exposed: Vec::new(),
            gone: None,
        })
    }

    /// Makes a network namespace with a name.
    ///
    /// The name stays whoever dies. So it is noted first which namespace will have it; the note is taken
    /// back together with whatever comes of it, and what is noted when control starts has no owner.
    pub(crate) async fn make_namespace(&mut self, name: &str) -> Result<NetNs> {
        let netns = NetNs::anonymous().map_err(|error| failed("make a network namespace", &error))?;
        // A sandbox without networks has its loopback all the same.
        let opened = run_in(&netns, Netlink::open).and_then(|opened| opened);
        let mut netlink = opened.map_err(|error| failed("open a netlink socket", &error))?;
        netlink.set_up("lo").map_err(refused)?;
        self.state.namespaces.insert(name.to_owned(), identity(&netns)?);
        self.write_down().await?;
        let named = netns.name(name);
        self.state.namespaces.remove(name);
        named.map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                let path = named_path(name);
                let message =
                    format!("a network namespace {} already exists: choose another name", path.display());
                return Error::new(Code::NameInUse, message);
            }
            failed(&format!("make network namespace {name:?}"), &error)
        })?;
        Ok(netns)
    }

    fn refuse_taken(&self, name: &str) -> Result<()> {
        if self.state.sandboxes.contains_key(name) {
            let message = format!("sandbox with name {name} already exists: choose another name");
            return Err(Error::new(Code::NameInUse, message));
        }
        Ok(())
    }
}

fn too_many() -> Error {
    let message = format!("{} sandboxes is the most there can be: remove one", u16::MAX);
    Error::new(Code::LimitReached, message)
}

/// Takes away the name of a sandbox's namespace if we gave it, unless somebody else has it by now.
pub(crate) fn forget_namespace(name: &str, sandbox: &Sandbox) {
    if sandbox.made && sandbox.mode == Mode::Own && sandbox.open(name).is_ok() {
        delete_namespace(name);
    }
}

fn delete_namespace(name: &str) {
    if let Err(error) = NetNs::delete_named(name) {
        tracing::warn!("cannot remove network namespace {name:?}: {error}");
    }
}

fn find_source(wish: &types::Attach) -> Result<(Option<Place>, Source)> {
    let path = match (&wish.netns, wish.pid, wish.fd) {
        (Some(path), None, None) => PathBuf::from(path),
        (None, Some(pid), None) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        (None, None, Some(foreign)) => return Ok((None, Source::Descriptor(foreign))),
        _ => {
            let message = "say what to attach: exactly one of --netns, --pid and --fd";
            return Err(Error::new(Code::InvalidArgument, message));
        }
    };
    let netns = NetNs::open(&path).map_err(|error| {
        let path = path.display();
        if error.kind() == ErrorKind::PermissionDenied {
            failed(&format!("open {path}"), &error)
        } else if error.kind() == ErrorKind::InvalidInput {
            Error::new(Code::WrongKind, format!("{path} is no network namespace: see \"ip netns list\""))
        } else {
            let message = format!("network namespace {path} is not there: {error}: see \"ip netns list\"");
            Error::new(Code::NamespaceNotFound, message)
        }
    })?;
    let identity = identity(&netns)?;
    Ok((Some(Place { path, identity }), Source::Namespace(netns)))
}

fn identity(netns: &NetNs) -> Result<Identity> {
    Identity::of(netns).map_err(|error| failed("identify the network namespace", &error))
}
