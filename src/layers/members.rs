//! What both formats share: entries as tar members, parents before children.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result, ensure};

use super::BUFFER;
use crate::checksum::Checksum;
use crate::oci::{Member, MemberKind, TarWriter};
use crate::ostree::{KnownObjects, ObjectHasher, content_checksum};
use crate::progress::{Progress, Silent};
use crate::tree::{Contents, EntryId, Tree};

/// What a layer is written from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// The content of its files.
    pub contents: &'a dyn Contents,
    /// The names of the files' objects, as far as they are known: what a layer reads it adds.
    pub objects: &'a KnownObjects,
    /// Told of every byte of content.
    pub progress: &'a dyn Progress,
    /// What is written of a file.
    pub written: WrittenContent,
}

/// What is written of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenContent {
    /// Its content. The name of its object is known then.
    Bytes,
    /// Its content, and nothing more is learnt of it.
    BytesAlone,
    /// The name of its object, which stands for the content: what comes of it is no layer, but
    /// tells layers apart by all that decides their bytes.
    Name,
}

/// A file whose content is in the buffer.
#[derive(Debug, Clone, Copy)]
pub struct BufferedFile {
    size: usize,
}

/// One layer being written.
pub struct LayerArchive<'a, W: Write> {
    /// Where the entries come from.
    pub source: Source<'a>,
    /// The archive.
    pub tar: TarWriter<W>,
    /// The time that an entry gets.
    mtime: &'a dyn Fn(EntryId) -> u64,
    directories: HashSet<EntryId>,
    buffer: &'a mut [u8],
}

impl<'a, W: Write> LayerArchive<'a, W> {
    /// Begins a layer in `out`. Files are read through `buffer`, of at least [`BUFFER`] bytes.
    pub fn new(
        source: Source<'a>,
        out: W,
        mtime: &'a dyn Fn(EntryId) -> u64,
        buffer: &'a mut [u8],
    ) -> Self {
        Self {
            source,
            tar: TarWriter::new(out),
            mtime,
            directories: HashSet::new(),
            buffer,
        }
    }

    /// Writes the directory `id`, unless the layer has it already, after those it is in.
    pub fn directory(&mut self, id: EntryId) -> Result<()> {
        if self.directories.contains(&id) {
            return Ok(());
        }
        let mut missing = vec![id];
        let mut at = id;
        while at != EntryId::ROOT {
            at = self.source.tree.entry(at).parent;
            if self.directories.contains(&at) {
                break;
            }
            missing.push(at);
        }
        for id in missing.into_iter().rev() {
            self.lone_directory(id)?;
        }
        Ok(())
    }

    /// Writes the directory `id` and nothing else.
    pub fn lone_directory(&mut self, id: EntryId) -> Result<()> {
        if self.directories.insert(id) {
            let path = match id {
                EntryId::ROOT => "./".into(),
                _ => self.source.tree.path(id),
            };
            self.entry(id, path.as_str(), MemberKind::Directory, true)?;
        }
        Ok(())
    }

    /// Writes entry `id` as `path` with the entry's own owner, mode and time, and its attributes
    /// where wanted, but without content.
    pub fn entry(
        &mut self,
        id: EntryId,
        path: &str,
        kind: MemberKind<'_>,
        xattrs: bool,
    ) -> Result<()> {
        let member = self.member(id, path, kind);
        match xattrs {
            true => self
                .tar
                .append(&member, &self.source.tree.content_xattrs(id)),
            false => self.tar.append(&member, &[]),
        }
    }

    /// Writes the regular file `id` as `path`, attributes and content included. It is read once.
    pub fn file(&mut self, id: EntryId, path: &str) -> Result<()> {
        let tree = self.source.tree;
        let size = tree.entry(id).size;
        let member = self.member(id, path, MemberKind::Regular(size));
        let xattrs = tree.content_xattrs(id);
        if size == 0 {
            return self.tar.append(&member, &xattrs);
        }
        match self.source.written {
            WrittenContent::Name => {
                let name = self.name(id)?;
                self.tar.append_named(&member, &xattrs, name.as_bytes())
            }
            WrittenContent::Bytes | WrittenContent::BytesAlone => {
                self.content(id, &member, &xattrs)
            }
        }
        .with_context(|| format!("writing /{} to a layer", tree.path(id)))
    }

