//! Layers applied in memory, one on top of the other, as a container runtime does it (image-spec,
//! layer.md, "Applying changesets"). Everything that reads layers goes through here: to make a
//! commit, to inspect an image, or to compare two. A [`ContentSink`] decides what happens to the
//! content of files as it passes.

mod commit;

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::nodes::{Node, NodeId, NodeKind, Nodes, ROOT};
use crate::checksum::Checksum;
use crate::limits::Meter;
use crate::oci::read::{Entry, EntryKind, TarReader, clean_path};
use crate::tree::{Kind, Metadata, Xattrs, is_hint_xattr, normalize_xattrs};

pub(super) use commit::link_target;

/// The beginning of the names of whiteouts.
pub(super) const WHITEOUT: &str = ".wh.";
/// The whiteout of everything below a directory that lower layers have.
const OPAQUE: &str = ".wh..wh..opq";
/// The beginning of the names of what aufs keeps for itself at the root of a layer.
const AUFS: &str = ".wh..wh.";

/// A regular file that a layer brings.
#[derive(Debug)]
pub struct LayerFile<'a> {
    /// Its path from the root, without a leading slash.
    pub path: &'a str,
    /// What the layer says of it, as a commit has it.
    pub metadata: &'a Metadata,
}

/// Says what becomes of the content of files.
pub trait ContentSink {
    /// What is remembered of the content of a file. Hard links share it.
    type Handle: Clone;

    /// Takes in the content of a regular file, before it is known whether a later layer replaces
    /// it.
    ///
    /// # Errors
    /// When that fails.
    fn file(&mut self, file: &LayerFile<'_>, content: &mut dyn Read) -> Result<Self::Handle>;

    /// Takes in a symbolic link that is there when all layers are applied.
    ///
    /// # Errors
    /// When that fails.
    fn link(&mut self, metadata: &Metadata, target: &[u8]) -> Result<Self::Handle>;
}

/// What one member of a layer says of its path.
#[derive(Debug, Clone)]
pub enum LayerMember<C> {
    /// There is this directory.
    Directory(Metadata),
    /// There is this file.
    File(Metadata, C),
    /// There is this symbolic link, with its target.
    Symlink(Metadata, Box<[u8]>),
    /// There is one more name of the file at this path.
    HardLink(Box<str>),
    /// There is a fifo or a device node.
    Special(Metadata),
    /// What lower layers have at the name behind the prefix is not there.
    Whiteout,
    /// What lower layers have in its directory is not there.
    Opaque,
    /// Nothing.
    Nothing,
}

impl<C> LayerMember<C> {
    /// Bytes of names and attributes.
    fn len(&self) -> usize {
        let attributes = |metadata: &Metadata| {
            let lengths = metadata
                .xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len());
            lengths.sum::<usize>()
        };
        match self {
            Self::Directory(metadata) | Self::File(metadata, _) | Self::Special(metadata) => {
                attributes(metadata)
            }
            Self::Symlink(metadata, target) => attributes(metadata) + target.len(),
            Self::HardLink(target) => target.len(),
            Self::Whiteout | Self::Opaque | Self::Nothing => 0,
        }
    }
}

/// What the members of a layer say, in their order, each with its path.
pub type LayerMembers<C> = Vec<(Box<str>, LayerMember<C>)>;

/// The content objects of a commit below the layers, by their names: what layers may have hard
/// links to.
type LowerObjects<'a, C> = Box<dyn Fn(Checksum) -> Option<(Metadata, String, C)> + 'a>;

/// A file system as the layers so far make it.
pub struct Merged<'a, C> {
    nodes: Nodes<C>,
    lower_objects: Option<LowerObjects<'a, C>>,
    /// Attributes that are hints to us stay.
    keeps_hints: bool,
    /// The number of the layer that is applied, from 1.
    layer: u32,
}

impl<C: Clone> Default for Merged<'_, C> {
    fn default() -> Self {
        Self {
            nodes: Nodes::new(),
            lower_objects: None,
            keeps_hints: false,
            layer: 0,
        }
    }
}

