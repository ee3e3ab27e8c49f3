//! Tests of the translator: each requirement of RFC 4787, RFC 5382 and RFC 5508 that applies, published
//! ports, fragments, bad input, and two properties: there and back is the identity, and nothing leaks.

mod adversary;
mod churn;
mod fairness;
mod fragments;
mod gone;
mod hairpin;
mod identity;
mod limits;
mod model;
mod published;
mod restore;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod shortage;
mod support;

/// The table in docs/nat.md and the tests say the same.
#[test]
fn every_requirement_is_documented_with_its_test() {
    let document = include_str!("../../../docs/nat.md");
    let tests = [
        include_str!("fragments.rs"),
        include_str!("rfc4787.rs"),
        include_str!("rfc5382.rs"),
        include_str!("rfc5508.rs"),
    ];
    let written: Vec<&str> = document.split('`').filter(|text| text.starts_with("rfc")).collect();
    let names = tests.iter().flat_map(|text| text.split("fn ").skip(1));
    let tested: Vec<&str> =
        names.filter_map(|text| text.split('(').next()).filter(|name| name.starts_with("rfc")).collect();
    for name in &written {
        assert!(tested.contains(name), "docs/nat.md names {name}, which is no test");
    }
    for name in &tested {
        assert!(written.contains(name), "docs/nat.md lacks {name}");
    }
}
