//! Our parser and our checksum against others that know nothing of us.

#![forbid(unsafe_code)]

mod checksum;
mod headers;
