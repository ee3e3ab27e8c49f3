//! Views of several hosts in one etcd.
