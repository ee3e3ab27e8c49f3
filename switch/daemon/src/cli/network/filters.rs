//! Filters of networks, in Docker's form.

use std::collections::BTreeMap;

use super::super::client::path;
use super::super::outcome::Failure;

/// A route with filters as its query.
pub(super) fn with_filters(route: &str, filters: &[(String, String)]) -> Result<String, Failure> {
    if filters.is_empty() {
        return Ok(route.to_owned());
    }
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in filters {
        by_key.entry(key).or_default().push(value);
    }
    Ok(path(&format!("{route}?filters="), &serde_json::to_string(&by_key)?, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_a_query() {
        let filters = [("name", "a"), ("name", "b&")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let route = with_filters("/networks", &filters).expect("a route");
        assert_eq!(route, "/networks?filters=%7B%22name%22%3A%5B%22a%22%2C%22b%26%22%5D%7D");
        assert_eq!(with_filters("/networks", &[]).expect("a route"), "/networks");
    }
}
