//! `inspect`, of whatever noun.

use std::process::ExitCode;

use super::client::{Client, path};
use super::outcome::Outcome;
use super::print::print_json;

/// Shows as JSON those of several that are there, and complains about the others.
pub(super) async fn inspect(client: &Client, noun: &str, names: &[String]) -> Outcome {
    let mut found: Vec<serde_json::Value> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match client.get(&path(noun, name, "")).await {
            Ok(one) => found.push(one),
            Err(failure) => code = failure.complain(),
        }
    }
    print_json(&found)?;
    Ok(code)
}
