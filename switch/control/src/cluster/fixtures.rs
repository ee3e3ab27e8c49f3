//! Two hosts and a network, for tests of what control makes of their records.

use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Endpoint, Host, HostId, Key, More, Record, Subscription, Value, Version};
use vswitch_cluster::{Options, SourceOptions, gossip, view};
use vswitch_frame::Mac;

use crate::cluster::member::Cluster;

pub(super) const ME: HostId = HostId::new([1; 16]);
pub(super) const OTHER: HostId = HostId::new([2; 16]);
pub(super) const NETWORK: Id = Id::new([3; 32]);

pub(super) fn vtep(host: HostId) -> IpAddr {
    IpAddr::from([192, 0, 2, if host == ME { 1 } else { 2 }])
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0x42, 10, 0, 0, last])
}

pub(super) fn said(key: Key, host: HostId, version: u64, value: Option<Value>) -> Record {
    Record { key, version: Version(version), host, value }
}

pub(super) fn is_at(host: HostId, vtep: IpAddr, version: u64) -> Record {
    let value = Value::Host(Host { name: format!("{host:?}"), vtep, more: More::new() });
    said(Key::Host(host), host, version, Some(value))
}

pub(super) fn subscribes(host: HostId, network: Id) -> Record {
    let value = Value::Subscription(Subscription::default());
    said(Key::Subscription(network, host), host, 1, Some(value))
}

/// An endpoint with the address 10.0.0.`address`.
pub(super) fn endpoint(host: HostId, last: u8, address: u8, version: u64) -> Record {
    let endpoint = Endpoint {
        sandbox: format!("sandbox{last}"),
        id: Id::new([last; 32]),
        addresses: vec![IpAddr::from([10, 0, 0, address])],
        vtep: vtep(host),
        names: vec![format!("sandbox{last}")],
        more: More::new(),
    };
    said(Key::Endpoint(NETWORK, mac(last)), host, version, Some(Value::Endpoint(endpoint)))
}

pub(super) fn gone(record: Record, version: u64) -> Record {
    Record { version: Version(version), value: None, ..record }
}

/// This host, with the network made here and another host on it.
pub(super) fn cluster() -> Cluster {
    let advertise = (vtep(ME), 1).into();
    let gossip = gossip::Options { key_file: "".into(), join: vec![], advertise, bind: None };
    let source = SourceOptions::Gossip(gossip);
    let options = Options { host: "a".to_owned(), name: "c".to_owned(), vtep: vtep(ME), source };
    let mut cluster = Cluster::new(ME, &options, view::channel().0, [].iter());
    cluster.here.insert(NETWORK, "wide".to_owned());
    let hosts =
        [ME, OTHER].into_iter().flat_map(|host| [is_at(host, vtep(host), 1), subscribes(host, NETWORK)]);
    hosts.for_each(|record| assert!(cluster.take_in(record)));
    cluster
}
