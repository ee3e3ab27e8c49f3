//! Network modes of sandboxes, as they are kept. The words are Docker's.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// The mode without any network.
pub const NONE: &str = "none";
/// The mode of the host's network.
pub const HOST: &str = "host";
/// The mode of another sandbox's network, and its name.
pub const SHARED: &str = "container:";

/// The mode of a sandbox: whose network it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// A network of its own, with an endpoint on each network it is connected to, of which there may be none.
    #[default]
    Own,
    /// The host's network: the one the daemon is in.
    Host,
    /// The network of the sandbox of this name, which is in mode [`Own`](Self::Own).
    Shared(String),
}

impl Mode {
    /// The mode in Docker's words, for a sandbox whose first endpoint is on `network`.
    pub fn label(&self, network: Option<&str>) -> String {
        match self {
            Self::Own => network.unwrap_or(NONE).to_owned(),
            Self::Host => HOST.to_owned(),
            Self::Shared(other) => format!("{SHARED}{other}"),
        }
    }

    /// The name of the sandbox whose network it shares, if it does.
    pub fn shared(&self) -> Option<&str> {
        match self {
            Self::Shared(other) => Some(other),
            Self::Own | Self::Host => None,
        }
    }

    /// Refuses to change which networks the sandbox of this name is on, unless it has its own.
    ///
    /// # Errors
    /// When it uses another one's.
    pub fn check_own(&self, name: &str) -> Result<()> {
        let message = match self {
            Self::Own => return Ok(()),
            Self::Host => {
                format!("sandbox {name:?} uses the host's network: make a sandbox without --network host")
            }
            Self::Shared(other) => {
                format!("sandbox {name:?} shares the network of {other:?}: connect or disconnect {other:?}")
            }
        };
        Err(Error::new(Code::NetworkMode, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dockers() {
        assert_eq!(Mode::Own.label(Some("lan")), "lan");
        assert_eq!(Mode::Own.label(None), "none");
        assert_eq!(Mode::Host.label(None), "host");
        assert_eq!(Mode::Shared("web".to_owned()).label(None), "container:web");
    }
}
