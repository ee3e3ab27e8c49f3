//! What the tests share. The tests themselves are in the folder `tests/tests`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`repository`] | the repository's own files |
#![forbid(unsafe_code)]

pub mod repository;
