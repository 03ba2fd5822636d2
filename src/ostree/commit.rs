//! A commit made without a repository: an OSTree commit is a Merkle tree, so its name needs
//! nothing but checksums, computed bottom-up.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};

use super::gvariant::{self, Tuple};
use super::objects::{self, ContentObjects};
use crate::checksum::Checksum;
use crate::tree::{EntryId, Kind, Tree};

/// A value in the metadata of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataValue {
    /// GVariant type `b`.
    Bool(bool),
    /// GVariant type `s`.
    String(String),
}

/// What a commit says of itself.
#[derive(Debug, Clone, Default)]
pub struct CommitInfo {
    /// The commit that this one follows.
    pub parent: Option<Checksum>,
    /// The first line of the message.
    pub subject: String,
    /// The rest of the message.
    pub body: String,
    /// Seconds since the epoch.
    pub timestamp: u64,
    /// Metadata, written in the order of the keys.
    pub metadata: BTreeMap<String, MetadataValue>,
}

/// A commit object with all metadata objects that it reaches.
#[derive(Debug)]
pub struct Commit {
    /// The name of the commit.
    pub checksum: Checksum,
    /// The commit object itself.
    pub object: Vec<u8>,
    /// Metadata kept beside the commit (`.commitmeta`, `a{sv}`): signatures, for one.
    pub detached: Option<Vec<u8>>,
    /// Every dirmeta object.
    pub dirmetas: BTreeMap<Checksum, Vec<u8>>,
    /// Every dirtree object.
    pub dirtrees: BTreeMap<Checksum, Vec<u8>>,
}

impl Commit {
    /// Refuses a tree that cannot be a commit, before its files are read.
    ///
    /// # Errors
    /// When the tree has both `/etc` and `/usr/etc`, when it has `/etc` and `/usr` is not a
    /// directory, or when `/sysroot` is not one.
    pub fn check(tree: &Tree) -> Result<()> {
        let sysroot = tree.child(EntryId::ROOT, "sysroot");
        if sysroot.is_some_and(|id| !tree.entry(id).is_dir()) {
            bail!(
                "/sysroot of the rootfs is not a directory, but a deployed system mounts the disk there: make it one"
            );
        }
        EtcMove::of(tree)?;
        Ok(())
    }

    /// The commit of `tree`, in which `/etc` lives at `/usr/etc` (a `/usr` of root, 0755, is
    /// made for it where there is none).
    ///
    /// # Errors
    /// As [`Commit::check`].
    pub fn of_tree(tree: &Tree, content: &ContentObjects, info: &CommitInfo) -> Result<Self> {
        Self::check(tree)?;
        let mut objects = MetadataObjects::default();
        let etc = EtcMove::of(tree)?;
        // Those directories that are in no other one yet.
        let mut named: HashMap<EntryId, Named> = HashMap::new();
        for id in etc.bottom_up(tree) {
            let mut files = Vec::new();
            let mut directories = Vec::new();
            for child in etc.children(tree, id) {
                let name = tree.name(child);
                match named.remove(&child) {
                    Some((dirtree, dirmeta)) => directories.push((name, dirtree, dirmeta)),
                    None => files.push((name, content.checksum(child))),
                }
            }
            if id == EntryId::ROOT && etc.usr_is_missing {
                let (dirtree, dirmeta) = objects.made_usr(etc.etc.and_then(|id| named.remove(&id)));
                let at = directories.partition_point(|(name, ..)| *name < "usr");
                directories.insert(at, ("usr", dirtree, dirmeta));
            }
            let dirtree = objects.dirtree(&files, &directories);
            let dirmeta = objects.dirmeta(objects::dirmeta(tree, id));
            named.insert(id, (dirtree, dirmeta));
        }
        let (dirtree, dirmeta) = named.remove(&EntryId::ROOT).unwrap_or_default();
        let object = commit_object(info, dirtree, dirmeta);
        Ok(Self {
            checksum: Checksum::of(&object),
            object,
            detached: None,
            dirmetas: objects.dirmetas,
            dirtrees: objects.dirtrees,
        })
    }
}

/// Checksums of the dirtree and the dirmeta of a directory.
type Named = (Checksum, Checksum);

#[derive(Default)]
struct MetadataObjects {
    dirmetas: BTreeMap<Checksum, Vec<u8>>,
    dirtrees: BTreeMap<Checksum, Vec<u8>>,
}

