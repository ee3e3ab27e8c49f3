//! Why a benchmark cannot be run: one line that names the thing and the mend.

use std::io;

use vswitch_sys::netlink::NetlinkError;
use vswitch_traffic::TrafficError;

/// Why a benchmark cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// This machine lacks something.
    #[error("there is no {what} here; {mend}")]
    Missing {
        /// The thing it lacks.
        what: &'static str,
        /// The mend.
        mend: &'static str,
    },
    /// A program that a contender needs failed.
    #[error("{name} failed: {said}; {mend}")]
    Program {
        /// Its name.
        name: String,
        /// Its message.
        said: String,
        /// The mend.
        mend: &'static str,
    },
    /// A measurement failed.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A measurement of a contender failed.
    #[error("{metric} on {who}: {error}")]
    Measurement {
        /// The measurement.
        metric: String,
        /// The contender.
        who: String,
        /// Why it failed.
        error: TrafficError,
    },
    /// An interface could not be made.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The system refused something else.
    #[error(transparent)]
    System(#[from] io::Error),
    /// A file is not what it should be.
    #[error("{file}: {message}")]
    File {
        /// Its path.
        file: String,
        /// The fault in it.
        message: String,
    },
    /// A measurement gave something wrong, or not what it must be.
    #[error("{0}")]
    Fault(String),
}

impl BenchError {
    pub(crate) fn missing(what: &'static str, mend: &'static str) -> Self {
        Self::Missing { what, mend }
    }
}
