//! Making a [`Tree`]: entries come in any order in which parents precede children.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::{Entry, EntryId, Hint, Kind, Span, Tree, Xattrs};
use crate::limits::{self, Meter};

/// What a new entry is like.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits; more than `07777` is cut off.
    pub permissions: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last modification, in seconds since the epoch.
    pub mtime: i64,
    /// The size of the content in bytes.
    pub size: u64,
    /// Extended attributes in any order. Those that are hints to us become a [`Hint`]; which are
    /// kept depends on the kind of tree.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// A directory of root with `permissions`, for what has to be there and is not.
    pub fn directory(permissions: u32) -> Self {
        Self {
            kind: Kind::Directory,
            permissions,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            xattrs: Vec::new(),
        }
    }
}

/// Collects entries; [`TreeBuilder::finish`] puts them in canonical order.
#[derive(Debug)]
pub struct TreeBuilder {
    /// Attributes are kept as they are.
    exact: bool,
    entries: Vec<Entry>,
    text: String,
    xattrs: Vec<Xattrs>,
    known_xattrs: HashMap<Xattrs, u32>,
    hints: HashMap<EntryId, Hint>,
    /// Bytes of each entry's path.
    path_lens: Vec<u16>,
    meter: Meter,
}

impl TreeBuilder {
    /// Starts a tree of what is on a disk with its root directory, which takes the id
    /// [`EntryId::ROOT`] and keeps it. Attributes stay that are content of an image and have a
    /// value.
    pub fn new(root: Metadata) -> Self {
        Self::starting(root, false)
    }

    /// Starts a tree of what is in a commit, whose objects are named after their attributes: all
    /// of them stay, in their order.
    pub fn exact(root: Metadata) -> Self {
        Self::starting(root, true)
    }

    fn starting(root: Metadata, exact: bool) -> Self {
        let mut builder = Self {
            exact,
            entries: Vec::new(),
            text: String::new(),
            xattrs: vec![Vec::new()],
            known_xattrs: HashMap::from([(Vec::new(), 0)]),
            hints: HashMap::new(),
            path_lens: vec![0],
            meter: Meter::default(),
        };
        let entry = builder.make(EntryId::ROOT, Span::default(), Span::default(), root);
        builder.entries.push(entry);
        builder
    }

    /// Adds an entry to directory `parent`. `target` is where a symbolic link points.
    ///
    /// # Errors
    /// When a name, its path or a target is longer than [`limits`] says, or the tree is larger.
    pub fn push(
        &mut self,
        parent: EntryId,
        name: &str,
        target: &str,
        metadata: Metadata,
    ) -> Result<EntryId> {
        let parent_len = usize::from(self.path_lens[parent.index()]);
        let path_len = parent_len + usize::from(parent_len > 0) + name.len();
        limits::check_name(name)?;
        if path_len > limits::PATH_BYTES {
            limits::check_path(path_len, &self.path(parent))?;
        }
        limits::check_target(target.as_bytes())
            .with_context(|| format!("{}/{name}", self.path(parent)))?;
        let attributes = metadata.xattrs.iter();
        let attributes = attributes.map(|(name, value)| name.len() + value.len());
        let attributes: usize = attributes.sum();
        self.meter.add_attributes(attributes)?;
        let attributes = match self.known_xattrs.contains_key(&metadata.xattrs) {
            true => 0,
            false => attributes,
        };
        self.meter.add(name.len() + target.len() + attributes)?;
        self.path_lens.push(path_len as u16);
        let (name, target) = (self.span(name)?, self.span(target)?);
        let Ok(id) = u32::try_from(self.entries.len()) else {
            bail!("the tree has more than {} entries", u32::MAX);
        };
        let entry = self.make(parent, name, target, metadata);
        self.entries.push(entry);
        Ok(EntryId(id))
    }

    /// The path of an entry that was pushed, with a leading slash; empty for the root.
    pub fn path(&self, id: EntryId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while at != EntryId::ROOT {
            let entry = &self.entries[at.index()];
            names.push(&self.text[entry.name.range()]);
            at = entry.parent;
        }
        let names = names.iter().rev();
        names.map(|name| format!("/{name}")).collect()
    }

