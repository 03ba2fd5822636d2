//! Bounds the size of a commit before anybody walks it. Dirtrees are shared by checksum, so a few
//! small objects can describe more files, and longer paths, than any machine can hold. Each dirtree
//! is visited once here, however often it is named.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::parse::ParsedDirtree;
use crate::checksum::Checksum;
use crate::limits::{ENTRIES, METADATA_BYTES, PATH_BYTES};

/// What is below a directory.
#[derive(Debug, Clone, Copy, Default)]
struct Below {
    /// Files and directories.
    entries: u64,
    /// Bytes of their names.
    names: u64,
    /// Bytes of the longest path from there.
    path: u64,
}

impl Below {
    fn add(&mut self, name: &str, below: Self) -> Result<()> {
        let len = name.len() as u64;
        self.entries = self.entries.saturating_add(below.entries).saturating_add(1);
        self.names = self.names.saturating_add(below.names).saturating_add(len);
        let slash = u64::from(below.path > 0);
        self.path = self.path.max(len + slash + below.path);
        ensure_entries(self.entries)?;
        ensure_path(self.path)?;
        ensure!(
            self.names <= METADATA_BYTES,
            "its names take more than {METADATA_BYTES} bytes, which no system's do"
        );
        Ok(())
    }
}

/// A directory that is being looked at.
struct Open {
    checksum: Checksum,
    sum: Below,
    /// Its directories that are still to be added.
    directories: Vec<(String, Checksum)>,
}

/// What a commit has before the paths of `/etc`, in bytes: they lie at `/usr/etc` there.
const USR: usize = 4;

/// Checks that the tree below dirtree `root` is no larger than a file system may be. `list` gives
/// what a dirtree lists, nothing for one that is missing; it is called once for each. Gives the
/// number of directories that were looked at.
///
/// # Errors
/// When there are too many entries or too long paths, or `list` fails.
pub fn check_extent(
    root: Checksum,
    list: impl FnMut(Checksum) -> Result<Option<ParsedDirtree>>,
) -> Result<usize> {
    let mut walk = Walk {
        list,
        known: HashMap::new(),
        listed: 0,
        open: Vec::new(),
    };
    walk.open(root)?;
    while let Some(top) = walk.open.last_mut() {
        let Some((name, checksum)) = top.directories.last() else {
            walk.known.insert(top.checksum, top.sum);
            walk.open.pop();
            continue;
        };
        match walk.known.get(checksum) {
            Some(below) => {
                top.sum.add(name, *below)?;
                top.directories.pop();
            }
            None => {
                let checksum = *checksum;
                walk.open(checksum)?;
            }
        }
    }
    Ok(walk.known.len())
}

struct Walk<L> {
    list: L,
    known: HashMap<Checksum, Below>,
    /// Entries of all directories that were looked at.
    listed: u64,
    /// The directories on the way, the root first.
    open: Vec<Open>,
}

impl<L: FnMut(Checksum) -> Result<Option<ParsedDirtree>>> Walk<L> {
    fn open(&mut self, checksum: Checksum) -> Result<()> {
        let listed = (self.list)(checksum)?.unwrap_or_default();
        self.listed += (listed.files.len() + listed.directories.len()) as u64;
        ensure_entries(self.listed)?;
        ensure_path(self.open.len() as u64)?;
        let mut sum = Below::default();
        for (name, _) in &listed.files {
            sum.add(name, Below::default())?;
        }
        let directories = listed.directories.into_iter();
        self.open.push(Open {
            checksum,
            sum,
            directories: directories.map(|(name, below, _)| (name, below)).collect(),
        });
        Ok(())
    }
}

fn ensure_entries(count: u64) -> Result<()> {
    ensure!(
        count <= ENTRIES,
        "it has more than {ENTRIES} files and directories, which no system has"
    );
    Ok(())
}

fn ensure_path(bytes: u64) -> Result<()> {
    ensure!(
        bytes <= (PATH_BYTES + USR) as u64,
        "it has paths of more than {PATH_BYTES} bytes, and no path is longer"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(number: usize) -> Checksum {
        Checksum::of(&number.to_le_bytes())
    }

    /// Directories of which each names the next `width` times.
    fn chain(depth: usize, width: usize) -> Result<usize> {
        let next: HashMap<Checksum, usize> = (0..depth).map(|at| (name(at), at + 1)).collect();
        let mut calls = 0;
        let found = check_extent(name(0), |checksum| {
            calls += 1;
            let next = next.get(&checksum).copied();
            let names = (0..width).map(|at| format!("{at:07}"));
            let below = next.map(|next| names.map(|n| (n, name(next), name(0))).collect());
            Ok(below.map(|directories| ParsedDirtree {
                directories,
                files: Vec::new(),
            }))
        });
        assert!(calls <= depth + 1, "{calls} of {depth}");
        found
    }

    #[test]
    fn shared_directories_are_looked_at_once() {
        assert_eq!(chain(3, 100).unwrap(), 4);
        assert_eq!(chain(500, 1).unwrap(), 501);
        for (depth, width) in [(4, 100), (64, 2), (2, 100_000)] {
            let error = match chain(depth, width) {
                Err(error) => error.to_string(),
                Ok(found) => {
                    assert_eq!((depth, width, found), (2, 100_000, 3));
                    continue;
                }
            };
            assert!(error.contains("4194304"), "{error}");
        }
        for depth in [520, 100_000] {
            let error = chain(depth, 1).unwrap_err().to_string();
            assert!(error.contains("more than 4095 bytes"), "{error}");
        }
    }
}
