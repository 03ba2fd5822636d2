//! Objects of an OSTree repository and their checksums (ostree(1), "ostree-core.h").

use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::content_cache::{CacheKey, ContentCache};
use super::gvariant::{self, Tuple};
use crate::checksum::Checksum;
use crate::parallel;
use crate::progress::Progress;
use crate::tree::{Contents, EntryId, FileIdentity, Kind, Metadata, Tree, Xattrs};

/// How much of a file is read at once.
const BUFFER: usize = 256 * 1024;

/// The checksum of the content object of every regular file and link of one tree. Files with
/// equal content, owner, mode and attributes are one object.
#[derive(Debug, Clone)]
pub struct ContentObjects {
    checksums: Arc<[Checksum]>,
}

impl ContentObjects {
    /// Reads every file of `tree` once, on `threads` threads, and computes its checksum; not those
    /// that `cache` knows, which is written when all is read.
    ///
    /// # Errors
    /// When a file cannot be read, or changes while it is.
    pub fn compute(
        tree: &Tree,
        contents: &dyn Contents,
        cache: Option<ContentCache>,
        threads: NonZeroUsize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        // Before the first file is read.
        let now = SystemTime::now();
        let mut jobs: Vec<EntryId> = tree
            .ids()
            .filter(|id| !tree.entry(*id).is_dir() && tree.inode(*id) == *id)
            .collect();
        // Largest first, so that no thread is left with one big file at the end.
        jobs.sort_by_key(|id| std::cmp::Reverse(tree.entry(*id).size));
        let total = jobs.iter().map(|id| tree.entry(*id).size);
        let from_cache = AtomicUsize::new(0);
        progress.begin("hashing files", total.fold(0, u64::saturating_add));
        let found = parallel::map(
            threads,
            &jobs,
            || vec![0; BUFFER],
            |buffer, id| {
                let header = content_header(tree, *id);
                let Some(cache) = &cache else {
                    let read = content_checksum(tree, contents, *id, &header, buffer, progress)?;
                    return Ok((read, None));
                };
                let identity = identity(tree, contents, *id);
                let key = identity.and_then(|identity| CacheKey::new(&identity, &header, now));
                if let Some(known) = key.and_then(|key| cache.get(key)) {
                    progress.advance(tree.entry(*id).size);
                    from_cache.fetch_add(1, Ordering::Relaxed);
                    return Ok((known, key));
                }
                let read = content_checksum(tree, contents, *id, &header, buffer, progress)?;
                Ok((read, key))
            },
        )?;
        progress.end();
        if let Some(cache) = cache {
            tracing::info!(
                "the cache knows {} of {} files and links",
                from_cache.into_inner(),
                jobs.len()
            );
            let named = found.iter();
            let named = named.filter_map(|(checksum, key)| Some(((*key)?, *checksum)));
            cache.store(&named.collect::<Vec<_>>());
        }
        let mut checksums = vec![Checksum::default(); tree.len()];
        for (id, (checksum, _)) in jobs.into_iter().zip(found) {
            checksums[id.index()] = checksum;
        }
        for id in tree.ids() {
            checksums[id.index()] = checksums[tree.inode(id).index()];
        }
        Ok(Self::known(checksums))
    }

    /// The objects of a tree that was made from them, by entry; what stands for directories does
    /// not count.
    pub fn known(checksums: Vec<Checksum>) -> Self {
        Self {
            checksums: checksums.into(),
        }
    }

    /// The checksum of the content object of a regular file or link.
    pub fn checksum(&self, id: EntryId) -> Checksum {
        self.checksums[id.index()]
    }

    /// The first entry, in canonical order, of every content object.
    pub fn first_entries(&self, tree: &Tree) -> HashMap<Checksum, EntryId> {
        let mut first = HashMap::new();
        for id in tree.ids().filter(|id| !tree.entry(*id).is_dir()) {
            first.entry(self.checksum(id)).or_insert(id);
        }
        first
    }
}

/// What tells a file at another time; nothing of one whose content takes no time to read.
fn identity(tree: &Tree, contents: &dyn Contents, id: EntryId) -> Option<FileIdentity> {
    let entry = tree.entry(id);
    let is_read = entry.kind == Kind::Regular && entry.size > 0;
    is_read.then(|| contents.identity(id)).flatten()
}

