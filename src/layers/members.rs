//! What both formats share: entries as tar members, parents before children.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result};

use crate::oci::{Member, MemberKind, TarWriter};
use crate::ostree::ContentObjects;
use crate::progress::Progress;
use crate::tree::{Contents, EntryId, Tree};

/// What a layer is written from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// The content of its files.
    pub contents: &'a dyn Contents,
    /// Told of every byte of content.
    pub progress: &'a dyn Progress,
    /// Where the name of a file's object stands for its content: what is written then is no layer,
    /// but tells layers apart by all that decides their bytes.
    pub names: Option<&'a ContentObjects>,
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
    /// Begins a layer in `out`. Files are read through `buffer`.
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

    /// Writes the regular file `id` as `path`, attributes and content included.
    pub fn file(&mut self, id: EntryId, path: &str) -> Result<()> {
        let Source {
            tree,
            contents,
            progress,
            names,
        } = self.source;
        let size = tree.entry(id).size;
        let member = self.member(id, path, MemberKind::Regular(size));
        let xattrs = tree.content_xattrs(id);
        if size == 0 {
            return self.tar.append(&member, &xattrs);
        }
        let context = || format!("writing /{} to a layer", tree.path(id));
        if let Some(objects) = names {
            let name = objects.checksum(id);
            let named = self.tar.append_named(&member, &xattrs, name.as_bytes());
            return named.with_context(context);
        }
        let mut content = contents.open(tree, id)?;
        self.tar
            .append_content(&member, &xattrs, &mut content, self.buffer, &|read| {
                progress.advance(read)
            })
            .with_context(context)
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
