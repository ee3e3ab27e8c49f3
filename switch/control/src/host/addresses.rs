//! Addresses of the host, told to the datapath whenever they change: containers reach the host by any of
//! them, and not only by their gateway's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use vswitch_contract::fact::Fact;
use vswitch_sys::netlink::Netlink;

use crate::host::changes::Changes;
use crate::link::Link;

/// Follows the addresses of the calling thread's namespace until it is dropped.
pub async fn follow(link: Link) {
    let mut changes = Changes::listen();
    let (mut told, mut said) = (None, None);
    loop {
        let outcome = tell(&link, &mut told).await.map_err(|error| error.to_string());
        if let Err(error) = &outcome
            && said.as_ref() != Some(error)
        {
            tracing::warn!(
                "containers do not reach all addresses of the host, which is tried again: {error}"
            );
        }
        changes.next(outcome.is_ok()).await;
        said = outcome.err();
    }
}

/// Tells the datapath of the addresses there are, if they are others than were told.
async fn tell(link: &Link, told: &mut Option<BTreeSet<IpAddr>>) -> io::Result<()> {
    let found = addresses()?;
    if told.as_ref() != Some(&found) {
        link.set(Fact::HostAddresses(found.iter().copied().collect())).await.map_err(io::Error::other)?;
        *told = Some(found);
    }
    Ok(())
}

/// The addresses others can reach the host by.
fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let all = Netlink::open()?.addresses().map_err(io::Error::other)?;
    Ok(all.into_iter().map(|address| address.net.addr()).filter(reachable).collect())
}

/// Whether an address means this host beyond the host and one link.
pub(crate) fn reachable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_this_host_elsewhere() {
        for (text, expected) in [
            ("192.0.2.1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("2001:db8::1", true),
            ("::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(reachable(&text.parse().expect("an address")), expected, "{text}");
        }
    }
}
