//! Records that remember which of them were touched, so that a commit writes just those and no operation
//! can forget to say what it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Records by name. They are read as a map is; what is inserted, lent to be changed or removed is touched.
#[derive(Debug)]
pub struct Records<T> {
    records: BTreeMap<String, T>,
    touched: BTreeSet<String>,
}

impl<T> Records<T> {
    /// Records that are as they were committed.
    pub fn committed(records: BTreeMap<String, T>) -> Self {
        Self { records, touched: BTreeSet::new() }
    }

    /// Puts a record in its place.
    pub fn insert(&mut self, name: String, record: T) {
        self.touched.insert(name.clone());
        self.records.insert(name, record);
    }

    /// A record, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let record = self.records.get_mut(name)?;
        self.touched.insert(name.to_owned());
        Some(record)
    }

    /// Changes parts of a record that are not written down but follow from others.
    pub fn derive(&mut self, name: &str, change: impl FnOnce(&mut T)) {
        if let Some(record) = self.records.get_mut(name) {
            change(record);
        }
    }

    /// Takes a record away.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        let record = self.records.remove(name)?;
        self.touched.insert(name.to_owned());
        Some(record)
    }

    /// Records touched since the last [`settle`](Self::settle): each as it is now, `None` if it is gone.
    pub fn changes(&self) -> BTreeMap<&str, Option<&T>> {
        self.touched.iter().map(|name| (name.as_str(), self.records.get(name))).collect()
    }

    /// Notes that the changes are committed.
    pub fn settle(&mut self) {
        self.touched.clear();
    }
}

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self::committed(BTreeMap::new())
    }
}

impl<T> Deref for Records<T> {
    type Target = BTreeMap<String, T>;

    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_a_change_until_it_is_settled() {
        let start = [("a", 1), ("b", 2), ("c", 3)].map(|(name, value)| (name.to_owned(), value));
        let mut records = Records::committed(start.into());
        assert!(records.changes().is_empty());
        records.insert("d".to_owned(), 4);
        *records.get_mut("a").expect("a") = 5;
        assert_eq!(records.remove("b"), Some(2));
        assert_eq!(records.remove("x"), None);
        assert_eq!(records["c"], 3);
        assert_eq!(records.changes(), [("a", Some(&5)), ("b", None), ("d", Some(&4))].into());
        records.settle();
        assert!(records.changes().is_empty());
        assert_eq!(records.len(), 3);
    }
}
