//! A commit read back from where its objects are kept, and the tree that it is.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};

use super::commit::Commit;
use super::extent::check_extent;
use super::objects::ContentObjects;
use super::parse::{self, ParsedCommit, ParsedDirmeta};
use crate::checksum::Checksum;
use crate::tree::{EntryId, Kind, Metadata, Tree, TreeBuilder, Xattrs};

/// The kinds of metadata objects (ostree-core.h, `OstreeObjectType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataKind {
    /// A commit.
    Commit,
    /// The names in a directory.
    Dirtree,
    /// Owner, mode and attributes of a directory.
    Dirmeta,
}

impl MetadataKind {
    /// How the names of its objects end.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Dirtree => "dirtree",
            Self::Dirmeta => "dirmeta",
        }
    }
}

/// All of a content object but the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// A regular file or a link.
    pub kind: Kind,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of content; 0 for a link.
    pub size: u64,
    /// Where a link points.
    pub target: String,
    /// All extended attributes, in their order.
    pub xattrs: Xattrs,
}

impl FileHeader {
    /// Type and permission bits, as `stat` gives them.
    pub fn mode(&self) -> u32 {
        self.kind.type_bits() | self.permissions
    }
}

/// Where metadata objects are kept.
pub trait ObjectStore {
    /// The bytes of a metadata object; none when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn metadata(&self, kind: MetadataKind, checksum: Checksum) -> Result<Option<Vec<u8>>>;
}

/// Where the objects of files are kept too.
pub trait FileStore: ObjectStore {
    /// What a content object says of its file; none when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn file(&self, checksum: Checksum) -> Result<Option<FileHeader>>;
}

/// A metadata object, checked against its name.
///
/// # Errors
/// When it is missing, cannot be read, or is damaged.
pub fn load_metadata(
    store: &(impl ObjectStore + ?Sized),
    kind: MetadataKind,
    checksum: Checksum,
) -> Result<Vec<u8>> {
    let extension = kind.extension();
    let object = store
        .metadata(kind, checksum)
        .with_context(|| format!("reading object {checksum}.{extension}"))?;
    let object = object.with_context(|| format!("object {checksum}.{extension} is missing"))?;
    let actual = Checksum::of(&object);
    ensure!(
        actual == checksum,
        "object {checksum}.{extension} is damaged: its content has the checksum {actual}"
    );
    Ok(object)
}

/// A commit with its tree, in which `/usr/etc` is `/etc`.
pub struct StoredCommit {
    /// The commit and its metadata objects.
    pub commit: Commit,
    /// What the commit object says.
    pub parsed: ParsedCommit,
    /// The tree.
    pub tree: Tree,
    /// The objects of its files.
    pub objects: ContentObjects,
}

impl StoredCommit {
    /// Reads commit `checksum`, all metadata and the headers of all files, from `store`.
    ///
    /// # Errors
    /// When an object is missing or damaged; when the commit has both `/etc` and `/usr/etc`. The
    /// path is named. When its directories lie too deep or it has too many entries.
    pub fn read(store: &dyn FileStore, checksum: Checksum) -> Result<Self> {
        let object = load_metadata(store, MetadataKind::Commit, checksum)?;
        let parsed = parse::commit(&object)
            .with_context(|| format!("object {checksum}.commit is damaged"))?;
        let mut reader = Reader {
            store,
            commit: Commit {
                checksum,
                object,
                detached: None,
                dirmetas: BTreeMap::new(),
                dirtrees: BTreeMap::new(),
            },
            headers: HashMap::new(),
        };
        // What cannot be read has no entries here: the walk, which knows the path, tells.
        check_extent(parsed.dirtree, |dirtree| Ok(reader.list(dirtree).ok()))
            .with_context(|| format!("reading commit {checksum}"))?;
        let root = reader.directory(parsed.dirmeta).context("reading /")?;
        let mut builder = TreeBuilder::exact(directory_metadata(root));
        let mut checksums = vec![Checksum::default()];
        reader
            .walk(&mut builder, &mut checksums, parsed.dirtree)
            .with_context(|| format!("reading commit {checksum}"))?;
        let (tree, new_ids) = builder.finish();
        let mut sorted = vec![Checksum::default(); checksums.len()];
        for (checksum, id) in checksums.into_iter().zip(new_ids) {
            sorted[id.index()] = checksum;
        }
        Ok(Self {
            commit: reader.commit,
            parsed,
            tree,
            objects: ContentObjects::known(sorted),
        })
    }
}

