//! The commit that a root filesystem carries when its image was made from an encapsulated one, and
//! what it tells of directories.
//!
//! Content layers of format version 1 leave parent directories out, so a container tool makes them
//! up: owned by root, 0755, with the time at which it did that. In version 2 every directory comes
//! with a header, whose time is 0.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::checksum::Checksum;
use crate::limits::Meter;
use crate::ostree::parse::{self, ParsedDirmeta};
use crate::ostree::{MetadataKind, ObjectStore, load_metadata};
use crate::remedy::{Advised, Remedy};
use crate::tree::{Directory, DirectoryMetadata, EntryId, Kind, Tree};

const OBJECTS: &str = "sysroot/ostree/repo/objects";
/// No metadata object is larger (ostree-core.h, `OSTREE_MAX_METADATA_SIZE`), in bytes.
const MAX_METADATA: u64 = 128 << 20;

/// The files of a rootfs, also where the tree leaves them out.
pub trait RootFiles {
    /// The content of the regular file at `path`; none when there is no regular file. No link is
    /// followed.
    ///
    /// # Errors
    /// When it has more than `limit` bytes or cannot be read.
    fn read_file(&self, path: &Utf8Path, limit: u64) -> Result<Option<Vec<u8>>>;

    /// The names in the directory at `path`, sorted; none when there is no directory. No link is
    /// followed.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, path: &Utf8Path) -> Result<Option<Vec<String>>>;
}

impl RootFiles for Directory {
    fn read_file(&self, path: &Utf8Path, limit: u64) -> Result<Option<Vec<u8>>> {
        Directory::read_file(self, path, limit)
    }

    fn list(&self, path: &Utf8Path) -> Result<Option<Vec<String>>> {
        Directory::list(self, path)
    }
}

/// The objects in the rootfs.
struct Embedded<'a>(&'a dyn RootFiles);

impl ObjectStore for Embedded<'_> {
    fn metadata(&self, kind: MetadataKind, checksum: Checksum) -> Result<Option<Vec<u8>>> {
        let hex = checksum.to_string();
        let (prefix, rest) = hex.split_at(2);
        let path = format!("{OBJECTS}/{prefix}/{rest}.{}", kind.extension());
        self.0.read_file(&Utf8PathBuf::from(path), MAX_METADATA)
    }
}

/// Gives the directories of `tree`, scanned from `rootfs`, the metadata of the embedded commit
/// where a container tool has made up their own.
///
/// # Errors
/// When the embedded commit is damaged.
pub fn restore_directories(tree: &mut Tree, rootfs: &dyn RootFiles) -> Result<()> {
    let Some(checksum) = embedded_commit(rootfs)? else {
        return Ok(());
    };
    let committed = Committed::read(tree, &Embedded(rootfs), checksum).with_context(|| {
        Advised::new(
            Remedy::LeaveOutRepository,
            format!("the rootfs carries commit {checksum} in /{OBJECTS}, which is damaged"),
        )
    })?;
    if !committed.lost_directories(tree) {
        return Ok(());
    }
    let (mut restored, mut meter) = (0, Meter::default());
    for (id, metadata) in committed.directories {
        if is_made_up(tree, id) && differs(tree, id, &metadata) {
            tracing::debug!(
                "/{} gets the metadata of the embedded commit",
                tree.path(id)
            );
            let xattrs = metadata.xattrs.iter();
            meter.add_attributes(xattrs.map(|(name, value)| name.len() + value.len()).sum())?;
            tree.set_directory(id, metadata.as_ref().clone());
            restored += 1;
        }
    }
    if restored > 0 {
        tracing::info!(
            "{restored} directories get their owner and mode from the embedded commit {checksum}: their image, of format version 1, has lost them"
        );
    }
    Ok(())
}

/// The only commit that the rootfs carries.
fn embedded_commit(rootfs: &dyn RootFiles) -> Result<Option<Checksum>> {
    let mut found = Vec::new();
    let prefixes = rootfs.list(&Utf8PathBuf::from(OBJECTS))?;
    for prefix in prefixes.unwrap_or_default() {
        let names = rootfs.list(&Utf8PathBuf::from(format!("{OBJECTS}/{prefix}")))?;
        let names = names.unwrap_or_default().into_iter();
        let rests = names.filter_map(|name| name.strip_suffix(".commit").map(str::to_owned));
        found.extend(rests.filter_map(|rest| Checksum::from_hex(&format!("{prefix}{rest}")).ok()));
    }
    if found.len() > 1 {
        tracing::warn!(
            "the rootfs carries {} commits in /{OBJECTS}; none of them is looked at",
            found.len()
        );
    }
    Ok(found.first().copied().filter(|_| found.len() == 1))
}

/// The directories of a commit that the tree has too.
struct Committed {
    directories: Vec<(EntryId, Rc<DirectoryMetadata>)>,
}

