//! Options of networks that span hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_contract::tunnel::Vni;

use crate::error::Result;
use crate::network::options::values::invalid;

/// The identifier on the wire.
pub const VNI: &str = "vswitch.vni";
/// The VTEPs of the network's other hosts, with commas between them.
pub const PEERS: &str = "vswitch.peers";
/// This host's VTEP.
pub const VTEP: &str = "vswitch.vtep";
const KEYS: [&str; 3] = [VNI, PEERS, VTEP];

/// Options of a network that spans hosts, as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// The identifier on the wire.
    pub vni: Option<Vni>,
    /// The VTEPs of the network's other hosts.
    pub peers: Vec<IpAddr>,
    /// This host's VTEP.
    pub vtep: Option<IpAddr>,
}

impl OverlayOptions {
    /// Reads them.
    ///
    /// # Errors
    /// For a value that makes no sense.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let value = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let vni = value(VNI)
            .map(|text| text.parse::<Vni>().map_err(|error| invalid(format!("{VNI}={text}: {error}"))));
        let address = |key: &str, text: &str| {
            text.parse::<IpAddr>().map_err(|_| invalid(format!("{key}={text}: no IP address: write one")))
        };
        let peers = value(PEERS).into_iter().flat_map(|list| list.split(','));
        Ok(Self {
            vni: vni.transpose()?,
            peers: peers.map(|peer| address(PEERS, peer.trim())).collect::<Result<_>>()?,
            vtep: value(VTEP).map(|text| address(VTEP, text)).transpose()?,
        })
    }

    /// Refuses them where the network does not span hosts.
    ///
    /// # Errors
    /// When there is one.
    pub fn refuse(options: &BTreeMap<String, String>) -> Result<()> {
        match KEYS.iter().find(|key| options.contains_key(**key)) {
            Some(key) => {
                Err(invalid(format!("{key}: the network is on this host only: give -d overlay, too")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::options::network::tests::map;

    #[test]
    fn values_are_read() {
        let options = map(&[(VNI, "4097"), (PEERS, "192.0.2.2, 192.0.2.3"), (VTEP, "192.0.2.1")]);
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let expected =
            OverlayOptions { vni: Vni::new(4097).ok(), peers: vec![ip(2), ip(3)], vtep: Some(ip(1)) };
        assert_eq!(OverlayOptions::parse(&options), Ok(expected));
        let unsaid = map(&[(VNI, ""), (PEERS, ""), ("org.example.x", "y")]);
        assert_eq!(OverlayOptions::parse(&unsaid), Ok(OverlayOptions::default()));
    }

    #[test]
    fn bad_values_are_refused() {
        for pair in
            [(VNI, "16777216"), (VNI, "one"), (PEERS, "host-b"), (PEERS, "192.0.2.1,"), (VTEP, "eth0")]
        {
            let error = OverlayOptions::parse(&map(&[pair])).expect_err(pair.1);
            assert!(error.message.starts_with(pair.0), "{error}");
            assert!(OverlayOptions::refuse(&map(&[pair])).is_err());
        }
    }
}