struct Reader<'a> {
    store: &'a dyn FileStore,
    commit: Commit,
    headers: HashMap<Checksum, FileHeader>,
}

impl Reader<'_> {
    /// Adds all that is below the root to the tree, and for each entry its content object's
    /// checksum.
    fn walk(
        &mut self,
        builder: &mut TreeBuilder,
        checksums: &mut Vec<Checksum>,
        root: Checksum,
    ) -> Result<()> {
        let mut pending = vec![(EntryId::ROOT, root)];
        let (mut root_has_etc, mut usr) = (false, None);
        while let Some((id, dirtree)) = pending.pop() {
            let listed = self
                .list(dirtree)
                .with_context(|| format!("reading directory {}", builder.path(id)))?;
            if id == EntryId::ROOT {
                let files = listed.files.iter().map(|(name, _)| name);
                let mut names = files.chain(listed.directories.iter().map(|(name, ..)| name));
                root_has_etc = names.any(|name| name == "etc");
            }
            // In `/usr`, `etc` is `/etc`.
            let is_usr = usr == Some(id);
            let parent = |name: &str| match is_usr && name == "etc" {
                true if root_has_etc => bail!(
                    "it has both /etc and /usr/etc, and a container image keeps /usr/etc at /etc: only one may be there"
                ),
                true => Ok(EntryId::ROOT),
                false => Ok(id),
            };
            for (name, content) in listed.files {
                let header = self
                    .header(content)
                    .with_context(|| format!("reading {}/{name}", builder.path(id)))?;
                let parent = parent(&name)?;
                builder.push(parent, &name, &header.target, file_metadata(header))?;
                checksums.push(content);
            }
            for (name, dirtree, dirmeta) in listed.directories {
                let metadata = self
                    .directory(dirmeta)
                    .with_context(|| format!("reading directory {}/{name}", builder.path(id)))?;
                let parent = parent(&name)?;
                let child = builder.push(parent, &name, "", directory_metadata(metadata))?;
                checksums.push(Checksum::default());
                if id == EntryId::ROOT && name == "usr" {
                    usr = Some(child);
                }
                pending.push((child, dirtree));
            }
        }
        Ok(())
    }

    fn list(&mut self, checksum: Checksum) -> Result<parse::ParsedDirtree> {
        let object = match self.commit.dirtrees.get(&checksum) {
            Some(known) => known,
            None => {
                let object = load_metadata(self.store, MetadataKind::Dirtree, checksum)?;
                self.commit.dirtrees.entry(checksum).or_insert(object)
            }
        };
        parse::dirtree(object).with_context(|| format!("object {checksum}.dirtree is damaged"))
    }

    fn directory(&mut self, checksum: Checksum) -> Result<ParsedDirmeta> {
        let object = match self.commit.dirmetas.get(&checksum) {
            Some(known) => known,
            None => {
                let object = load_metadata(self.store, MetadataKind::Dirmeta, checksum)?;
                self.commit.dirmetas.entry(checksum).or_insert(object)
            }
        };
        parse::dirmeta(object).with_context(|| format!("object {checksum}.dirmeta is damaged"))
    }

    fn header(&mut self, checksum: Checksum) -> Result<&FileHeader> {
        match self.headers.entry(checksum) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let header = self
                    .store
                    .file(checksum)
                    .with_context(|| format!("reading object {checksum}.file"))?
                    .with_context(|| format!("object {checksum}.file is missing"))?;
                Ok(unknown.insert(header))
            }
        }
    }
}

fn directory_metadata(directory: ParsedDirmeta) -> Metadata {
    Metadata {
        permissions: directory.permissions,
        uid: directory.uid,
        gid: directory.gid,
        xattrs: directory.xattrs,
        ..Metadata::directory(0)
    }
}

fn file_metadata(header: &FileHeader) -> Metadata {
    Metadata {
        kind: header.kind,
        permissions: header.permissions,
        uid: header.uid,
        gid: header.gid,
        mtime: 0,
        size: header.size,
        xattrs: header.xattrs.clone(),
    }
}