impl<C: Clone> Merged<'_, C> {
    /// One whose files keep what users have said of them in attributes.
    pub fn with_hints() -> Self {
        Self {
            keeps_hints: true,
            ..Self::default()
        }
    }

    /// The root directory.
    pub fn root(&self) -> &Node<C> {
        self.nodes.get(ROOT)
    }

    /// Applies the next layer and gives its reader back.
    ///
    /// # Errors
    /// When a member cannot be applied: its name is told.
    pub fn apply<R: Read>(
        &mut self,
        layer: R,
        sink: &mut impl ContentSink<Handle = C>,
    ) -> Result<R> {
        self.layer += 1;
        let mut tar = TarReader::new(layer);
        while let Some(entry) = tar.next_entry()? {
            let path = clean_path(&entry.path)?;
            let apply = || {
                let member = self.read_member(&path, entry, &mut tar, sink)?;
                self.put(&path, member)
            };
            apply().with_context(|| format!("applying /{}", path.escape_debug()))?;
        }
        Ok(tar.into_inner())
    }

    /// Takes note of what the next layer says and gives its reader back: nothing is applied. What
    /// the notes take is counted.
    ///
    /// # Errors
    /// When a member cannot be read: its name is told.
    pub fn list<R: Read>(
        &mut self,
        layer: R,
        sink: &mut impl ContentSink<Handle = C>,
        meter: &mut Meter,
    ) -> Result<(LayerMembers<C>, R)> {
        self.layer += 1;
        let mut tar = TarReader::new(layer);
        let mut members = LayerMembers::new();
        while let Some(entry) = tar.next_entry()? {
            let path = clean_path(&entry.path)?;
            let read = || {
                let member = self.read_member(&path, entry, &mut tar, sink)?;
                meter.add(path.len() + member.len())?;
                anyhow::Ok(member)
            };
            let member = read().with_context(|| format!("reading /{}", path.escape_debug()))?;
            members.push((path.into(), member));
        }
        Ok((members, tar.into_inner()))
    }

    /// Applies the next layer, of which `members` was noted.
    ///
    /// # Errors
    /// When a member cannot be applied: its name is told.
    pub fn apply_members(&mut self, members: &LayerMembers<C>) -> Result<()> {
        self.layer += 1;
        for (path, member) in members {
            self.put(path, member.clone())
                .with_context(|| format!("applying /{}", path.escape_debug()))?;
        }
        Ok(())
    }

    /// What is at a path now; links are not followed.
    pub fn find(&self, path: &str) -> Option<&Node<C>> {
        self.nodes.find(path).map(|id| self.nodes.get(id))
    }

    /// All that is there but the root, each directory before what is in it, with its path, and what
    /// `other` has at that path.
    ///
    /// # Errors
    /// When `each` fails.
    pub fn walk<'b>(
        &'b self,
        other: Option<&'b Self>,
        each: impl FnMut(&str, &'b Node<C>, Option<&'b Node<C>>) -> Result<()>,
    ) -> Result<()> {
        self.nodes.walk(other.map(|other| &other.nodes), each)
    }

    /// The names in a directory, sorted; none when there is no directory.
    pub fn names(&self, path: &str) -> Option<Vec<String>> {
        let directory = self.find(path).filter(|node| node.is_dir())?;
        Some(
            directory
                .children
                .keys()
                .map(|name| name.to_string())
                .collect(),
        )
    }

    /// Lets `sink` take in the symbolic links, which it has not seen as they passed.
    ///
    /// # Errors
    /// When that fails.
    pub fn keep_links(&mut self, sink: &mut impl ContentSink<Handle = C>) -> Result<()> {
        for node in self.nodes.all_mut() {
            if node.kind == NodeKind::Known(Kind::Symlink) && node.kept.is_none() {
                node.kept = Some(sink.link(&node.metadata(), &node.target)?);
            }
        }
        Ok(())
    }

    /// Moves the directory at `/usr/etc`, where a commit has it, to `/etc`, where a system sees it,
    /// unless something is there.
    pub fn move_etc(&mut self) {
        if let Some(usr) = self.nodes.child(ROOT, "usr") {
            self.nodes.rename(usr, "etc", (ROOT, "etc"));
        }
    }

    /// How many nodes have been looked at so far: what time grows with.
    #[cfg(test)]
    pub fn steps(&self) -> u64 {
        self.nodes.steps()
    }

    /// What a member of the layer says, with its content taken in.
    fn read_member<R: Read>(
        &mut self,
        path: &str,
        mut entry: Entry,
        tar: &mut TarReader<R>,
        sink: &mut impl ContentSink<Handle = C>,
    ) -> Result<LayerMember<C>> {
        if !path.is_empty() {
            let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
            if name == OPAQUE {
                return Ok(LayerMember::Opaque);
            }
            if path.starts_with(AUFS) {
                return Ok(LayerMember::Nothing);
            }
            if name.starts_with(WHITEOUT) {
                return Ok(LayerMember::Whiteout);
            }
        }
        Ok(
            match std::mem::replace(&mut entry.kind, EntryKind::Directory) {
                EntryKind::Directory => {
                    LayerMember::Directory(self.metadata(&mut entry, Kind::Directory))
                }
                EntryKind::HardLink(target) => {
                    let target = clean_path(&target).context("the target of the hard link")?;
                    LayerMember::HardLink(target.into())
                }
                EntryKind::Symlink(target) => {
                    LayerMember::Symlink(self.metadata(&mut entry, Kind::Symlink), target.into())
                }
                EntryKind::Regular => {
                    let metadata = self.metadata(&mut entry, Kind::Regular);
                    let file = LayerFile {
                        path,
                        metadata: &metadata,
                    };
                    let kept = sink.file(&file, tar)?;
                    LayerMember::File(metadata, kept)
                }
                _ => LayerMember::Special(self.metadata(&mut entry, Kind::Regular)),
            },
        )
    }

    /// Does what a member of the layer says.
    fn put(&mut self, path: &str, member: LayerMember<C>) -> Result<()> {
        if path.is_empty() {
            let LayerMember::Directory(metadata) = member else {
                bail!("the root is not a directory");
            };
            let node = self.node(metadata, b"", None)?;
            self.say_of_directory(ROOT, node);
            return Ok(());
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let node = match member {
            LayerMember::Nothing => return Ok(()),
            LayerMember::Opaque => {
                if let Some(parent) = self.nodes.find(parent) {
                    self.nodes.remove_lower(parent, self.layer);
                }
                return Ok(());
            }
            LayerMember::Whiteout => {
                self.white_out(parent, name.strip_prefix(WHITEOUT).unwrap_or(name));
                return Ok(());
            }
            LayerMember::Directory(metadata) => {
                let parent = self.nodes.make_directory(parent, self.layer)?;
                let node = self.node(metadata, b"", None)?;
                match self.nodes.child(parent, name) {
                    Some(known) if self.nodes.get(known).is_dir() => {
                        self.say_of_directory(known, node);
                    }
                    _ => {
                        self.nodes.attach(parent, name, node)?;
                    }
                }
                return Ok(());
            }
            LayerMember::HardLink(target) => self.linked(&target)?,
            LayerMember::Symlink(metadata, target) => self.node(metadata, &target, None)?,
            LayerMember::File(metadata, kept) => self.node(metadata, b"", Some(kept))?,
            LayerMember::Special(metadata) => Node {
                kind: NodeKind::Special,
                ..self.node(metadata, b"", None)?
            },
        };
        let parent = self.nodes.make_directory(parent, self.layer)?;
        self.nodes.attach(parent, name, node)?;
        Ok(())
    }

    /// A node of this layer.
    fn node(&mut self, metadata: Metadata, target: &[u8], kept: Option<C>) -> Result<Node<C>> {
        Ok(Node {
            kind: NodeKind::Known(metadata.kind),
            permissions: metadata.permissions,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
            size: metadata.size,
            target: target.into(),
            xattrs: self.nodes.intern(metadata.xattrs)?,
            kept,
            is_named: true,
            ..self.nodes.directory(self.layer)
        })
    }

    /// What the layer says of a directory that is there.
    fn say_of_directory(&mut self, id: NodeId, said: Node<C>) {
        let node = self.nodes.get_mut(id);
        let (cleared, children) = (node.cleared, std::mem::take(&mut node.children));
        *node = Node {
            cleared,
            children,
            ..said
        };
    }

    /// What a member says of its file, as a commit has it; hints stay where they are asked for.
    fn metadata(&self, entry: &mut Entry, kind: Kind) -> Metadata {
        let mut xattrs: Xattrs = std::mem::take(&mut entry.xattrs);
        let is_kept = |name: &[u8]| self.keeps_hints && is_hint_xattr(name);
        let hints = xattrs.iter().filter(|(name, _)| is_kept(name));
        let hints: Xattrs = hints.cloned().collect();
        normalize_xattrs(&mut xattrs);
        xattrs.extend(hints);
        Metadata {
            kind,
            permissions: match kind {
                // Links have no permissions of their own (`S_IFLNK | 0777`).
                Kind::Symlink => 0o777,
                _ => entry.permissions,
            },
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            size: match kind {
                Kind::Regular => entry.size,
                _ => 0,
            },
            xattrs,
        }
    }

    /// A further name of the file at `clean`, also where that is an object of the commit below the
    /// layers.
    fn linked(&mut self, clean: &str) -> Result<Node<C>> {
        if let Some(first) = self.nodes.find(clean) {
            let first = self.nodes.get(first);
            ensure!(
                !first.is_dir(),
                "it is a hard link to the directory /{clean}"
            );
            return Ok(Node {
                layer: self.layer,
                reached: self.layer,
                cleared: self.layer,
                ..first.clone()
            });
        }
        let objects = self.lower_objects.as_ref();
        let object = super::unpack::content_object(clean);
        let found = objects
            .zip(object)
            .and_then(|(objects, name)| objects(name));
        let (metadata, target, kept) = found.with_context(|| {
            format!("it is a hard link to /{clean}, which is not there; the layer is damaged")
        })?;
        self.node(metadata, target.as_bytes(), Some(kept))
    }

    /// Removes what lower layers have at a name; what this layer has brought there stays, in a
    /// directory that is made anew unless the layer names it.
    fn white_out(&mut self, parent: &str, name: &str) {
        let Some(parent) = self.nodes.find(parent) else {
            return;
        };
        let Some(node) = self.nodes.child(parent, name) else {
            return;
        };
        if self.nodes.get(node).reached < self.layer {
            self.nodes.detach(parent, name);
        } else {
            self.nodes.forget_lower_metadata(node, self.layer);
            self.nodes.remove_lower(node, self.layer);
        }
    }
}

#[cfg(test)]
mod tests;
