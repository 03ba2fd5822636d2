//! The file system that layers make, in memory: an arena of nodes. Replaced nodes are freed, so
//! that memory holds only what is visible, however much the layers overwrite. Every walk is counted
//! in steps and visits each node at most once per layer.

use std::collections::{BTreeMap, HashSet, btree_map};
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::limits::{self, Meter};
use crate::tree::{Kind, Metadata, Xattrs};

/// A place in the arena.
pub(super) type NodeId = u32;
pub(super) const ROOT: NodeId = 0;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory, a regular file or a symbolic link.
    Known(Kind),
    /// A fifo or a device node, which no commit can hold.
    Special,
}

/// A file, link or directory, as the last layer that has it says.
#[derive(Debug, Clone)]
pub struct Node<C> {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Bytes of content.
    pub size: u64,
    /// Where a symbolic link points.
    pub target: Box<[u8]>,
    /// Extended attributes that belong to the content of an image.
    pub xattrs: Arc<Xattrs>,
    /// What was kept of a file's content.
    pub kept: Option<C>,
    /// A layer has it, and it was not made because something is in it.
    pub is_named: bool,
    /// The layer that it, or its metadata, is from: 1 for the first, 0 for what was there before.
    pub layer: u32,
    /// The last layer that has something below it.
    pub(super) reached: u32,
    /// The last layer in which all below was looked at for what is of lower layers.
    pub(super) cleared: u32,
    pub(super) children: BTreeMap<Box<str>, NodeId>,
}

impl<C> Node<C> {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == NodeKind::Known(Kind::Directory)
    }

    /// Its metadata as a tree takes it; for a special file that of a regular one.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            kind: match self.kind {
                NodeKind::Known(kind) => kind,
                NodeKind::Special => Kind::Regular,
            },
            permissions: self.permissions,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            size: self.size,
            xattrs: self.xattrs.as_ref().clone(),
        }
    }
}

/// The arena.
#[derive(Debug)]
pub(super) struct Nodes<C> {
    nodes: Vec<Node<C>>,
    free: Vec<NodeId>,
    /// Attributes, each set once.
    xattrs: HashSet<Arc<Xattrs>>,
    meter: Meter,
    steps: u64,
}

impl<C: Clone> Nodes<C> {
    /// Nothing but a root directory, 0755.
    pub(super) fn new() -> Self {
        let mut nodes = Self {
            nodes: Vec::new(),
            free: Vec::new(),
            xattrs: HashSet::new(),
            meter: Meter::default(),
            steps: 0,
        };
        let root = nodes.directory(0);
        nodes.nodes.push(root);
        nodes
    }

    pub(super) fn get(&self, id: NodeId) -> &Node<C> {
        &self.nodes[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node<C> {
        &mut self.nodes[id as usize]
    }

    /// All nodes in no order, those that are free too.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Node<C>> {
        self.nodes.iter_mut()
    }

    /// How many nodes have been looked at so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// A directory of root, 0755, as it is made where a layer has none.
    pub(super) fn directory(&mut self, layer: u32) -> Node<C> {
        let metadata = Metadata::directory(0o755);
        Node {
            kind: NodeKind::Known(Kind::Directory),
            permissions: metadata.permissions,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            target: Box::default(),
            xattrs: Arc::default(),
            kept: None,
            is_named: false,
            layer,
            reached: layer,
            cleared: layer,
            children: BTreeMap::new(),
        }
    }

    /// The one set of attributes that is equal to `xattrs`.
    ///
    /// # Errors
    /// When all sets take too much memory.
    pub(super) fn intern(&mut self, xattrs: Xattrs) -> Result<Arc<Xattrs>> {
        let xattrs = Arc::new(xattrs);
        if let Some(known) = self.xattrs.get(&xattrs) {
            return Ok(Arc::clone(known));
        }
        let bytes = xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.meter.add_bytes(bytes.sum())?;
        self.xattrs.insert(Arc::clone(&xattrs));
        Ok(xattrs)
    }

    pub(super) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        self.get(parent).children.get(name).copied()
    }

