//! The engine from outside: rules one by one, and random histories against a reference.

mod gateway;
mod guard;
mod model;
mod packets;
mod policy;
mod reference;
mod rules;
mod snooping;
mod support;
mod tunnel;
mod user_rules;