impl MetadataObjects {
    fn dirmeta(&mut self, object: Vec<u8>) -> Checksum {
        let checksum = Checksum::of(&object);
        self.dirmetas.entry(checksum).or_insert(object);
        checksum
    }

    fn dirtree(
        &mut self,
        files: &[(&str, Checksum)],
        directories: &[objects::SubDirectory<'_>],
    ) -> Checksum {
        let object = objects::dirtree(files, directories);
        let checksum = Checksum::of(&object);
        self.dirtrees.entry(checksum).or_insert(object);
        checksum
    }

    /// A `/usr` for a tree that has none, with `/etc` in it.
    fn made_usr(&mut self, etc: Option<Named>) -> Named {
        let etc = etc.map(|(dirtree, dirmeta)| ("etc", dirtree, dirmeta));
        (
            self.dirtree(&[], etc.as_slice()),
            self.dirmeta(objects::default_dirmeta()),
        )
    }
}

/// Where `/etc` goes.
struct EtcMove {
    etc: Option<EntryId>,
    usr: Option<EntryId>,
    usr_is_missing: bool,
}

impl EtcMove {
    fn of(tree: &Tree) -> Result<Self> {
        let etc = tree
            .child(EntryId::ROOT, "etc")
            .filter(|id| tree.entry(*id).is_dir());
        let usr = tree.child(EntryId::ROOT, "usr");
        let both = usr.is_some_and(|usr| tree.child(usr, "etc").is_some())
            && tree.child(EntryId::ROOT, "etc").is_some();
        if both {
            bail!(
                "the rootfs has both /etc and /usr/etc; a commit keeps /etc at /usr/etc, so only one may be there: merge them into /etc and remove /usr/etc"
            );
        }
        if etc.is_some() && usr.is_some_and(|usr| tree.entry(usr).kind != Kind::Directory) {
            bail!("/usr of the rootfs is not a directory, but /etc has to move to /usr/etc");
        }
        Ok(Self {
            etc,
            usr,
            usr_is_missing: etc.is_some() && usr.is_none(),
        })
    }

    /// Every directory after all that the commit has below it.
    fn bottom_up(&self, tree: &Tree) -> impl Iterator<Item = EntryId> {
        let usr = self.usr.filter(|id| tree.entry(*id).is_dir());
        let below = tree
            .ids()
            .rev()
            .filter(move |id| *id != EntryId::ROOT && Some(*id) != usr);
        below
            .filter(|id| tree.entry(*id).is_dir())
            .chain(usr)
            .chain([EntryId::ROOT])
    }

    /// The children of a directory as the commit has them, sorted by name.
    fn children(&self, tree: &Tree, id: EntryId) -> Vec<EntryId> {
        let mut children = tree.children(id).to_vec();
        if id == EntryId::ROOT {
            children.retain(|child| Some(*child) != self.etc);
        } else if Some(id) == self.usr {
            if let Some(etc) = self.etc {
                let at = children.partition_point(|child| tree.name(*child) < "etc");
                children.insert(at, etc);
            }
        }
        children
    }
}

/// A commit object, `(a{sv}aya(say)sstayay)`: metadata, parent, related objects, subject, body,
/// time (big-endian), root dirtree, root dirmeta.
fn commit_object(info: &CommitInfo, dirtree: Checksum, dirmeta: Checksum) -> Vec<u8> {
    let metadata = info.metadata.iter().map(|(key, value)| {
        let mut entry = Tuple::default();
        entry.string(key).align(8);
        match value {
            MetadataValue::Bool(b) => entry.bytes(&[u8::from(*b)]).bytes(b"\0b"),
            MetadataValue::String(s) => entry.bytes(s.as_bytes()).bytes(b"\0\0s"),
        };
        entry.finish()
    });
    let parent = info
        .parent
        .as_ref()
        .map_or(&[][..], |parent| parent.as_bytes());
    let mut commit = Tuple::default();
    commit
        .bytes(&gvariant::aligned_array(metadata, 8))
        .end_member();
    commit.bytes(parent).end_member();
    let no_related = b"";
    commit.bytes(no_related).end_member();
    commit.string(&info.subject).string(&info.body);
    commit.align(8).bytes(&info.timestamp.to_be_bytes());
    commit.bytes(dirtree.as_bytes()).end_member();
    commit.bytes(dirmeta.as_bytes());
    commit.finish()
}
