//! Commands that act on each of several names.

use std::fmt::Display;
use std::process::ExitCode;

use super::outcome::{Failure, Outcome};
use super::print::print;

/// Does something to each of several, and says which it was done to; complains about the others.
pub(super) async fn each<T: Display>(names: Vec<T>, act: impl AsyncFn(&T) -> Result<(), Failure>) -> Outcome {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match act(&name).await {
            Ok(()) => print(&format!("{name}\n")),
            Err(failure) => code = failure.complain(),
        }
    }
    Ok(code)
}
