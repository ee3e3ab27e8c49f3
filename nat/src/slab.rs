//! Slabs: records of plain data in one vector, known by their numbers instead of pointers.
//!
//! A slab never shrinks. Records that are free are a list of its own, through a field of theirs.

/// No record.
pub(crate) const NONE: u32 = u32::MAX;

/// Appends a record, and returns its number.
pub(crate) fn append<T>(records: &mut Vec<T>, record: T) -> u32 {
    records.push(record);
    u32::try_from(records.len() - 1).unwrap_or(NONE)
}