    /// Says that `link` is a further hard link of `first`, an earlier entry.
    pub fn link(&mut self, link: EntryId, first: EntryId) {
        self.entries[link.index()].inode = self.entries[first.index()].inode;
    }

    /// The tree, and for each id that [`TreeBuilder::push`] gave the id in the tree.
    pub fn finish(self) -> (Tree, Vec<EntryId>) {
        let count = self.entries.len();
        let mut text = self.text;
        text.shrink_to_fit();
        let name = |e: &Entry| &text[e.name.range()];
        // Children of each directory, by old ids, sorted by name.
        let mut by_parent: Vec<u32> = (1..count as u32).collect();
        by_parent.sort_unstable_by(|a, b| {
            let (a, b) = (&self.entries[*a as usize], &self.entries[*b as usize]);
            (a.parent, name(a)).cmp(&(b.parent, name(b)))
        });
        let mut runs = vec![Span::default(); count];
        for (at, id) in by_parent.iter().enumerate() {
            let run = &mut runs[self.entries[*id as usize].parent.index()];
            if run.len == 0 {
                run.start = at as u32;
            }
            run.len += 1;
        }
        // A depth-first walk gives the new numbers.
        let mut new_ids = vec![EntryId::ROOT; count];
        let mut next = 0;
        let mut pending = vec![0u32];
        while let Some(old) = pending.pop() {
            new_ids[old as usize] = EntryId(next);
            next += 1;
            pending.extend(by_parent[runs[old as usize].range()].iter().rev());
        }
        let mut entries = self.entries;
        entries.shrink_to_fit();
        for (entry, run) in entries.iter_mut().zip(runs) {
            if entry.is_dir() {
                entry.within = run;
            }
        }
        reorder(&mut entries, &new_ids);
        // The first link of a file in the new order stands for all of them.
        let mut first_links: Vec<Option<EntryId>> = vec![None; count];
        for (id, entry) in entries.iter_mut().enumerate() {
            let id = EntryId(id as u32);
            entry.parent = new_ids[entry.parent.index()];
            entry.inode = match entry.kind {
                Kind::Regular => *first_links[entry.inode.index()].get_or_insert(id),
                _ => id,
            };
        }
        let children = by_parent
            .into_iter()
            .map(|old| new_ids[old as usize])
            .collect();
        let hints = self
            .hints
            .into_iter()
            .map(|(old, hint)| (new_ids[old.index()], hint))
            .collect();
        let tree = Tree {
            exact: self.exact,
            entries,
            children,
            text,
            xattrs: self.xattrs,
            hints,
            followed: Default::default(),
        };
        (tree, new_ids)
    }

    fn make(&mut self, parent: EntryId, name: Span, target: Span, metadata: Metadata) -> Entry {
        let id = EntryId(self.entries.len() as u32);
        if let Some(hint) = Hint::from_xattrs(&metadata.xattrs) {
            self.hints.insert(id, hint);
        }
        Entry {
            size: metadata.size,
            mtime: metadata.mtime,
            uid: metadata.uid,
            gid: metadata.gid,
            kind: metadata.kind,
            parent,
            permissions: (metadata.permissions & 0o7777) as u16,
            name,
            within: target,
            xattrs: self.intern(metadata.xattrs),
            inode: id,
        }
    }

    fn span(&mut self, text: &str) -> Result<Span> {
        let (Ok(start), Ok(len)) = (u32::try_from(self.text.len()), u32::try_from(text.len()))
        else {
            bail!("the names of the tree take more than 4 GiB");
        };
        if start.checked_add(len).is_none() {
            bail!("the names of the tree take more than 4 GiB");
        }
        self.text.push_str(text);
        Ok(Span { start, len })
    }

    fn intern(&mut self, mut xattrs: Xattrs) -> u32 {
        if !self.exact {
            super::xattrs::normalize(&mut xattrs);
        }
        if let Some(known) = self.known_xattrs.get(&xattrs) {
            return *known;
        }
        let id = self.xattrs.len() as u32;
        self.xattrs.push(xattrs.clone());
        self.known_xattrs.insert(xattrs, id);
        id
    }
}

