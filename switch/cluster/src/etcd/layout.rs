//! The keys of a cluster in etcd, and the ranges of them that a host follows. Pure.
//!
//! A host follows everything but two kinds of keys: endpoints of networks that it has no endpoint on, and
//! letters to others.

use super::super::id::Id;
use super::super::record::{HostId, Key};
use super::identity;
use super::wire::KeyRange;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The beginning of all keys of the cluster.
    pub(super) prefix: String,
    me: HostId,
}

impl Layout {
    pub(super) fn new(prefix: String, me: HostId) -> Self {
        Self { prefix, me }
    }

    /// The cluster's identity.
    pub(super) fn identity(&self) -> KeyRange {
        KeyRange::one(&format!("{}{}", self.prefix, identity::KEY))
    }

    /// Records that are no endpoints, in two ranges: those of a newer vswitch may be on either side.
    fn records(&self) -> [KeyRange; 2] {
        let key = |end: &str| format!("{}records{end}", self.prefix);
        [
            KeyRange::between(&key("/"), &key("/endpoint/")),
            // The byte after "/" is "0".
            KeyRange::between(&key("/endpoint0"), &key("0")),
        ]
    }

    /// Questions to this host.
    pub(super) fn asks(&self) -> KeyRange {
        KeyRange::prefix(&format!("{}asks/{}/", self.prefix, self.me))
    }

    /// Answers to this host: read last of those that every host follows.
    pub(super) fn answers(&self) -> KeyRange {
        KeyRange::prefix(&format!("{}answers/{}/", self.prefix, self.me))
    }

    /// The ranges that every host follows, in the order in which they must be read.
    pub(super) fn global(&self) -> [KeyRange; 5] {
        let [before, after] = self.records();
        [self.identity(), before, after, self.asks(), self.answers()]
    }

    /// The endpoints of a network.
    pub(super) fn endpoints(&self, network: Id) -> KeyRange {
        KeyRange::prefix(&format!("{}records/endpoint/{network}/", self.prefix))
    }

    /// The network whose endpoints a range is of.
    pub(super) fn network(&self, range: &KeyRange) -> Option<Id> {
        let start = str::from_utf8(&range.start).ok()?;
        let network =
            start.strip_prefix(&self.prefix)?.strip_prefix("records/endpoint/")?.strip_suffix('/')?;
        Id::try_from(network.to_owned()).ok()
    }

    /// The key of a record.
    pub(super) fn path(&self, key: &Key) -> String {
        format!("{}records/{key}", self.prefix)
    }

    /// The record of a key, if it is one's.
    pub(super) fn key(&self, path: &str) -> Option<Key> {
        let key = path.strip_prefix(&self.prefix)?.strip_prefix("records/")?;
        Some(Key::from(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use vswitch_frame::Mac;

    use super::*;

    #[test]
    fn every_record_is_in_one_range() {
        let (host, network) = (HostId::new([1; 16]), Id::new([2; 32]));
        let layout = Layout::new("/p/".to_owned(), host);
        let of = |ranges: &[KeyRange], path: &str| ranges.iter().filter(|range| range.contains(path)).count();
        let global = [
            Key::Host(host),
            Key::Network("front".to_owned()),
            Key::Vni(7),
            Key::Space(network, "10.0.0.0".parse().expect("address")),
            Key::Subscription(network, host),
            Key::Other("a".to_owned()),
            Key::Other("z/y".to_owned()),
        ];
        for key in global {
            let path = layout.path(&key);
            assert_eq!((of(&layout.global(), &path), layout.key(&path)), (1, Some(key)), "{path}");
        }
        let path = layout.path(&Key::Endpoint(network, Mac([2; 6])));
        assert_eq!((of(&layout.global(), &path), of(&[layout.endpoints(network)], &path)), (0, 1));
        assert_eq!(of(&[layout.endpoints(Id::new([3; 32]))], &path), 0);
        assert_eq!(layout.network(&layout.endpoints(network)), Some(network));
        assert!(layout.global().iter().all(|range| layout.network(range).is_none()));
        assert_eq!(of(&layout.global(), "/p/cluster"), 1);
        let other = HostId::new([9; 16]);
        for (path, count) in [
            (format!("/p/asks/{host}/{other}/7"), 1),
            (format!("/p/answers/{host}/7"), 1),
            (format!("/p/asks/{other}/{host}/7"), 0),
            (format!("/p/answers/{other}/7"), 0),
        ] {
            assert_eq!(of(&layout.global(), &path), count, "{path}");
            assert_eq!(layout.key(&path), None);
        }
    }
}
