//! The inodes of the image, numbered as composefs numbers them: breadth first. A file with several
//! names has its number where the first of them is, in the order of paths.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use anyhow::{Context, Result};

use super::Stored;
use super::directory::{Directory, DirectoryEntry};
use super::verity::{ALGORITHM, DIGEST, Digest};
use super::view::{Stat, View};
use super::xattrs::{Xattr, Xattrs, share};
use crate::checksum::hexadecimal;
use crate::tree::{EntryId, Kind};

/// The kinds of inodes, as an entry of a directory tells them (`EROFS_FT_*`).
const REGULAR: u8 = 1;
/// That of a directory.
pub const DIRECTORY: u8 = 2;
const CHARACTER_DEVICE: u8 = 3;
const SYMLINK: u8 = 7;

/// The type bits of a character device (inode(7)).
const CHARACTER_DEVICE_BITS: u32 = 0o020_000;

/// An inode.
#[derive(Debug)]
pub struct Inode<'a> {
    /// Owner, mode and time.
    pub stat: Stat,
    /// How many names it has.
    pub links: usize,
    /// Its attributes.
    pub xattrs: Xattrs,
    /// What it holds.
    pub content: Content<'a>,
}

/// What an inode holds.
#[derive(Debug)]
pub enum Content<'a> {
    /// Names of other inodes.
    Directory(Directory<'a>),
    /// A small file.
    Inline(&'a [u8]),
    /// A file that is an object beside the image: its size.
    External(u64),
    /// A link to there.
    Symlink(&'a str),
    /// A character device 0:0: overlayfs shows nothing there.
    Whiteout,
}

impl Content<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Directory(_) => DIRECTORY,
            Self::Inline(_) | Self::External(_) => REGULAR,
            Self::Symlink(_) => SYMLINK,
            Self::Whiteout => CHARACTER_DEVICE,
        }
    }
}

/// All inodes, and what of their attributes is shared.
pub struct Inodes<'a> {
    /// The inodes, by number.
    pub all: Vec<Inode<'a>>,
    /// The attributes that several have.
    pub shared: Vec<Xattr>,
}

/// What a name in a directory leads to.
enum Target {
    /// An inode.
    Number(usize),
    /// The file whose first name this is; its number may not be known yet.
    File(EntryId),
}

/// A directory whose entries are known.
struct Listed<'a> {
    number: usize,
    parent: usize,
    entries: Vec<(Cow<'a, str>, Target)>,
}

impl<'a> Inodes<'a> {
    /// Numbers what `view` shows. `stored` has the content of each file.
    ///
    /// # Errors
    /// When a file has none.
    pub fn collect(view: &View<'a>, stored: &'a HashMap<EntryId, Stored>) -> Result<Self> {
        let mut collect = Collect {
            view,
            stored,
            all: Vec::new(),
            numbers: HashMap::new(),
        };
        let listed = collect.breadth_first()?;
        let Collect {
            mut all, numbers, ..
        } = collect;
        for dir in listed {
            let directory = entries(&all, &numbers, dir.number, dir.parent, dir.entries)?;
            all[dir.number].links = directory.links;
            all[dir.number].content = Content::Directory(directory);
        }
        // What is below does not shine through, should the image be a layer of an overlay.
        all[0].xattrs.add(b"trusted.overlay.opaque", b"y".to_vec());
        let shared = share(all.iter_mut().map(|inode| &mut inode.xattrs));
        Ok(Self { all, shared })
    }
}

fn entries<'a>(
    all: &[Inode<'_>],
    numbers: &HashMap<EntryId, usize>,
    number: usize,
    parent: usize,
    listed: Vec<(Cow<'a, str>, Target)>,
) -> Result<Directory<'a>> {
    let own = [(".", number), ("..", parent)];
    let mut entries: Vec<DirectoryEntry<'_>> = Vec::with_capacity(listed.len() + 2);
    entries.extend(own.map(|(name, inode)| DirectoryEntry {
        name: Cow::Borrowed(name),
        inode,
        kind: DIRECTORY,
    }));
    for (name, target) in listed {
        let inode = match target {
            Target::Number(number) => number,
            Target::File(first) => *numbers.get(&first).context("a file has no number")?,
        };
        entries.push(DirectoryEntry {
            name,
            inode,
            kind: all[inode].content.kind(),
        });
    }
    entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(Directory::new(entries))
}

