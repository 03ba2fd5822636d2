//! The filesystem as a value: an arena of entries in canonical order.
//!
//! An [`EntryId`] is a position in a depth-first walk whose siblings are sorted by the bytes of
//! their names. So ids compare as paths do, a parent comes before its children, and the order
//! says nothing about how or where the tree was read. Content is not part of the value: it is
//! opened through [`Contents`] by whoever needs its bytes.

mod builder;
mod change;
mod directory;
mod disk_xattrs;
mod faults;
mod filter;
mod identity;
mod listed;
mod lookup;
mod mounts;
mod odd;
mod scan;
mod xattrs;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use anyhow::Result;
use camino::Utf8PathBuf;

pub(crate) use builder::{Metadata, TreeBuilder};
pub(crate) use change::DirectoryMetadata;
pub(crate) use directory::Directory;
pub use faults::Unrepresentable;
pub use filter::{Filter, SpecialFiles};
pub(crate) use identity::FileIdentity;
pub(crate) use listed::{Listed, ListedTree};
pub(crate) use mounts::{is_mount_point, is_own_root, is_root_of_mount};
pub use scan::scan;
pub use xattrs::{Hint, Xattr, Xattrs};
pub(crate) use xattrs::{is_hint as is_hint_xattr, normalize as normalize_xattrs};

/// Names an entry of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u32);

impl EntryId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// The position in canonical order, for tables with one row an entry.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an entry is. Nothing else can be in an OSTree commit (`ostree_create_directory_metadata`
/// and `ostree_raw_file_to_content_stream` know only these).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
}

impl Kind {
    /// The type bits of `st_mode` (inode(7)), which OSTree objects carry.
    pub fn type_bits(self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// A piece of a pool.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// One file, link or directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The size of the content in bytes; 0 for all but regular files.
    pub size: u64,
    /// Last modification, in seconds since the epoch (may be negative).
    pub mtime: i64,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
    /// The directory that it is in; the root's is itself.
    pub parent: EntryId,
    /// Permission bits with set-id and sticky bits (`07777`).
    permissions: u16,
    name: Span,
    /// The target of a link, as a piece of the text pool; the children of a directory, as a piece
    /// of the table of children.
    within: Span,
    xattrs: u32,
    /// The first entry that is the same file: itself, unless it is a further hard link.
    inode: EntryId,
}

impl Entry {
    /// Permission bits with set-id and sticky bits, no type (`07777`).
    pub fn permissions(&self) -> u32 {
        u32::from(self.permissions)
    }

    /// Type and permission bits, as `st_mode` has them.
    pub fn mode(&self) -> u32 {
        self.kind.type_bits() | self.permissions()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// A whole filesystem below one root, as [`scan`] makes it.
#[derive(Debug)]
pub struct Tree {
    /// It is a commit's: attributes are as the commit has them.
    exact: bool,
    entries: Vec<Entry>,
    children: Vec<EntryId>,
    text: String,
    xattrs: Vec<Xattrs>,
    hints: HashMap<EntryId, Hint>,
    followed: lookup::FollowedLinks,
}

impl Tree {
    /// How many entries there are, the root included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All entries in canonical order, the root first.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = EntryId> + ExactSizeIterator + use<> {
        let all: Range<u32> = 0..self.entries.len() as u32;
        all.map(EntryId)
    }

    /// The entry itself.
    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id.index()]
    }

    /// The entry's name in its directory; empty for the root.
    pub fn name(&self, id: EntryId) -> &str {
        self.text(self.entry(id).name)
    }

    /// Where a symbolic link points; empty for anything else.
    pub fn target(&self, id: EntryId) -> &str {
        match self.entry(id).kind {
            Kind::Symlink => self.text(self.entry(id).within),
            Kind::Directory | Kind::Regular => "",
        }
    }

    /// The extended attributes: of what was on a disk those that belong to the content of an image,
    /// sorted by name; of a commit all.
    pub fn xattrs(&self, id: EntryId) -> &Xattrs {
        &self.xattrs[self.entry(id).xattrs as usize]
    }

    /// Those of the extended attributes that a file has in an image's layer.
    pub fn content_xattrs(&self, id: EntryId) -> Cow<'_, [Xattr]> {
        let all = self.xattrs(id);
        match self.exact {
            false => Cow::Borrowed(all),
            true => {
                let mut content = all.clone();
                xattrs::normalize(&mut content);
                Cow::Owned(content)
            }
        }
    }

    /// What a user has said of this very entry (not of a directory above it).
    pub fn hint(&self, id: EntryId) -> Option<&Hint> {
        self.hints.get(&id)
    }

    /// The first entry that is the same file as `id`: `id` itself, or the one that `id` is a
    /// further hard link of.
    pub fn inode(&self, id: EntryId) -> EntryId {
        self.entry(id).inode
    }

    /// What is in a directory, sorted by name; nothing for anything else.
    pub fn children(&self, id: EntryId) -> &[EntryId] {
        match self.entry(id).kind {
            Kind::Directory => &self.children[self.entry(id).within.range()],
            Kind::Regular | Kind::Symlink => &[],
        }
    }

    /// The path from the root, without a leading slash; empty for the root.
    pub fn path(&self, id: EntryId) -> Utf8PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != EntryId::ROOT {
            names.push(self.name(at));
            at = self.entry(at).parent;
        }
        names.iter().rev().collect()
    }

    fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }
}

/// Opens the content of regular files of one [`Tree`], whatever that was made from.
pub trait Contents: Sync {
    /// The content of regular file `id` from its beginning. Reading it to the end gives exactly
    /// the entry's size in bytes.
    ///
    /// # Errors
    /// When it cannot be opened; reading fails when the content is not, or no longer, what the
    /// tree says.
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>>;

    /// What tells that regular file `id` has the content that it had at another time; none where
    /// nothing does.
    fn identity(&self, _tree: &Tree, _id: EntryId) -> Option<FileIdentity> {
        None
    }
}
