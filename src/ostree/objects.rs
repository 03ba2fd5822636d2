//! Objects of an OSTree repository and their checksums (ostree(1), "ostree-core.h").

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::content_cache::{CacheKey, ContentCache};
use super::gvariant::{self, Tuple};
use super::stored::FileHeader;
use crate::checksum::Checksum;
use crate::parallel;
use crate::progress::Progress;
use crate::tree::{Contents, EntryId, Kind, Metadata, Tree, Xattrs};

/// How much of a file is read at once.
const BUFFER: usize = 256 * 1024;

/// The checksum of the content object of every regular file and link of one tree. Files with
/// equal content, owner, mode and attributes are one object.
#[derive(Debug, Clone)]
pub struct ContentObjects {
    /// By entry, all of them set.
    checksums: Checksums,
}

/// One for each entry of a tree; a table that a system's whole life shares.
type Checksums = Arc<[OnceLock<Checksum>]>;

impl ContentObjects {
    /// The objects of a tree that was made from them, by entry; what stands for directories does
    /// not count.
    pub fn known(checksums: Vec<Checksum>) -> Self {
        Self {
            checksums: checksums.into_iter().map(OnceLock::from).collect(),
        }
    }

    /// The checksum of the content object of a regular file or link.
    pub fn checksum(&self, id: EntryId) -> Checksum {
        self.checksums[id.index()]
            .get()
            .copied()
            .unwrap_or_default()
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

/// The checksums of content objects that are known while files are being read: those of links and
/// empty files from the beginning, others once somebody has read the file, for whatever reason.
#[derive(Debug)]
pub struct KnownObjects {
    /// By entry; hard links of one file have one, until all are complete.
    checksums: Checksums,
}

impl KnownObjects {
    /// Those of the links and empty files of `tree`.
    pub fn without_content(tree: &Tree) -> Self {
        let checksum = |id| {
            let entry = tree.entry(id);
            let is_short = !entry.is_dir() && !has_content(tree, id) && tree.inode(id) == id;
            match is_short {
                true => Checksum::of(&content_header(tree, id)).into(),
                false => OnceLock::new(),
            }
        };
        Self {
            checksums: tree.ids().map(checksum).collect(),
        }
    }

    /// All of a tree.
    pub fn all(objects: &ContentObjects) -> Self {
        Self {
            checksums: objects.checksums.clone(),
        }
    }

    /// The checksum of a regular file or link of `tree`, where it is known.
    pub fn get(&self, tree: &Tree, id: EntryId) -> Option<Checksum> {
        self.checksums[tree.inode(id).index()].get().copied()
    }

    /// Takes the checksum of a file that has been read.
    ///
    /// # Errors
    /// When somebody else has read something else.
    pub fn insert(&self, tree: &Tree, id: EntryId, checksum: Checksum) -> Result<()> {
        let known = self.checksums[tree.inode(id).index()].get_or_init(|| checksum);
        ensure!(
            *known == checksum,
            "/{} changed while it was read; nothing may write to the rootfs during a build",
            tree.path(id)
        );
        Ok(())
    }

    /// Hashes those of `files` whose objects are not known, on `threads` threads; what `cache`
    /// knows is not read. The cache is written when all is.
    ///
    /// # Errors
    /// When a file cannot be read, or changes while it is.
    pub fn hash_files(
        &self,
        tree: &Tree,
        contents: &dyn Contents,
        files: impl Iterator<Item = EntryId>,
        cache: Option<ContentCache>,
        threads: NonZeroUsize,
        progress: &dyn Progress,
    ) -> Result<()> {
        // Before the first file is read.
        let now = SystemTime::now();
        let unread = files.filter(|id| has_content(tree, *id) && self.get(tree, *id).is_none());
        let mut jobs: Vec<EntryId> = unread.map(|id| tree.inode(id)).collect();
        jobs.sort_unstable();
        jobs.dedup();
        if jobs.is_empty() && cache.is_none() {
            return Ok(());
        }
        // Largest first, so that no thread is left with one big file at the end.
        jobs.sort_by_key(|id| Reverse(tree.entry(*id).size));
        let total = jobs.iter().map(|id| tree.entry(*id).size);
        let from_cache = AtomicUsize::new(0);
        progress.begin("hashing files", total.fold(0, u64::saturating_add));
        let found = parallel::map(
            threads,
            &jobs,
            || vec![0; BUFFER],
            |buffer, id| {
                let identity = cache.as_ref().and_then(|_| contents.identity(tree, *id));
                let key = identity
                    .and_then(|identity| CacheKey::new(&identity, &content_header(tree, *id), now));
                let known = cache
                    .as_ref()
                    .zip(key)
                    .and_then(|(cache, key)| cache.get(key));
                let checksum = match known {
                    Some(known) => {
                        progress.done(tree.entry(*id).size)?;
                        from_cache.fetch_add(1, Ordering::Relaxed);
                        known
                    }
                    None => content_checksum(tree, contents, *id, buffer, progress)?,
                };
                self.insert(tree, *id, checksum)?;
                // Without a cache there is none, in as little memory as there can be.
                Ok(key.map(|key| Box::new((key, checksum))))
            },
        )?;
        progress.end();
        if let Some(cache) = cache {
            tracing::info!(
                "the cache knows {} of {} files",
                from_cache.into_inner(),
                jobs.len()
            );
            let found = found.into_iter().flatten();
            cache.store(&found.map(|found| *found).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// All of `tree`.
    ///
    /// # Errors
    /// When a file has not been read.
    pub fn complete(&self, tree: &Tree) -> Result<ContentObjects> {
        for id in tree.ids().filter(|id| !tree.entry(*id).is_dir()) {
            let Some(known) = self.get(tree, id) else {
                bail!("/{} was not read", tree.path(id));
            };
            self.checksums[id.index()].get_or_init(|| known);
        }
        Ok(ContentObjects {
            checksums: self.checksums.clone(),
        })
    }
}

/// Whether an entry is a file that is not empty.
fn has_content(tree: &Tree, id: EntryId) -> bool {
    let entry = tree.entry(id);
    entry.kind == Kind::Regular && entry.size > 0
}

/// Hashes the content object of one regular file.
pub struct ObjectHasher(Sha256);

impl ObjectHasher {
    /// Begins with what is hashed before the content of file `id`.
    pub fn new(tree: &Tree, id: EntryId) -> Self {
        Self(Sha256::new_with_prefix(content_header(tree, id)))
    }

    /// Takes the next piece of the content.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The checksum of the object.
    pub fn finish(self) -> Checksum {
        Checksum::finish(self.0)
    }
}

/// Reads file `id` through `buffer`.
///
/// # Errors
/// When it cannot be read, or changes meanwhile.
pub fn content_checksum(
    tree: &Tree,
    contents: &dyn Contents,
    id: EntryId,
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<Checksum> {
    let mut hasher = ObjectHasher::new(tree, id);
    let mut content = contents.open(tree, id)?;
    loop {
        let got = content
            .read(buffer)
            .with_context(|| format!("hashing /{}", tree.path(id)))?;
        if got == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..got]);
        progress.done(got as u64)?;
    }
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

/// The same of an object that is read or written.
pub fn content_header_of_object(header: &FileHeader) -> Vec<u8> {
    let numbers = [header.uid, header.gid, header.mode()];
    framed_header(numbers, &header.target, &header.xattrs)
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