    fn content(
        &mut self,
        id: EntryId,
        member: &Member<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let Source {
            tree,
            contents,
            objects,
            progress,
            written,
        } = self.source;
        let is_wanted = written == WrittenContent::Bytes && objects.get(tree, id).is_none();
        let mut hasher = is_wanted.then(|| ObjectHasher::new(tree, id));
        let mut content = contents.open(tree, id)?;
        let buffer = &mut self.buffer[..BUFFER];
        self.tar
            .append_content(member, xattrs, &mut content, buffer, &mut |piece| {
                if let Some(hasher) = &mut hasher {
                    hasher.update(piece);
                }
                Ok(progress.done(piece.len() as u64)?)
            })?;
        hasher.map_or(Ok(()), |hasher| objects.insert(tree, id, hasher.finish()))
    }

    /// Makes the name of the object of the regular file `id` known, by reading it where it must be.
    /// Where the buffer has its content then, that is for [`LayerArchive::buffered_file`].
    pub fn read(&mut self, id: EntryId) -> Result<Option<BufferedFile>> {
        let Source {
            tree,
            contents,
            objects,
            progress,
            ..
        } = self.source;
        let size = tree.entry(id).size;
        if size == 0 || objects.get(tree, id).is_some() {
            return Ok(None);
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size < self.buffer.len());
        let Some(size) = size else {
            // Read twice, and told of once.
            let buffer = &mut self.buffer[..BUFFER];
            let checksum = content_checksum(tree, contents, id, buffer, &Silent)?;
            objects.insert(tree, id, checksum)?;
            return Ok(None);
        };
        let mut hasher = ObjectHasher::new(tree, id);
        let mut content = contents.open(tree, id)?;
        let mut filled = 0;
        // A piece at a time, so that it is hashed while it is in the processor's cache. The buffer
        // has room for more than the file has: its end is seen.
        loop {
            let end = self.buffer.len().min(filled + BUFFER);
            let got = content
                .read(&mut self.buffer[filled..end])
                .with_context(|| format!("reading /{}", tree.path(id)))?;
            if got == 0 {
                break;
            }
            hasher.update(&self.buffer[filled..filled + got]);
            progress.done(got as u64)?;
            filled += got;
        }
        ensure!(
            filled == size,
            "/{} is {filled} bytes, not {size} as it was",
            tree.path(id)
        );
        objects.insert(tree, id, hasher.finish())?;
        Ok(Some(BufferedFile { size }))
    }

    /// Writes the file that the buffer holds as [`LayerArchive::file`] does.
    pub fn buffered_file(&mut self, id: EntryId, path: &str, buffered: BufferedFile) -> Result<()> {
        let tree = self.source.tree;
        let member = self.member(id, path, MemberKind::Regular(buffered.size as u64));
        self.tar
            .append_buffered(
                &member,
                &tree.content_xattrs(id),
                &self.buffer[..buffered.size],
            )
            .with_context(|| format!("writing /{} to a layer", tree.path(id)))
    }

    /// The name of the object of a file or link that has been read.
    pub fn name(&self, id: EntryId) -> Result<Checksum> {
        let tree = self.source.tree;
        let known = self.source.objects.get(tree, id);
        known.with_context(|| format!("/{} was not read", tree.path(id)))
    }

    fn member<'m>(&self, id: EntryId, path: &'m str, kind: MemberKind<'m>) -> Member<'m> {
        let entry = self.source.tree.entry(id);
        Member {
            path,
            kind,
            permissions: entry.permissions(),
            uid: entry.uid,
            gid: entry.gid,
            mtime: (self.mtime)(id),
        }
    }
}
