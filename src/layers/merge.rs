//! Layers applied one on the other, as a container runtime does (image-spec, layer.md, "Applying
//! changesets"), in memory: content goes into a repository as it comes.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::unpack::link_target;
use crate::checksum::Checksum;
use crate::oci::read::{Entry, EntryKind, TarReader, clean_path};
use crate::ostree::{ContentObjects, FileHeader, MAX_DEPTH, NewFile, Transaction};
use crate::tree::{
    EntryId, Filter, Kind, Metadata, SpecialFiles, Tree, TreeBuilder, normalize_xattrs,
};

/// The beginning of the names of whiteouts.
const WHITEOUT: &str = ".wh.";
/// The whiteout of everything below a directory that lower layers have.
const OPAQUE: &str = ".wh..wh..opq";

/// A file system as the layers so far make it.
pub struct Merged {
    nodes: Vec<Node>,
    filter: Filter,
    /// The number of the layer that is applied.
    layer: u32,
}

type NodeId = usize;
const ROOT: NodeId = 0;

struct Node {
    metadata: Metadata,
    target: String,
    /// The content object of a file or link.
    object: Checksum,
    children: BTreeMap<String, NodeId>,
    /// The layer that it, or its metadata, is from.
    layer: u32,
    /// The last layer that has something below it.
    reached: u32,
}

impl Node {
    fn directory(metadata: Metadata, layer: u32) -> Self {
        Self {
            metadata,
            target: String::new(),
            object: Checksum::default(),
            children: BTreeMap::new(),
            layer,
            reached: layer,
        }
    }

    fn is_dir(&self) -> bool {
        self.metadata.kind == Kind::Directory
    }
}

impl Merged {
    /// Nothing but a root directory; what `filter` leaves out never comes in.
    pub fn new(filter: Filter) -> Self {
        Self {
            nodes: vec![Node::directory(Metadata::directory(0o755), 0)],
            filter,
            layer: 0,
        }
    }

    /// Starts from a tree whose objects are in the repository already.
    pub fn on(tree: &Tree, objects: &ContentObjects, filter: Filter) -> Self {
        let mut merged = Self::new(filter);
        let mut ids: Vec<NodeId> = Vec::with_capacity(tree.len());
        for id in tree.ids() {
            let entry = tree.entry(id);
            let node = Node {
                metadata: Metadata {
                    kind: entry.kind,
                    permissions: entry.permissions(),
                    uid: entry.uid,
                    gid: entry.gid,
                    mtime: 0,
                    size: entry.size,
                    xattrs: tree.xattrs(id).clone(),
                },
                target: tree.target(id).to_owned(),
                object: objects.checksum(id),
                children: BTreeMap::new(),
                layer: 0,
                reached: 0,
            };
            if id == EntryId::ROOT {
                merged.nodes[ROOT] = node;
                ids.push(ROOT);
            } else {
                let parent = ids[entry.parent.index()];
                ids.push(merged.attach(parent, tree.name(id).to_owned(), node));
            }
        }
        merged
    }

    /// Applies the next layer and gives its reader back.
    ///
    /// # Errors
    /// When a member cannot be applied or has no place in a commit: its name is told.
    pub fn apply<R: Read>(&mut self, layer: R, transaction: &mut Transaction<'_>) -> Result<R> {
        self.layer += 1;
        let mut tar = TarReader::new(layer);
        while let Some(entry) = tar.next_entry()? {
            let path = clean_path(&entry.path)?;
            self.member(&path, &entry, &mut tar, transaction)
                .with_context(|| format!("applying /{}", path.escape_debug()))?;
        }
        Ok(tar.into_inner())
    }

    /// The tree, with the objects of its files.
    ///
    /// # Errors
    /// When it is too large.
    pub fn finish(self) -> Result<(Tree, ContentObjects)> {
        let mut builder = TreeBuilder::exact(self.nodes[ROOT].metadata.clone());
        let mut objects = vec![Checksum::default()];
        let mut pending = vec![(ROOT, EntryId::ROOT)];
        while let Some((node, id)) = pending.pop() {
            for (name, child) in &self.nodes[node].children {
                let found = &self.nodes[*child];
                let child_id = builder.push(id, name, &found.target, found.metadata.clone())?;
                objects.push(found.object);
                if found.is_dir() {
                    pending.push((*child, child_id));
                }
            }
        }
        let (tree, new_ids) = builder.finish();
        let mut sorted = vec![Checksum::default(); objects.len()];
        for (object, id) in objects.into_iter().zip(new_ids) {
            sorted[id.index()] = object;
        }
        Ok((tree, ContentObjects::known(sorted)))
    }

