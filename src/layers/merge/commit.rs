//! Merged layers and commits. Merging may start from the tree of a commit whose objects are at
//! hand, and ends with the tree of a new commit and the checksum of each file's object. What no
//! commit can hold is refused with its path.

use std::cell::OnceCell;
use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::{ContentSink, Merged};
use crate::checksum::Checksum;
use crate::layers::nodes::{Node, NodeId, NodeKind, ROOT};
use crate::limits;
use crate::ostree::ContentObjects;
use crate::remedy::{Advised, Remedy};
use crate::tree::{EntryId, Filter, Kind, Metadata, SpecialFiles, Tree, TreeBuilder};

impl<'a> Merged<'a, Checksum> {
    /// Starts from the tree of an encapsulated commit, whose objects are there.
    ///
    /// # Errors
    /// When it is too large.
    pub fn on(tree: &'a Tree, objects: &'a ContentObjects) -> Result<Self> {
        let mut merged = Self::default();
        let mut ids: Vec<NodeId> = Vec::with_capacity(tree.len());
        for id in tree.ids() {
            let kept = (!tree.entry(id).is_dir()).then(|| objects.checksum(id));
            let (metadata, target) = (metadata_of(tree, id), tree.target(id).as_bytes());
            let node = merged.node(metadata, target, kept)?;
            if id == EntryId::ROOT {
                *merged.nodes.get_mut(ROOT) = node;
                ids.push(ROOT);
            } else {
                let parent = ids[tree.entry(id).parent.index()];
                ids.push(merged.nodes.attach(parent, tree.name(id), node)?);
            }
        }
        let by_object = OnceCell::new();
        merged.lower_objects = Some(Box::new(move |object| {
            let by_object = by_object.get_or_init(|| {
                let files = tree.ids().filter(|id| !tree.entry(*id).is_dir());
                let files = files.map(|id| (objects.checksum(id), id));
                files.collect::<HashMap<Checksum, EntryId>>()
            });
            let id = *by_object.get(&object)?;
            Some((metadata_of(tree, id), tree.target(id).to_owned(), object))
        }));
        Ok(merged)
    }

    /// The tree that a commit has of it, with the objects of its files: all but what `filter`
    /// leaves out.
    ///
    /// # Errors
    /// When it is too large, or something has no place in a commit: its path is told.
    pub fn finish(
        self,
        filter: &Filter,
        sink: &mut impl ContentSink<Handle = Checksum>,
    ) -> Result<(Tree, ContentObjects)> {
        let mut builder = TreeBuilder::exact(self.nodes.get(ROOT).metadata());
        let mut objects = vec![Checksum::default()];
        // The directories on the way, the root first, by the length of their paths.
        let mut way = vec![(0, EntryId::ROOT)];
        self.nodes.walk(None, |path, node, _| {
            if filter.excludes(path) {
                return Ok(());
            }
            let context = || format!("/{}", path.escape_debug());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            while way.last().is_some_and(|(len, _)| *len > parent.len()) {
                way.pop();
            }
            let Some((_, parent)) = way.last().copied() else {
                bail!("/{path} is in no directory");
            };
            let (target, object) =
                match object_of(path, node, filter, sink).with_context(context)? {
                    Some(found) => found,
                    None => return Ok(()),
                };
            let id = builder.push(parent, name, &target, node.metadata())?;
            objects.push(object);
            if node.is_dir() {
                way.push((path.len(), id));
            }
            Ok(())
        })?;
        let (tree, new_ids) = builder.finish();
        let mut sorted = vec![Checksum::default(); objects.len()];
        for (object, id) in objects.into_iter().zip(new_ids) {
            sorted[id.index()] = object;
        }
        Ok((tree, ContentObjects::known(sorted)))
    }
}

/// The target and the object of what goes into a commit; none for what is skipped.
fn object_of(
    path: &str,
    node: &Node<Checksum>,
    filter: &Filter,
    sink: &mut impl ContentSink<Handle = Checksum>,
) -> Result<Option<(String, Checksum)>> {
    let target = link_target(&node.target)?;
    let object = match (node.kind, node.kept) {
        (NodeKind::Special, _) if filter.special_files == SpecialFiles::Skip => {
            tracing::debug!("left out /{path}: a special file");
            return Ok(None);
        }
        (NodeKind::Special, _) => bail!(Advised::new(
            Remedy::SkipSpecialFiles,
            "no commit can hold it: it is a special file (a fifo or a device node)"
        )),
        (NodeKind::Known(Kind::Symlink), None) => sink.link(&node.metadata(), &node.target)?,
        (_, kept) => kept.unwrap_or_default(),
    };
    Ok(Some((target, object)))
}

/// The target of a link as OSTree has it.
pub(in crate::layers) fn link_target(target: &[u8]) -> Result<String> {
    limits::check_target(target)?;
    let target = std::str::from_utf8(target).ok();
    let target = target.context("the link's target is not UTF-8, as it must be in a commit")?;
    Ok(target.to_owned())
}

fn metadata_of(tree: &Tree, id: EntryId) -> Metadata {
    let entry = tree.entry(id);
    Metadata {
        kind: entry.kind,
        permissions: entry.permissions(),
        uid: entry.uid,
        gid: entry.gid,
        mtime: 0,
        size: entry.size,
        xattrs: tree.xattrs(id).clone(),
    }
}
