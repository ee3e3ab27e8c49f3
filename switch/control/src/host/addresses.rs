//! Addresses of the host, told to the datapath whenever they change: containers reach the host by any of
//! them, and not only by their gateway's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use tokio::io::Interest;
use vswitch_contract::fact::Fact;
use vswitch_sys::netlink::Netlink;
use vswitch_sys::netlink::watch::AddressWatch;

use crate::link::Link;

/// Follows the addresses of the calling thread's namespace until it is dropped.
pub async fn follow(link: Link) {
    if let Err(error) = try_follow(&link).await {
        tracing::warn!("containers reach the host at gateway addresses only: {error}");
    }
}

async fn try_follow(link: &Link) -> io::Result<()> {
    // The watch comes first, so that no change falls between it and the first look.
    let watch = AddressWatch::open()?.into_async()?;
    let mut told = BTreeSet::new();
    loop {
        let found = addresses()?;
        if found != told {
            told = found;
            if let Err(error) = link.set(Fact::HostAddresses(told.iter().copied().collect())).await {
                tracing::warn!("the datapath was not told of the host's addresses: {error}");
            }
        }
        watch.async_io(Interest::READABLE, AddressWatch::heard).await?;
    }
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