struct Collect<'v, 'a> {
    view: &'v View<'a>,
    stored: &'a HashMap<EntryId, Stored>,
    all: Vec<Inode<'a>>,
    /// By the first name of a file.
    numbers: HashMap<EntryId, usize>,
}

impl<'a> Collect<'_, 'a> {
    fn breadth_first(&mut self) -> Result<Vec<Listed<'a>>> {
        let mut listed = Vec::new();
        let root = self.directory(EntryId::ROOT);
        let mut pending = VecDeque::from([(EntryId::ROOT, root, root)]);
        while let Some((id, number, parent)) = pending.pop_front() {
            let mut children: Vec<(Cow<'a, str>, Option<EntryId>)> = Vec::new();
            for child in self.view.children(id) {
                children.push((Cow::Borrowed(self.view.tree.name(*child)), Some(*child)));
            }
            if id == EntryId::ROOT {
                add_whiteouts(&mut children);
            }
            let mut entries = Vec::with_capacity(children.len());
            for (name, child) in children {
                let target = match child {
                    None => Target::Number(self.whiteout()),
                    Some(child) if self.view.tree.entry(child).is_dir() => {
                        let below = self.directory(child);
                        pending.push_back((child, below, number));
                        Target::Number(below)
                    }
                    Some(child) => self.file(child)?,
                };
                entries.push((name, target));
            }
            listed.push(Listed {
                number,
                parent,
                entries,
            });
        }
        Ok(listed)
    }

    fn push(&mut self, inode: Inode<'a>) -> usize {
        self.all.push(inode);
        self.all.len() - 1
    }

    fn directory(&mut self, id: EntryId) -> usize {
        self.push(Inode {
            stat: self.view.stat(id),
            links: 0,
            xattrs: self.view.xattrs(id),
            content: Content::Directory(Directory::default()),
        })
    }

    fn whiteout(&mut self) -> usize {
        let root = self.view.stat(EntryId::ROOT);
        self.push(Inode {
            stat: Stat {
                mode: CHARACTER_DEVICE_BITS | 0o644,
                ..root
            },
            links: 1,
            xattrs: Xattrs::default(),
            content: Content::Whiteout,
        })
    }

    fn file(&mut self, id: EntryId) -> Result<Target> {
        let (first, links) = self.view.links(id);
        if id == first {
            let inode = self.inode(id, links)?;
            let number = self.push(inode);
            self.numbers.insert(first, number);
        }
        Ok(Target::File(first))
    }

    fn inode(&self, id: EntryId, links: usize) -> Result<Inode<'a>> {
        let tree = self.view.tree;
        let entry = tree.entry(id);
        let mut xattrs = Xattrs::default();
        let content = match (entry.kind, self.stored.get(&tree.inode(id))) {
            (Kind::Symlink, _) => Content::Symlink(tree.target(id)),
            (_, Some(Stored::Inline(bytes))) => Content::Inline(bytes),
            (_, Some(Stored::Object(digest))) => {
                refer(&mut xattrs, digest);
                Content::External(entry.size)
            }
            (_, None) => anyhow::bail!("the content of /{} was not read", tree.path(id)),
        };
        self.view.add_xattrs(id, &mut xattrs);
        Ok(Inode {
            stat: self.view.stat(id),
            links,
            xattrs,
            content,
        })
    }
}

/// By these overlayfs finds the object, and verifies it (Linux, fs/overlayfs/overlayfs.h, `struct
/// ovl_metacopy`).
fn refer(xattrs: &mut Xattrs, digest: &Digest) {
    let mut metacopy = vec![0, (4 + DIGEST) as u8, 0, ALGORITHM];
    metacopy.extend_from_slice(digest);
    xattrs.add(b"trusted.overlay.metacopy", metacopy);
    let mut name = String::new();
    // Writing to a string cannot fail.
    let _ = hexadecimal(digest, &mut name);
    let redirect = format!("/{}/{}", &name[..2], &name[2..]);
    xattrs.add(b"trusted.overlay.redirect", redirect.into_bytes());
}

/// The directories of the objects, which are a layer below: hidden at the root.
fn add_whiteouts(children: &mut Vec<(Cow<'_, str>, Option<EntryId>)>) {
    for number in 0..=u8::MAX {
        let name = format!("{number:02x}");
        if !children.iter().any(|(child, _)| *child == name) {
            children.push((Cow::Owned(name), None));
        }
    }
    children.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
}
