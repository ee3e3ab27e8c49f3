//! The demo works on a machine where nothing is installed or configured, and leaves nothing.

use std::process::Command;

use vswitch_tests::namespace::must;

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let links = || must(Command::new("ip").args(["-o", "link"]));
    let before = links();
    let output = Command::new(super::VSWITCH).arg("demo").output().expect("vswitch starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for said in ["alpha", "static", "kernel bridge", "are gone again"] {
        assert!(text.contains(said), "{said:?} is missing: {text}");
    }
    assert_eq!(links(), before);
}