    /// What is at a path; links are not followed.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// The directory at a path; those that are missing are made.
    ///
    /// # Errors
    /// When the way leads through what is not a directory.
    pub(super) fn make_directory(&mut self, path: &str, layer: u32) -> Result<NodeId> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            self.get_mut(at).reached = layer;
            at = match self.child(at, name) {
                Some(known) if self.get(known).is_dir() => known,
                Some(known) if self.get(known).kind == NodeKind::Known(Kind::Symlink) => bail!(
                    "the way to it leads through the symbolic link '{name}' -> '{}'; a layer must name the directory itself",
                    self.get(known).target.escape_ascii()
                ),
                Some(_) => bail!("the way to it leads through '{name}', which is a file"),
                None => {
                    let made = self.directory(layer);
                    self.attach(at, name, made)?
                }
            };
        }
        self.get_mut(at).reached = layer;
        Ok(at)
    }

    /// Puts a node in a directory, in place of what is there.
    ///
    /// # Errors
    /// When the file system becomes too large.
    pub(super) fn attach(&mut self, parent: NodeId, name: &str, node: Node<C>) -> Result<NodeId> {
        limits::check_name(name)?;
        self.detach(parent, name);
        self.meter.add(name.len() + node.target.len())?;
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as NodeId
            }
        };
        self.get_mut(parent).children.insert(name.into(), id);
        Ok(id)
    }

    /// Removes what has a name in a directory, with all below.
    pub(super) fn detach(&mut self, parent: NodeId, name: &str) {
        if let Some((name, id)) = self.get_mut(parent).children.remove_entry(name) {
            self.free_all(name, id);
        }
    }

    /// Moves a directory, if there is one, to a name that nothing has.
    pub(super) fn rename(&mut self, parent: NodeId, name: &str, to: (NodeId, &str)) {
        let is_free = self.child(to.0, to.1).is_none();
        if let Some(id) = self.child(parent, name).filter(|_| is_free) {
            self.get_mut(parent).children.remove(name);
            self.get_mut(to.0).children.insert(to.1.into(), id);
        }
    }

    /// Frees a node that is in no directory any more.
    fn free_all(&mut self, name: Box<str>, id: NodeId) {
        let mut pending = vec![(name, id)];
        while let Some((name, id)) = pending.pop() {
            self.steps += 1;
            let empty = Node {
                kind: NodeKind::Special,
                ..self.directory(0)
            };
            let node = std::mem::replace(self.get_mut(id), empty);
            self.meter.remove(name.len() + node.target.len());
            self.free.push(id);
            pending.extend(node.children);
        }
    }

    /// Removes what lower layers have below a directory, in whatever order `layer` has it. A
    /// directory of which the layer names only what is in it is made anew.
    pub(super) fn remove_lower(&mut self, directory: NodeId, layer: u32) {
        let mut pending = vec![directory];
        while let Some(at) = pending.pop() {
            self.steps += 1;
            // What comes below later is of this layer: once is enough.
            if std::mem::replace(&mut self.get_mut(at).cleared, layer) == layer {
                continue;
            }
            let children = std::mem::take(&mut self.get_mut(at).children);
            let mut kept = BTreeMap::new();
            for (name, child) in children {
                self.steps += 1;
                if self.get(child).reached < layer {
                    self.free_all(name, child);
                } else {
                    self.forget_lower_metadata(child, layer);
                    pending.push(child);
                    kept.insert(name, child);
                }
            }
            self.get_mut(at).children = kept;
        }
    }

    /// Makes a directory anew of which this layer names only what is in it.
    pub(super) fn forget_lower_metadata(&mut self, directory: NodeId, layer: u32) {
        let made = self.directory(layer);
        let node = self.get_mut(directory);
        if node.layer < layer {
            (node.permissions, node.uid, node.gid, node.mtime) =
                (made.permissions, made.uid, made.gid, made.mtime);
            node.xattrs = made.xattrs;
            node.is_named = false;
        }
    }

    /// All below `root` in the order of names, each directory before what is in it, with its path,
    /// and what another file system has at that path.
    pub(super) fn walk<'a>(
        &'a self,
        other: Option<&'a Self>,
        mut each: impl FnMut(&str, &'a Node<C>, Option<&'a Node<C>>) -> Result<()>,
    ) -> Result<()> {
        type Level<'a> = (btree_map::Iter<'a, Box<str>, NodeId>, usize, Option<NodeId>);
        let mut path = String::new();
        let mut levels: Vec<Level<'a>> =
            vec![(self.get(ROOT).children.iter(), 0, other.map(|_| ROOT))];
        while let Some((children, len, other_parent)) = levels.last_mut() {
            path.truncate(*len);
            let Some((name, id)) = children.next() else {
                levels.pop();
                continue;
            };
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            let node = self.get(*id);
            let other_id = other
                .zip(*other_parent)
                .and_then(|(other, parent)| other.child(parent, name));
            let other_node = other.zip(other_id).map(|(other, id)| other.get(id));
            each(&path, node, other_node)?;
            if node.is_dir() {
                levels.push((node.children.iter(), path.len(), other_id));
            }
        }
        Ok(())
    }
}
