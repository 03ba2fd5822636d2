//! The times of files in a plain image. Clients fetch a layer again when one of its times has
//! changed, so times must not tell when a build ran.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

use crate::component::Ownership;
use crate::tree::{EntryId, Kind, Tree};

/// Which times the files of a plain image have. Directories, links, and what is made anew on every
/// system, always have the time 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileTimes {
    /// Their own, as far as a package gave it or it is not after the image's date.
    ///
    /// A time after the date mostly tells when the build ran, and then is 0. A package's build,
    /// too, can be later than the date, but it gives all files that it makes one time: so what two
    /// files of a source have to the second is theirs. Nothing but whether a time is after the date
    /// depends on the date.
    #[default]
    Keep,
    /// Their own, but never after the image's date: another date changes what is newer.
    Clamp,
    /// 0.
    Zero,
}

impl FileTimes {
    /// The rule of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "keep" => Self::Keep,
            "clamp" => Self::Clamp,
            "zero" => Self::Zero,
            _ => bail!("write keep, clamp or zero"),
        })
    }
}

/// The times of the files of one image.
pub struct Times<'a> {
    tree: &'a Tree,
    ownership: &'a Ownership,
    rule: FileTimes,
    date: u64,
    /// Times after the date that two files of a source have.
    given: HashSet<(u32, i64)>,
}

impl<'a> Times<'a> {
    /// Those of an image of `tree` that is of `date`.
    pub fn new(tree: &'a Tree, ownership: &'a Ownership, rule: FileTimes, date: u64) -> Self {
        let mut counts: HashMap<(u32, i64), u32> = HashMap::new();
        if rule == FileTimes::Keep {
            for id in tree.ids() {
                let entry = tree.entry(id);
                let is_late = entry.kind == Kind::Regular
                    && tree.inode(id) == id
                    && u64::try_from(entry.mtime).is_ok_and(|time| time > date);
                if let (true, Some(source)) = (is_late, ownership.unpacked_from(id)) {
                    *counts.entry((source, entry.mtime)).or_default() += 1;
                }
            }
        }
        let shared = counts.into_iter().filter(|(_, count)| *count > 1);
        Self {
            tree,
            ownership,
            rule,
            date,
            given: shared.map(|(given, _)| given).collect(),
        }
    }

    /// The time of an entry, in seconds since the epoch.
    pub fn of(&self, id: EntryId) -> u64 {
        let entry = self.tree.entry(id);
        if entry.kind != Kind::Regular || self.ownership.is_generated(id) {
            return 0;
        }
        // A time before the epoch has no portable form in a tar header.
        let time = u64::try_from(entry.mtime).unwrap_or(0);
        match self.rule {
            FileTimes::Zero => 0,
            FileTimes::Clamp => time.min(self.date),
            FileTimes::Keep if time <= self.date => time,
            FileTimes::Keep => match self.ownership.unpacked_from(self.tree.inode(id)) {
                Some(source) if self.given.contains(&(source, entry.mtime)) => time,
                _ => 0,
            },
        }
    }
}
