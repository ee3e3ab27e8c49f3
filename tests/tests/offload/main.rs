//! Coalescing and splitting: invisible, whatever the burst.

#![forbid(unsafe_code)]

mod golden;
mod round_trip;
mod split;
