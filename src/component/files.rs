//! The files of a tree by path, for the dpkg module, which reads files through a trait and does not
//! depend on `tree`.

use std::io::Read;

use anyhow::{Context, Result, ensure};

use crate::dpkg::Files;
use crate::tree::{Contents, Kind, Tree};

/// More than the largest database: a hostile one must not fill the memory.
const MAX_SIZE: u64 = 256 << 20;

/// A tree with the means to read its files.
pub struct TreeFiles<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Where the content of its files comes from.
    pub contents: &'a dyn Contents,
}

impl Files for TreeFiles<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut reader) = self.open(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        reader
            .read_to_end(&mut content)
            .with_context(|| format!("reading {path} of the rootfs"))?;
        Ok(Some(content))
    }

    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>> {
        let Some(id) = self.tree.resolve(path) else {
            return Ok(None);
        };
        let entry = self.tree.entry(id);
        if entry.kind != Kind::Regular {
            return Ok(None);
        }
        let size = entry.size;
        ensure!(
            size <= MAX_SIZE,
            "{path} in the rootfs has {size} bytes; no package database is larger than {MAX_SIZE}"
        );
        Ok(Some(Box::new(self.contents.open(self.tree, id)?)))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let directory = self
            .tree
            .resolve(path)
            .filter(|id| self.tree.entry(*id).is_dir());
        Ok(directory.map(|id| {
            let children = self.tree.children(id).iter();
            children
                .map(|child| self.tree.name(*child).to_owned())
                .collect()
        }))
    }
}
