//! Drivers: how a network moves frames beyond its own containers.
//!
//! Each driver is a file that offers the same verbs. To add one is a file, a variant of [`Driver`] and of
//! [`Plan`], and their arms here.
//!
//! | verb | |
//! |---|---|
//! | plan | reads the options of a new network, and refuses those that make no sense to the driver |
//! | up | makes the ports that a network has before any endpoint |
//! | down | removes them |
//! | restore | makes those again that the datapath lacks, after a start |
//! | show | says the driver's part of a network to clients |

pub mod bridge;
pub mod overlay;

use crate::api::types::{self, Map};
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::network::options::NetworkOptions;
use crate::state::Network;

/// A network's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A segment on this host.
    Bridge,
    /// A segment that spans hosts.
    Overlay,
}

/// A driver's part of a network to be.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The part of [`Driver::Bridge`].
    Bridge,
    /// The part of [`Driver::Overlay`].
    Overlay(overlay::Plan),
}

impl Driver {
    /// Every driver.
    pub const ALL: [Self; 2] = [Self::Bridge, Self::Overlay];

    /// The driver of this name; that of a network whose client names none is the first.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|driver| name.is_empty() || driver.label() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::label).join(" or ");
            let message = format!("driver {name:?} is not known: use {known}, or leave it out");
            Error::new(Code::UnknownDriver, message)
        })
    }

    /// The driver of a network.
    pub fn of(network: &Network) -> Self {
        if network.overlay.is_some() { Self::Overlay } else { Self::Bridge }
    }

    /// Its name, as clients write it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bridge => bridge::NAME,
            Self::Overlay => overlay::DRIVER,
        }
    }

    /// Whether a network of it may be said to have this scope.
    pub fn takes_scope(self, scope: &str) -> bool {
        scope.is_empty() || scope == bridge::SCOPE || self == Self::Overlay && scope == overlay::SCOPE_SHARED
    }

    /// Reads the driver's options of a new network.
    ///
    /// # Errors
    /// When they do not say enough, or make no sense to the driver.
    pub fn plan(self, options: &Map) -> Result<Plan> {
        match self {
            Self::Bridge => bridge::plan(options).map(|()| Plan::Bridge),
            Self::Overlay => overlay::plan(options).map(Plan::Overlay),
        }
    }

    /// Says the driver's part of a network.
    pub fn show(self, name: &str, network: &Network, shown: &mut types::Network) {
        self.label().clone_into(&mut shown.driver);
        match self {
            Self::Bridge => bridge::show(name, network, shown),
            Self::Overlay => overlay::show(network, shown),
        }
    }
}

impl Plan {
    /// The largest network packet that there is room for, in bytes, if that does not follow from the host's
    /// uplink.
    pub fn mtu(&self) -> Option<u32> {
        match self {
            Self::Bridge => None,
            Self::Overlay(plan) => Some(plan.mtu),
        }
    }

    /// Refuses options of the network that the driver has no room for.
    ///
    /// # Errors
    /// For such.
    pub fn check(&self, options: &NetworkOptions) -> Result<()> {
        match self {
            Self::Bridge => Ok(()),
            Self::Overlay(plan) => plan.check(options),
        }
    }
}

impl Control {
    /// Makes the ports that a network has before any endpoint.
    pub(crate) async fn driver_up(&mut self, name: &str, plan: Plan) -> Result<()> {
        match plan {
            Plan::Bridge => self.bridge_up(name).await,
            Plan::Overlay(plan) => self.overlay_up(name, plan).await,
        }
    }

    /// Removes the ports that a network has without endpoints.
    pub(crate) async fn driver_down(&mut self, name: &str) -> Cleanup {
        match self.driver_of(name) {
            None => Cleanup::default(),
            Some(Driver::Bridge) => self.bridge_down(name).await,
            Some(Driver::Overlay) => self.overlay_down(name).await,
        }
    }

    /// Makes the ports of every network again that the datapath lacks.
    pub(crate) async fn restore_drivers(&mut self) {
        for name in self.state.networks.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.bridge_restore(&name).await {
                tracing::warn!("the host cannot reach network {name:?}, which is tried again: {error}");
            }
            // Of a network of another driver it makes nothing.
            if let Err(error) = self.raise_tunnel(&name).await {
                tracing::warn!(
                    "network {name:?} does not reach its other hosts, which is tried again: {error}"
                );
            }
        }
        self.remove_strange_tunnels().await;
    }

    fn driver_of(&self, name: &str) -> Option<Driver> {
        self.state.networks.get(name).map(Driver::of)
    }
}
