//! Tests of the translator: each requirement of RFC 4787, RFC 5382 and RFC 5508 that applies, published
//! ports, fragments, bad input, and two properties: there and back is the identity, and nothing leaks.

mod adversary;
mod fragments;
mod identity;
mod limits;
mod model;
mod published;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod support;