/// Moves each item of a table by old ids to where its new id says, in place: a copy of the table
/// would be the largest thing in memory.
pub(super) fn reorder<T>(items: &mut [T], new_ids: &[EntryId]) {
    let mut targets = new_ids.to_vec();
    for at in 0..targets.len() {
        while targets[at].index() != at {
            let target = targets[at].index();
            items.swap(at, target);
            targets.swap(at, target);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(size: u64) -> Metadata {
        Metadata {
            kind: Kind::Regular,
            size,
            ..Metadata::directory(0o644)
        }
    }

    /// The same tree pushed in two orders.
    fn build(reversed: bool) -> Tree {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        let mut names = vec!["b", "a", "a.b", "é"];
        if reversed {
            names.reverse();
        }
        for name in names {
            let dir = builder
                .push(EntryId::ROOT, name, "", Metadata::directory(0o755))
                .unwrap();
            let mut inner = ["y", "x"];
            if reversed {
                inner.reverse();
            }
            let ids = inner.map(|n| builder.push(dir, n, "", file(3)).unwrap());
            if name == "a" {
                builder.link(ids[1], ids[0]);
            }
        }
        builder.finish().0
    }

    #[test]
    fn the_order_of_pushing_does_not_show() {
        for tree in [build(false), build(true)] {
            let paths: Vec<String> = tree.ids().map(|id| tree.path(id).into_string()).collect();
            assert_eq!(
                paths,
                [
                    "", "a", "a/x", "a/y", "a.b", "a.b/x", "a.b/y", "b", "b/x", "b/y", "é", "é/x",
                    "é/y"
                ]
            );
            let inodes: Vec<usize> = tree.ids().map(|id| tree.inode(id).index()).collect();
            assert_eq!(inodes, [0, 1, 2, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        }
    }

    #[test]
    fn attributes_are_sorted_and_shared() {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        let pair = |k: &str| (k.as_bytes().to_vec(), b"v".to_vec());
        for (name, xattrs) in [
            ("p", vec![pair("user.b"), pair("user.a")]),
            (
                "q",
                vec![pair("user.a"), pair("user.component"), pair("user.b")],
            ),
        ] {
            let metadata = Metadata { xattrs, ..file(1) };
            builder.push(EntryId::ROOT, name, "", metadata).unwrap();
        }
        let (tree, _) = builder.finish();
        let [p, q] = tree.children(EntryId::ROOT) else {
            unreachable!()
        };
        assert_eq!(tree.xattrs(*p), &[pair("user.a"), pair("user.b")]);
        assert_eq!(tree.entry(*p).xattrs, tree.entry(*q).xattrs);
    }

    #[test]
    fn attributes_of_a_commit_stay_as_they_are() {
        let pair = |k: &str, v: &str| (k.as_bytes().to_vec(), v.as_bytes().to_vec());
        let xattrs = vec![
            pair("user.component", "web"),
            pair("security.selinux", "x"),
            pair("user.a", ""),
        ];
        let mut builder = TreeBuilder::exact(Metadata::directory(0o755));
        let metadata = Metadata {
            xattrs: xattrs.clone(),
            ..file(1)
        };
        let id = builder.push(EntryId::ROOT, "f", "", metadata).unwrap();
        let (tree, ids) = builder.finish();
        let id = ids[id.index()];
        assert_eq!(tree.xattrs(id), &xattrs);
        assert_eq!(tree.hint(id).unwrap().component.as_deref(), Some("web"));
    }

    #[test]
    fn a_path_is_no_longer_than_a_reader_takes() {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        let (mut at, name) = (EntryId::ROOT, "d");
        for _ in 0..2048 {
            at = builder
                .push(at, name, "", Metadata::directory(0o755))
                .unwrap();
        }
        let error = builder.push(at, name, "", file(0)).unwrap_err();
        assert!(error.to_string().contains("has 4097 bytes"), "{error}");
        let long = "n".repeat(256);
        let error = builder.push(EntryId::ROOT, &long, "", file(0)).unwrap_err();
        assert!(error.to_string().contains("has 256 bytes"), "{error}");
    }

    #[test]
    fn a_million_entries_fit_in_a_fraction_of_a_gibibyte() {
        assert!(size_of::<Entry>() <= 56, "{}", size_of::<Entry>());
    }
}
