//! Everything a run measured, as it is written to and read from a file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::contender::who::Who;
use crate::error::BenchError;
use crate::figure::Figure;
use crate::machine::Machine;
use crate::road::Road;

/// Everything a run measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The way the traffic went.
    #[serde(default)]
    pub road: Road,
    /// The machine it ran on.
    pub machine: Machine,
    /// The date in UTC, as in 2026-11-20.
    pub date: String,
    /// The commit that was measured, with `-dirty` when files had changed since.
    pub commit: String,
    /// How often everything was measured.
    pub rounds: usize,
    /// How long each measurement took.
    pub seconds: f64,
    /// Every value, in the order of measurement.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The round, from 0.
    pub round: usize,
    /// The contender it is of.
    pub who: Who,
    /// The figure it is of.
    pub figure: Figure,
    /// The value, in the figure's unit.
    pub value: f64,
    /// Everything the traffic generators said.
    pub report: serde_json::Value,
}

impl Results {
    /// Contenders that were measured, the switch first.
    pub fn contenders(&self) -> Vec<Who> {
        let mut all: Vec<Who> = self.samples.iter().map(|sample| sample.who).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The values of a contender's figure, a round each.
    pub fn values(&self, who: Who, figure: Figure) -> Vec<f64> {
        let of = |sample: &&Sample| sample.who == who && sample.figure == figure;
        self.samples.iter().filter(of).map(|sample| sample.value).collect()
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let failed = |message: String| BenchError::File { file: path.display().to_string(), message };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("not results of c2c: {error}")))
    }
}
