//! The engine from outside: rules one by one, and random histories against a reference.

mod gateway;
mod model;
mod reference;
mod rules;
mod support;
