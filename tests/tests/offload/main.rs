//! Coalescing and splitting: invisible, whatever the burst.

#![forbid(unsafe_code)]

mod round_trip;
mod split;
