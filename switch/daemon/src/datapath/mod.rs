//! The confined process: the poll loop that moves every frame.

pub mod command;
