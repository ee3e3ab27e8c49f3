//! Traffic generators and the namespaces they run in.
