//! The tests that docs/vxlan.md names exist.

use vswitch_tests::repository;

/// Names of functions in the last column of the table of requirements.
fn named() -> Vec<String> {
    let document = repository::document("docs/vxlan.md");
    let rows = document.text.lines().filter(|line| line.starts_with('|'));
    let last = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next().map(str::to_owned));
    let is_name = |text: &&str| {
        text.contains('_')
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
    };
    last.flat_map(|cell| cell.split('`').filter(is_name).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = repository::documents("rs");
    let named = named();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let definition = format!("fn {name}()");
        assert!(sources.iter().any(|source| source.text.contains(&definition)), "no test {name}");
    }
}
