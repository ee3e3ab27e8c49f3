//! Held addresses: those that endpoints of a host have, and that are not this host's to give.
//!
//! # Theory of operation
//! An operator may give up on a host that was only cut off (`vswitch cluster forget`), and its addresses are
//! another host's then. Its containers go on with those they have. So a host says with its subscription to a
//! network which addresses its endpoints have there that it does not own: everybody knows of them at once,
//! whether or not the endpoint itself is said, and gives them to nobody. An endpoint is not said where
//! another one with its address or MAC address was there first; both hosts see it then, by the records of
//! the one and the held addresses of the other, and say so.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_cluster::record::{More, Subscription};

/// The field of a subscription that has them.
const FIELD: &str = "held";

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The address.
    pub(crate) address: IpAddr,
    /// The sandbox that has it.
    pub(crate) sandbox: String,
}

impl Held {
    /// Addresses that a subscription says.
    pub(crate) fn read(more: &More) -> Vec<Self> {
        let said = more.get(FIELD).cloned().map(serde_json::from_value);
        // Nonsense, or the field of another vswitch: nothing that this one could keep free.
        said.and_then(Result::ok).unwrap_or_default()
    }

    /// The subscription that says them.
    pub(crate) fn subscription(held: &[Self]) -> Subscription {
        let mut more = More::new();
        if let Ok(value) = serde_json::to_value(held)
            && !held.is_empty()
        {
            more.insert(FIELD.to_owned(), value);
        }
        Subscription { more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_read_as_it_was_said_and_nonsense_is_nothing() {
        let held = [Held { address: IpAddr::from([10, 9, 0, 3]), sandbox: "web".to_owned() }];
        assert_eq!(Held::read(&Held::subscription(&held).more), held);
        assert_eq!(Held::subscription(&[]), Subscription::default());
        for nonsense in [serde_json::json!("x"), serde_json::json!([{ "address": "x" }])] {
            assert_eq!(Held::read(&More::from([(FIELD.to_owned(), nonsense)])), []);
        }
    }
}
