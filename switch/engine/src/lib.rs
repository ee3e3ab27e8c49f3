//! The L2 switch, pure: admission, learning, lookup, isolation groups.
#![forbid(unsafe_code)]