fn content_checksum(
    tree: &Tree,
    contents: &dyn Contents,
    id: EntryId,
    header: &[u8],
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<Checksum> {
    let mut hasher = Sha256::new();
    hasher.update(header);
    let entry = tree.entry(id);
    if entry.kind == Kind::Regular && entry.size > 0 {
        let mut content = contents.open(tree, id)?;
        loop {
            let got = content
                .read(buffer)
                .with_context(|| format!("hashing /{}", tree.path(id)))?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
            progress.advance(got as u64);
        }
    }
    Ok(Checksum::finish(hasher))
}

/// What is hashed before the content: the size (big-endian), four bytes of padding, and
/// `(uuuusa(ayay))`: owner, group, mode, 0 (rdev), the link's target, attributes.
pub fn content_header(tree: &Tree, id: EntryId) -> Vec<u8> {
    let entry = tree.entry(id);
    let numbers = [entry.uid, entry.gid, entry.mode()];
    framed_header(numbers, tree.target(id), tree.xattrs(id))
}

/// The same of a file that is in no tree.
pub fn content_header_of(metadata: &Metadata, target: &str) -> Vec<u8> {
    let mode = metadata.kind.type_bits() | metadata.permissions;
    framed_header([metadata.uid, metadata.gid, mode], target, &metadata.xattrs)
}

fn framed_header([uid, gid, mode]: [u32; 3], target: &str, xattrs: &Xattrs) -> Vec<u8> {
    let mut header = Tuple::default();
    for number in [uid, gid, mode, 0] {
        header.bytes(&number.to_be_bytes());
    }
    header.string(target);
    header.bytes(&gvariant::xattrs(xattrs));
    let header = header.finish();
    let mut framed = (header.len() as u32).to_be_bytes().to_vec();
    framed.extend([0; 4]);
    framed.extend(header);
    framed
}

/// A dirmeta object, `(uuua(ayay))`: owner, group, mode, attributes.
pub fn dirmeta(tree: &Tree, id: EntryId) -> Vec<u8> {
    let entry = tree.entry(id);
    let mut object = Tuple::default();
    for number in [entry.uid, entry.gid, entry.mode()] {
        object.bytes(&number.to_be_bytes());
    }
    object.bytes(&gvariant::xattrs(tree.xattrs(id)));
    object.finish()
}

/// The dirmeta object of a directory of root, 0755, without attributes.
pub fn default_dirmeta() -> Vec<u8> {
    let mut object = Tuple::default();
    for number in [0u32, 0, Kind::Directory.type_bits() | 0o755] {
        object.bytes(&number.to_be_bytes());
    }
    object.finish()
}

/// A directory in a dirtree object: name, checksum of its dirtree, checksum of its dirmeta.
pub type SubDirectory<'a> = (&'a str, Checksum, Checksum);

/// A dirtree object, `(a(say)a(sayay))`: files and directories, each sorted by name.
pub fn dirtree(files: &[(&str, Checksum)], directories: &[SubDirectory<'_>]) -> Vec<u8> {
    let files = files.iter().map(|(name, content)| {
        let mut file = Tuple::default();
        file.string(name).bytes(content.as_bytes());
        file.finish()
    });
    let directories = directories.iter().map(|(name, dirtree, dirmeta)| {
        let mut directory = Tuple::default();
        directory
            .string(name)
            .bytes(dirtree.as_bytes())
            .end_member();
        directory.bytes(dirmeta.as_bytes());
        directory.finish()
    });
    let mut object = Tuple::default();
    object.bytes(&gvariant::array(files)).end_member();
    object.bytes(&gvariant::array(directories));
    object.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that stand in every OSTree repository.
    #[test]
    fn well_known_objects_have_their_names() {
        assert_eq!(
            Checksum::of(&dirtree(&[], &[])).to_string(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "the empty dirtree"
        );
        assert_eq!(
            Checksum::of(&default_dirmeta()).to_string(),
            "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488",
            "the dirmeta of a directory of root, 0755"
        );
    }
}
