//! VXLAN (RFC 7348), pure.
#![forbid(unsafe_code)]
