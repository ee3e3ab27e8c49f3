//! Network address translation, pure.
#![forbid(unsafe_code)]