impl Committed {
    fn read(tree: &Tree, store: &Embedded<'_>, checksum: Checksum) -> Result<Self> {
        let commit = load_metadata(store, MetadataKind::Commit, checksum)?;
        let commit = parse::commit(&commit)?;
        let mut objects = Objects::new(store);
        let mut directories = Vec::new();
        let mut pending = vec![(EntryId::ROOT, commit.dirtree, commit.dirmeta)];
        while let Some((id, dirtree, dirmeta)) = pending.pop() {
            let context = || format!("reading directory /{} of the commit", tree.path(id));
            let metadata = objects.dirmeta(dirmeta).with_context(context)?;
            directories.push((id, metadata));
            let listed = objects.dirtree(dirtree).with_context(context)?;
            for (child, name) in directories_in(tree, id) {
                let below = listed.get(name);
                pending.extend(below.map(|(dirtree, dirmeta)| (child, *dirtree, *dirmeta)));
            }
        }
        Ok(Self { directories })
    }

    /// Whether most directories that files lie in came without a header of their own.
    fn lost_directories(&self, tree: &Tree) -> bool {
        let with_files = self.directories.iter().map(|(id, _)| *id).filter(|id| {
            let children = tree.children(*id).iter();
            children
                .map(|c| tree.entry(*c))
                .any(|c| c.kind == Kind::Regular)
        });
        let (mut all, mut with_header) = (0, 0);
        for id in with_files {
            all += 1;
            with_header += usize::from(tree.entry(id).mtime == 0);
        }
        with_header * 2 < all
    }
}

/// The directories that lie in a directory of the tree by where a commit has them, where `/etc` is
/// `/usr/etc`, with their names.
fn directories_in(tree: &Tree, id: EntryId) -> impl Iterator<Item = (EntryId, &str)> {
    let etc = match tree.path(id).as_str() {
        "usr" => tree.child(EntryId::ROOT, "etc"),
        _ => None,
    };
    let children = tree.children(id).iter().copied().chain(etc);
    let directories = children.filter(|child| tree.entry(*child).is_dir());
    directories.map(|child| (child, tree.name(child)))
}

/// What a dirtree lists of directories: dirtree and dirmeta of each name.
type Listed = BTreeMap<String, (Checksum, Checksum)>;

/// The objects of directories, each read once: a hostile commit has few, and names them over and
/// over.
struct Objects<'a> {
    store: &'a Embedded<'a>,
    dirtrees: HashMap<Checksum, Rc<Listed>>,
    dirmetas: HashMap<Checksum, Rc<DirectoryMetadata>>,
    meter: Meter,
}

impl<'a> Objects<'a> {
    fn new(store: &'a Embedded<'a>) -> Self {
        Self {
            store,
            dirtrees: HashMap::new(),
            dirmetas: HashMap::new(),
            meter: Meter::default(),
        }
    }

    fn dirtree(&mut self, checksum: Checksum) -> Result<Rc<Listed>> {
        if let Some(known) = self.dirtrees.get(&checksum) {
            return Ok(Rc::clone(known));
        }
        let object = load_metadata(self.store, MetadataKind::Dirtree, checksum)?;
        let directories = parse::dirtree(&object)?.directories;
        for (name, ..) in &directories {
            self.meter.add(name.len())?;
        }
        let pairs = directories.into_iter();
        let listed: Listed = pairs
            .map(|(name, tree, meta)| (name, (tree, meta)))
            .collect();
        let listed = Rc::new(listed);
        self.dirtrees.insert(checksum, Rc::clone(&listed));
        Ok(listed)
    }

    fn dirmeta(&mut self, checksum: Checksum) -> Result<Rc<DirectoryMetadata>> {
        if let Some(known) = self.dirmetas.get(&checksum) {
            return Ok(Rc::clone(known));
        }
        let object = load_metadata(self.store, MetadataKind::Dirmeta, checksum)?;
        self.meter.add(object.len())?;
        let read = Rc::new(metadata(parse::dirmeta(&object)?));
        self.dirmetas.insert(checksum, Rc::clone(&read));
        Ok(read)
    }
}

/// Whether a directory looks as one does that a container tool had to make.
fn is_made_up(tree: &Tree, id: EntryId) -> bool {
    let entry = tree.entry(id);
    // podman gives the root of a container 0555.
    let usual = [0o755, 0o555];
    let modes = if id == EntryId::ROOT {
        &usual[..]
    } else {
        &usual[..1]
    };
    entry.mtime != 0
        && (entry.uid, entry.gid) == (0, 0)
        && modes.contains(&entry.permissions())
        && tree.xattrs(id).is_empty()
}

fn differs(tree: &Tree, id: EntryId, metadata: &DirectoryMetadata) -> bool {
    let entry = tree.entry(id);
    (entry.uid, entry.gid, entry.permissions())
        != (metadata.uid, metadata.gid, metadata.permissions)
        || *tree.xattrs(id) != metadata.xattrs
}

fn metadata(dirmeta: ParsedDirmeta) -> DirectoryMetadata {
    let mut xattrs = dirmeta.xattrs;
    crate::tree::normalize_xattrs(&mut xattrs);
    DirectoryMetadata {
        uid: dirmeta.uid,
        gid: dirmeta.gid,
        permissions: dirmeta.permissions,
        xattrs,
    }
}
