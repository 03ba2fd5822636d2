//! Builds a tree from entries that somebody else lists (the layers of an image), by the same rules
//! as [`super::scan`], so that a rootfs becomes the same tree wherever it is read from.

use std::collections::HashMap;

use anyhow::{Result, bail};
use camino::Utf8Path;

use super::faults::Faults;
use super::odd::Oddities;
use super::scan::is_injected;
use super::{EntryId, Filter, Kind, Metadata, SpecialFiles, Tree, TreeBuilder};

/// One file, link, directory or special file.
#[derive(Debug)]
pub struct Listed<'a> {
    /// What it is like. Attributes are as a disk has them: those that are no content go, hints are
    /// understood.
    pub metadata: Metadata,
    /// Where a symbolic link points.
    pub target: &'a [u8],
    /// A special file, which no image can hold; its kind does not count then.
    pub is_special: bool,
    /// The file that it is a name of: those with the same number are hard links of each other.
    pub inode: Option<u64>,
}

/// Collects what was listed.
#[derive(Debug)]
pub struct ListedTree<'f> {
    filter: &'f Filter,
    builder: TreeBuilder,
    inodes: HashMap<u64, EntryId>,
    /// The directories on the way, the root first, by the length of their paths.
    way: Vec<(usize, EntryId)>,
    faults: Faults,
    odd: Oddities,
}

impl<'f> ListedTree<'f> {
    /// Begins with the root directory.
    pub fn new(root: Metadata, filter: &'f Filter) -> Self {
        Self {
            filter,
            builder: TreeBuilder::new(root),
            inodes: HashMap::new(),
            way: vec![(0, EntryId::ROOT)],
            faults: Faults::default(),
            odd: Oddities::new(),
        }
    }

    /// Adds what is at `path` (from the root, no leading slash), after the directory that it is in
    /// and all that is in that directory before it. Tells whether it is in the tree.
    ///
    /// # Errors
    /// When the tree becomes too large.
    pub fn push(&mut self, path: &str, listed: Listed<'_>) -> Result<bool> {
        if self.filter.excludes(path) {
            return Ok(false);
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        while self.way.last().is_some_and(|(len, _)| *len > parent.len()) {
            self.way.pop();
        }
        let Some((_, parent)) = self.way.last().copied() else {
            bail!("/{path} is in no directory");
        };
        let found = &listed.metadata;
        let is_regular = found.kind == Kind::Regular && !listed.is_special;
        let owner_and_mode = (found.uid, found.permissions);
        if is_regular && found.size == 0 && is_injected(Utf8Path::new(path), owner_and_mode) {
            tracing::debug!("left out /{path}: a container runtime has put it there");
            return Ok(false);
        }
        if listed.is_special {
            if self.filter.special_files == SpecialFiles::Skip {
                tracing::debug!("left out /{path}: it is a special file");
            } else {
                self.faults
                    .special(path, "a special file (a fifo or a device node)");
            }
            return Ok(false);
        }
        let Ok(target) = std::str::from_utf8(listed.target) else {
            self.faults.target(path);
            return Ok(false);
        };
        if is_regular {
            self.odd.see_name(name, Utf8Path::new(path), found.mtime);
        }
        let is_directory = found.kind == Kind::Directory;
        let id = self.builder.push(parent, name, target, listed.metadata)?;
        if is_directory {
            self.way.push((path.len(), id));
        }
        if let Some(inode) = listed.inode.filter(|_| is_regular) {
            let first = *self.inodes.entry(inode).or_insert(id);
            if first != id {
                self.builder.link(id, first);
            }
        }
        Ok(true)
    }

    /// The tree, and for each entry in the order in which they were added (the root first) its
    /// place there.
    ///
    /// # Errors
    /// When there are entries that no image can hold; `name` is what the user calls the whole.
    pub fn finish(self, name: &dyn std::fmt::Display) -> Result<(Tree, Vec<EntryId>)> {
        self.faults.check(name, &self.odd)?;
        self.filter.warn_of_unmatched();
        self.odd.tell();
        Ok(self.builder.finish())
    }
}
