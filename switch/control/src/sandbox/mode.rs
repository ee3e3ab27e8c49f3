//! Network modes: whose network a sandbox uses. Pure.
//!
//! The words are Docker's: the names of networks, or alone `none`, `host` or `container:OTHER`.

use crate::api::types::{EndpointConfig, NetworkWish};
use crate::error::{Code, Error, Result};
use crate::network::predefined::DEFAULT_NETWORK;
use crate::state::mode::{HOST, NONE, SHARED};

const DEFAULT: &str = "default";

/// The network that a new sandbox asks for.
#[derive(Debug)]
pub enum Wish {
    /// A network namespace of its own, connected to these networks in this order.
    Networks(Vec<NetworkWish>),
    /// The host's network.
    Host,
    /// The network of the sandbox that this names.
    Shared(String),
}

impl Wish {
    /// Reads it; nothing said asks for the default network.
    ///
    /// # Errors
    /// For modes that exclude what else is asked for.
    pub fn parse(networks: Option<Vec<NetworkWish>>) -> Result<Self> {
        let bridge = || NetworkWish {
            network: DEFAULT_NETWORK.to_owned(),
            endpoint_config: EndpointConfig::default(),
        };
        let mut networks = networks.unwrap_or_else(|| vec![bridge()]);
        if let Some(wish) = networks.iter().find(|wish| is_mode(&wish.network)) {
            check_alone(wish, networks.len())?;
            return Ok(match wish.network.strip_prefix(SHARED) {
                Some(other) => Self::Shared(other.to_owned()),
                None if wish.network == HOST => Self::Host,
                None => Self::Networks(Vec::new()),
            });
        }
        for wish in networks.iter_mut().filter(|wish| wish.network == DEFAULT) {
            DEFAULT_NETWORK.clone_into(&mut wish.network);
        }
        Ok(Self::Networks(networks))
    }
}

fn is_mode(word: &str) -> bool {
    word == NONE || word == HOST || word.starts_with(SHARED)
}

fn check_alone(wish: &NetworkWish, count: usize) -> Result<()> {
    let mode = &wish.network;
    let conflict = |what: &str| {
        let message =
            format!("conflicting options: {what} cannot be used with --network {mode}: leave one out");
        Err(Error::new(Code::InvalidArgument, message))
    };
    if mode == SHARED {
        let message = format!("network mode {mode:?} names no sandbox: write {SHARED}NAME");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    if count > 1 {
        return conflict("another network");
    }
    if wish.endpoint_config != EndpointConfig::default() {
        return conflict("an address, an alias or another option of an endpoint");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<String> {
        let wish = |word: &&str| NetworkWish {
            network: (*word).to_owned(),
            endpoint_config: EndpointConfig::default(),
        };
        Wish::parse(Some(words.iter().map(wish).collect())).map(|wish| match wish {
            Wish::Networks(networks) => networks.into_iter().map(|wish| wish.network + ",").collect(),
            Wish::Host => "the host's".to_owned(),
            Wish::Shared(other) => format!("that of {other}"),
        })
    }

    #[test]
    fn words_are_read() {
        let cases: [(&[&str], &str); 6] = [
            (&[], ""),
            (&["none"], ""),
            (&["host"], "the host's"),
            (&["container:web"], "that of web"),
            (&["lan", "default"], "lan,bridge,"),
            (&["hostile", "containers"], "hostile,containers,"),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(words).as_deref(), Ok(expected), "{words:?}");
        }
        assert!(matches!(Wish::parse(None), Ok(Wish::Networks(wishes)) if wishes[0].network == "bridge"));
    }

    #[test]
    fn a_mode_stands_alone() {
        for words in [&["none", "lan"][..], &["lan", "host"], &["container:a", "host"], &["container:"]] {
            let error = parse(words).expect_err("a conflict");
            assert_eq!(error.code, Code::InvalidArgument, "{words:?}");
        }
        let endpoint_config = EndpointConfig { aliases: vec!["x".to_owned()], ..Default::default() };
        let wish = NetworkWish { network: "host".to_owned(), endpoint_config };
        let message = Wish::parse(Some(vec![wish])).expect_err("a conflict").message;
        assert!(message.starts_with("conflicting options: "), "{message}");
    }
}
