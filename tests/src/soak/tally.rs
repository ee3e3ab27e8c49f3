//! Counts of everything that a soak did, for its summary.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// Counts by name, and the longest of each wait. Threads share it.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<String, u64>>,
    longest: Mutex<BTreeMap<String, Duration>>,
    largest: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Counts something.
    ///
    /// # Panics
    /// When another thread did.
    pub fn count(&self, what: &str) {
        self.add(what, 1);
    }

    /// Counts several of something.
    ///
    /// # Panics
    /// When another thread did.
    pub fn add(&self, what: &str, many: u64) {
        *self.counts.lock().expect("no panic").entry(what.to_owned()).or_default() += many;
    }

    /// Notes how long something took.
    ///
    /// # Panics
    /// When another thread did.
    pub fn took(&self, what: &str, time: Duration) {
        let mut longest = self.longest.lock().expect("no panic");
        let known = longest.entry(what.to_owned()).or_default();
        *known = time.max(*known);
    }

    /// Notes how much there was of something.
    ///
    /// # Panics
    /// When another thread did.
    pub fn largest(&self, what: &str, many: u64) {
        let mut largest = self.largest.lock().expect("no panic");
        let known = largest.entry(what.to_owned()).or_default();
        *known = many.max(*known);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, many) in &*self.counts.lock().map_err(|_| fmt::Error)? {
            writeln!(f, "{many:>9}  {what}")?;
        }
        for (what, time) in &*self.longest.lock().map_err(|_| fmt::Error)? {
            writeln!(f, "{:>7.1} s  {what}, at most", time.as_secs_f64())?;
        }
        for (what, many) in &*self.largest.lock().map_err(|_| fmt::Error)? {
            writeln!(f, "{many:>9}  {what}, at most")?;
        }
        Ok(())
    }
}
