//! A number, or none, for each entry of a tree.

use crate::tree::EntryId;

/// In four bytes each, where an `Option` takes eight.
#[derive(Debug)]
pub(super) struct Numbers(Vec<u32>);

/// No position in a table: a tree has fewer entries, and they have fewer owners.
const NONE: u32 = u32::MAX;

impl Numbers {
    /// That of an entry.
    pub(super) fn get(&self, id: EntryId) -> Option<u32> {
        Some(self.0[id.index()]).filter(|number| *number != NONE)
    }
}

impl FromIterator<Option<u32>> for Numbers {
    fn from_iter<I: IntoIterator<Item = Option<u32>>>(numbers: I) -> Self {
        let numbers = numbers.into_iter();
        Self(numbers.map(|number| number.unwrap_or(NONE)).collect())
    }
}