    fn member<R: Read>(
        &mut self,
        path: &str,
        entry: &Entry,
        tar: &mut TarReader<R>,
        transaction: &mut Transaction<'_>,
    ) -> Result<()> {
        if path.is_empty() {
            ensure!(
                entry.kind == EntryKind::Directory,
                "the root is not a directory"
            );
            let metadata = metadata(entry, Kind::Directory);
            self.nodes[ROOT].metadata = metadata;
            self.nodes[ROOT].layer = self.layer;
            return Ok(());
        }
        ensure!(
            path.matches('/').count() < MAX_DEPTH,
            "it lies more than {MAX_DEPTH} directories deep, deeper than OSTree goes"
        );
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.filter.excludes(path) {
            return Ok(());
        }
        if name == OPAQUE {
            if let Some(parent) = self.find(parent) {
                self.remove_lower(parent);
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.white_out(parent, hidden);
            return Ok(());
        }
        match &entry.kind {
            EntryKind::Directory => self.directory(parent, name, entry),
            EntryKind::HardLink(target) => self.hard_link(parent, name, target),
            EntryKind::Regular | EntryKind::Symlink(_) => {
                self.file(parent, name, entry, tar, transaction)
            }
            other => match self.filter.special_files {
                SpecialFiles::Skip => {
                    tracing::debug!("left out /{path}: {other:?}");
                    Ok(())
                }
                SpecialFiles::Refuse => bail!(
                    "no commit can hold it: it is a special file ({other:?}); leave such files out with --skip-special-files"
                ),
            },
        }
    }

    fn directory(&mut self, parent: &str, name: &str, entry: &Entry) -> Result<()> {
        let parent = self.make_directory(parent)?;
        let metadata = metadata(entry, Kind::Directory);
        let layer = self.layer;
        match self.nodes[parent].children.get(name).copied() {
            Some(known) if self.nodes[known].is_dir() => {
                let node = &mut self.nodes[known];
                node.metadata = metadata;
                (node.layer, node.reached) = (layer, layer);
            }
            _ => {
                self.attach(parent, name.to_owned(), Node::directory(metadata, layer));
            }
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: &str,
        name: &str,
        entry: &Entry,
        tar: &mut TarReader<R>,
        transaction: &mut Transaction<'_>,
    ) -> Result<()> {
        let parent = self.make_directory(parent)?;
        let (kind, target) = match &entry.kind {
            EntryKind::Symlink(target) => (Kind::Symlink, link_target(target)?),
            _ => (Kind::Regular, String::new()),
        };
        let metadata = metadata(entry, kind);
        let header = FileHeader {
            kind,
            permissions: metadata.permissions,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            target: target.clone(),
            xattrs: metadata.xattrs.clone(),
        };
        let new = NewFile {
            header: &header,
            expected: None,
        };
        let object = transaction.file(&new, tar)?;
        let node = Node {
            metadata,
            target,
            object,
            children: BTreeMap::new(),
            layer: self.layer,
            reached: self.layer,
        };
        self.attach(parent, name.to_owned(), node);
        Ok(())
    }

    fn hard_link(&mut self, parent: &str, name: &str, target: &[u8]) -> Result<()> {
        let clean = clean_path(target).context("the target of the hard link")?;
        let first = self.find(&clean).with_context(|| {
            format!("it is a hard link to /{clean}, which is not there; the layer is damaged")
        })?;
        let first = &self.nodes[first];
        ensure!(
            !first.is_dir(),
            "it is a hard link to the directory /{clean}"
        );
        let node = Node {
            metadata: first.metadata.clone(),
            target: first.target.clone(),
            object: first.object,
            children: BTreeMap::new(),
            layer: self.layer,
            reached: self.layer,
        };
        let parent = self.make_directory(parent)?;
        self.attach(parent, name.to_owned(), node);
        Ok(())
    }

    /// Removes what lower layers have at a name; what this layer has brought there stays, in a directory
    /// that is made anew unless the layer names it.
    fn white_out(&mut self, parent: &str, name: &str) {
        let Some(parent) = self.find(parent) else {
            return;
        };
        let Some(node) = self.nodes[parent].children.get(name).copied() else {
            return;
        };
        if self.nodes[node].reached < self.layer {
            self.nodes[parent].children.remove(name);
        } else {
            self.forget_lower_metadata(node);
            self.remove_lower(node);
        }
    }

    /// Removes what lower layers have below a directory, whatever order the layer has it in. A
    /// directory of which this layer names only what is in it is made anew.
    fn remove_lower(&mut self, directory: NodeId) {
        let mut pending = vec![directory];
        while let Some(at) = pending.pop() {
            let mut children = std::mem::take(&mut self.nodes[at].children);
            children.retain(|_, child| self.nodes[*child].reached == self.layer);
            for child in children.values() {
                self.forget_lower_metadata(*child);
            }
            pending.extend(children.values().copied());
            self.nodes[at].children = children;
        }
    }

    /// Makes a directory anew of which this layer names only what is in it.
    fn forget_lower_metadata(&mut self, directory: NodeId) {
        let node = &mut self.nodes[directory];
        if node.layer < self.layer {
            node.metadata = Metadata::directory(0o755);
        }
    }

    /// What is at a path; links are not followed.
    fn find(&self, path: &str) -> Option<NodeId> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.nodes[at].children.get(name)?;
        }
        Some(at)
    }

    /// The directory at a path; those that are missing are made, owned by root, 0755.
    fn make_directory(&mut self, path: &str) -> Result<NodeId> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            self.nodes[at].reached = self.layer;
            at = match self.nodes[at].children.get(name).copied() {
                Some(known) if self.nodes[known].is_dir() => known,
                Some(known) if self.nodes[known].metadata.kind == Kind::Symlink => bail!(
                    "the way to it leads through the symbolic link '{name}' -> '{}'; a layer must name the directory itself",
                    self.nodes[known].target
                ),
                Some(_) => bail!("the way to it leads through '{name}', which is a file"),
                None => {
                    let made = Node::directory(Metadata::directory(0o755), self.layer);
                    self.attach(at, name.to_owned(), made)
                }
            };
        }
        self.nodes[at].reached = self.layer;
        Ok(at)
    }

    fn attach(&mut self, parent: NodeId, name: String, node: Node) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.nodes[parent].children.insert(name, id);
        id
    }
}

/// What a member says of its file, as a commit has it.
fn metadata(entry: &Entry, kind: Kind) -> Metadata {
    let mut xattrs = entry.xattrs.clone();
    normalize_xattrs(&mut xattrs);
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
