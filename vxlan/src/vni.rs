//! The VXLAN network identifier.

use std::fmt;
use std::str::FromStr;

/// A VXLAN network identifier: 24 bits (RFC 7348, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u32", into = "u32")
)]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier.
    pub const MAX: Vni = Vni(0xff_ffff);

    /// The identifier of this number.
    ///
    /// # Errors
    /// The number needs more than 24 bits.
    pub const fn new(number: u32) -> Result<Self, VniError> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(VniError) }
    }

    /// The number, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The identifier in wire order.
    pub(crate) const fn to_bytes(self) -> [u8; 3] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        [high, middle, low]
    }

    pub(crate) const fn from_bytes([high, middle, low]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, high, middle, low]))
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(number: u32) -> Result<Self, VniError> {
        Self::new(number)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.get()
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An error: the number or text is no VXLAN network identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VniError;

impl fmt::Display for VniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a VXLAN network identifier: give a whole number from 0 to {}", Vni::MAX)
    }
}

impl std::error::Error for VniError {}

impl FromStr for Vni {
    type Err = VniError;

    fn from_str(text: &str) -> Result<Self, VniError> {
        text.parse().map_err(|_| VniError).and_then(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_24_bits() {
        assert_eq!(Vni::new(0).map(Vni::get), Ok(0));
        assert_eq!(Vni::new(0xff_ffff), Ok(Vni::MAX));
        assert_eq!(Vni::new(0x100_0000), Err(VniError));
    }

    #[test]
    fn survives_text() {
        assert_eq!("4097".parse(), Vni::new(4097));
        assert_eq!(Vni::MAX.to_string().parse(), Ok(Vni::MAX));
        for text in ["", "-1", "16777216", "99999999999", "0x10", "one"] {
            assert_eq!(text.parse::<Vni>(), Err(VniError), "{text}");
        }
    }
}
