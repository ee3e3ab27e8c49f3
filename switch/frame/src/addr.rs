//! Addresses and identifiers that cross crates, each a type of its own.

use std::fmt;
use std::str::FromStr;

/// An IEEE 802 MAC address, in wire order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "String", try_from = "String")
)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// 00:00:00:00:00:00, which no station may use.
    pub const ZERO: Mac = Mac([0; 6]);

    /// The group bit (IEEE 802-2014, 8.2.2): multicast, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// An address a station may send from: neither multicast nor zero.
    pub fn is_station(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// 01:80:c2:00:00:00 to :0f, which a bridge never forwards (IEEE 802.1Q-2022, table 8-1).
    pub fn is_link_local(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && f < 0x10
    }

    /// The address as an integer below 2^48: a table key.
    pub const fn as_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacError(String);

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no MAC address: write six hexadecimal pairs, as in 02:42:ac:11:00:02", self.0)
    }
}

impl std::error::Error for MacError {}

impl FromStr for Mac {
    type Err = MacError;

    /// Six pairs of hexadecimal digits between `:` or between `-`.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let refuse = || MacError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0u8; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(refuse)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        if pairs.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

/// A port of the switch: an index, below [`PortId::LIMIT`], that is used again after the port is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PortId(pub u16);

impl PortId {
    /// Ports a switch may have at once. At the limit a new port is refused.
    pub const LIMIT: usize = 4096;

    /// The identifier as an index into a table of ports.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A network of the switch: an index, below [`NetworkId::LIMIT`]. Frames never pass from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NetworkId(pub u16);

impl NetworkId {
    /// Networks a switch may have at once. At the limit a new network is refused.
    pub const LIMIT: usize = 1024;

    /// The identifier as an index into a table of networks.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An isolation group: a frame never goes from a port to a port of the same group.
///
/// Every port is in exactly one group. By default that is a group of its own, which is what forbids
/// reflection; containers with ICC off share one, tunnels of a network share one (split horizon).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group that holds only this port.
    pub const fn own(port: PortId) -> Self {
        Self(port.0 as u32)
    }

    /// The group shared by the containers of a network whose ICC is off.
    pub const fn containers_of(network: NetworkId) -> Self {
        Self(0x1_0000 + network.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_survives_text() {
        let mac = Mac([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!("02-42-AC-11-00-02".parse(), Ok(mac));
    }

    #[test]
    fn nonsense_is_no_mac() {
        for text in
            ["", "02:42", "02:42:ac:11:00:02:03", "02:42:ac:11:00:0g", "2:42:ac:11:0:2", "+2:42:ac:11:00:02"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_mac() {
        assert!(Mac::BROADCAST.is_multicast());
        assert!(!Mac::ZERO.is_station());
        assert!(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local());
        assert!(!Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }
}
