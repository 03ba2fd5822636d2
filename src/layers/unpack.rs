//! The objects in the layers of an encapsulated commit, on their way into a repository
//! (ostree-ext, "tar/import.rs").
//!
//! What the layers have at the paths of files are hard links for container tools; the commit is
//! what the objects say.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::merge::{ContentSink, LayerFile, link_target};
use crate::checksum::Checksum;
use crate::oci::read::{Entry, EntryKind, TarReader, clean_path};
use crate::ostree::{FileHeader, MetadataKind, NewFile, Transaction, parse};
use crate::tree::{Kind, Metadata, Xattrs};

/// Where the layers of an encapsulated image have its objects.
pub const OBJECTS: &str = "sysroot/ostree/repo/objects/";
/// No metadata object is larger (ostree-core.h, `OSTREE_MAX_METADATA_SIZE`), in bytes.
const MAX_METADATA: u64 = 128 << 20;
/// No file has more attributes on any file system, in bytes.
const MAX_XATTRS: u64 = 1 << 20;

/// The commit at the beginning of layer 0.
#[derive(Debug, Clone)]
pub struct CommitObject {
    /// Its name.
    pub checksum: Checksum,
    /// The object itself.
    pub object: Vec<u8>,
    /// The metadata kept beside it.
    pub detached: Option<Vec<u8>>,
}

/// The content objects that a commit names.
pub type NamedFiles = HashSet<Checksum>;

/// Reads layer 0: the commit, which `accept` is asked about before anything is written, then the
/// objects. What content the directories in it name is told.
///
/// # Errors
/// When the layer does not begin with a commit, an object is not what its name says, or `accept`
/// refuses.
pub fn unpack_commit_layer<R: Read>(
    layer: R,
    transaction: &mut Transaction<'_>,
    accept: impl FnOnce(&CommitObject) -> Result<()>,
) -> Result<(R, CommitObject, NamedFiles)> {
    let mut objects = Objects::new(TarReader::new(layer), transaction, None);
    let mut named = NamedFiles::new();
    let (name, entry) = objects.next()?.context(
        "there is no commit object in it; is it the first layer of an encapsulated commit?",
    )?;
    ensure!(
        name.kind == ObjectKind::Metadata(MetadataKind::Commit),
        "it begins with {name}, and not with a commit; the layers of the image are in the wrong order, or it is not encapsulated"
    );
    let object = objects.read_metadata(&name, &entry)?;
    ensure!(
        Checksum::of(&object) == name.checksum,
        "object {name} is damaged: its content has the checksum {}",
        Checksum::of(&object)
    );
    let mut commit = CommitObject {
        checksum: name.checksum,
        object,
        detached: None,
    };
    let mut next = objects.next()?;
    if let Some((name, entry)) = &next {
        if name.kind == ObjectKind::Detached {
            ensure!(
                name.checksum == commit.checksum,
                "{name} belongs to another commit than {}",
                commit.checksum
            );
            let detached = objects.read_metadata(name, entry)?;
            parse::detached(&detached).with_context(|| format!("object {name} is damaged"))?;
            commit.detached = Some(detached);
            next = objects.next()?;
        }
    }
    accept(&commit)?;
    while let Some((name, entry)) = next {
        match name.kind {
            ObjectKind::Metadata(kind) => {
                ensure!(
                    kind != MetadataKind::Commit,
                    "it has a second commit, {}",
                    name.checksum
                );
                let object = objects.read_metadata(&name, &entry)?;
                objects.transaction.metadata(kind, name.checksum, &object)?;
                if kind == MetadataKind::Dirtree {
                    let files = parse::dirtree(&object)
                        .with_context(|| format!("object {name} is damaged"))?
                        .files;
                    named.extend(files.into_iter().map(|(_, file)| file));
                }
            }
            _ => objects.content(&name, &entry)?,
        }
        next = objects.next()?;
    }
    Ok((objects.finish()?, commit, named))
}

/// Reads a content layer. Content that is not in `named` is left out: a layer of an earlier image
/// that has stayed may have files that are no more.
///
/// # Errors
/// When an object is not what its name says, or is not content.
pub fn unpack_content_layer<R: Read>(
    layer: R,
    named: &NamedFiles,
    transaction: &mut Transaction<'_>,
) -> Result<R> {
    let mut objects = Objects::new(TarReader::new(layer), transaction, Some(named));
    while let Some((name, entry)) = objects.next()? {
        if let ObjectKind::Metadata(_) = name.kind {
            bail!(
                "it has {name}, but objects of that kind are only in the first layer of an encapsulated commit"
            );
        }
        objects.content(&name, &entry)?;
    }
    objects.finish()
}

/// The content object that a path of a container names; none when it is the path of anything else.
pub(super) fn content_object(path: &str) -> Option<Checksum> {
    let name = ObjectName::parse(path.strip_prefix(OBJECTS)?).ok()?;
    (name.kind == ObjectKind::File).then_some(name.checksum)
}

/// Content becomes objects of the repository.
impl ContentSink for Transaction<'_> {
    type Handle = Checksum;

    fn file(&mut self, file: &LayerFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        write(self, file.metadata, b"", content)
    }

    fn link(&mut self, metadata: &Metadata, target: &[u8]) -> Result<Checksum> {
        write(self, metadata, target, &mut std::io::empty())
    }
}

fn write(
    transaction: &mut Transaction<'_>,
    metadata: &Metadata,
    target: &[u8],
    content: &mut dyn Read,
) -> Result<Checksum> {
    let new = NewFile {
        header: &header(metadata, target)?,
        expected: None,
    };
    transaction.file(&new, content)
}

fn header(metadata: &Metadata, target: &[u8]) -> Result<FileHeader> {
    Ok(FileHeader {
        kind: metadata.kind,
        permissions: metadata.permissions,
        uid: metadata.uid,
        gid: metadata.gid,
        size: metadata.size,
        target: link_target(target)?,
        xattrs: metadata.xattrs.clone(),
    })
}

/// What an object in a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectKind {
    Metadata(MetadataKind),
    /// `.commitmeta`.
    Detached,
    /// `.file`.
    File,
    /// `.file-xattrs`: attributes by their own checksum, for several files.
    Attributes,
    /// `.file-xattrs-link`: the attributes of the file that comes next.
    AttributesOfNext,
}

/// The name of an object.
#[derive(Debug, Clone)]
struct ObjectName {
    checksum: Checksum,
    kind: ObjectKind,
    extension: String,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.checksum, self.extension)
    }
}

impl ObjectName {
    /// Reads `ab/cdef....file`, the path below `objects`.
    fn parse(path: &str) -> Result<Self> {
        let parts = path.split_once('/').and_then(|(prefix, rest)| {
            let (rest, extension) = rest.split_once('.')?;
            Some((prefix, rest, extension))
        });
        let (prefix, rest, extension) =
            parts.with_context(|| format!("{OBJECTS}{path} is not a name of an object"))?;
        let checksum = Checksum::from_hex(&format!("{prefix}{rest}"))
            .ok()
            .filter(|_| prefix.len() == 2)
            .with_context(|| format!("{OBJECTS}{path} is not a name of an object"))?;
        let kind = match extension {
            "commit" => ObjectKind::Metadata(MetadataKind::Commit),
            "dirtree" => ObjectKind::Metadata(MetadataKind::Dirtree),
            "dirmeta" => ObjectKind::Metadata(MetadataKind::Dirmeta),
            "commitmeta" => ObjectKind::Detached,
            "file" => ObjectKind::File,
            "file-xattrs" => ObjectKind::Attributes,
            "file-xattrs-link" => ObjectKind::AttributesOfNext,
            other => bail!("{OBJECTS}{path}: objects of the kind '{other}' are unknown"),
        };
        Ok(Self {
            checksum,
            kind,
            extension: extension.to_owned(),
        })
    }
}

/// The objects of one layer, one after the other.
struct Objects<'a, 't, R: Read> {
    tar: TarReader<R>,
    transaction: &'a mut Transaction<'t>,
    /// Attributes that several files have, by checksum.
    attributes: HashMap<Checksum, Xattrs>,
    /// Those of the file that must come next.
    next_attributes: Option<(Checksum, Xattrs)>,
    seen: HashSet<Checksum>,
    /// The content that is of use, where that is known.
    named: Option<&'a NamedFiles>,
}

impl<'a, 't, R: Read> Objects<'a, 't, R> {
    fn new(
        tar: TarReader<R>,
        transaction: &'a mut Transaction<'t>,
        named: Option<&'a NamedFiles>,
    ) -> Self {
        Self {
            tar,
            transaction,
            named,
            attributes: HashMap::new(),
            next_attributes: None,
            seen: HashSet::new(),
        }
    }

    /// The next object; what else a layer has is skipped.
    fn next(&mut self) -> Result<Option<(ObjectName, Entry)>> {
        while let Some(entry) = self.tar.next_entry()? {
            let path = clean_path(&entry.path)?;
            if entry.kind == EntryKind::Directory {
                continue;
            }
            if let Some(object) = path.strip_prefix(OBJECTS) {
                return Ok(Some((ObjectName::parse(object)?, entry)));
            }
        }
        Ok(None)
    }

    fn finish(self) -> Result<R> {
        if let Some((checksum, _)) = self.next_attributes {
            bail!("it has the attributes of {checksum}.file, but not that object itself");
        }
        Ok(self.tar.into_inner())
    }

    fn read_metadata(&mut self, name: &ObjectName, entry: &Entry) -> Result<Vec<u8>> {
        self.read(name, entry, MAX_METADATA)
    }

    fn read(&mut self, name: &ObjectName, entry: &Entry, limit: u64) -> Result<Vec<u8>> {
        ensure!(
            entry.kind == EntryKind::Regular,
            "object {name} is not a regular file in the layer"
        );
        ensure!(
            entry.size <= limit,
            "object {name} has {} bytes; none of its kind has more than {limit}",
            entry.size
        );
        let mut bytes = Vec::new();
        self.tar
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading object {name}"))?;
        Ok(bytes)
    }

    /// A content object, or attributes for one.
    fn content(&mut self, name: &ObjectName, entry: &Entry) -> Result<()> {
        match name.kind {
            ObjectKind::File => self
                .file(name, entry)
                .with_context(|| format!("reading object {name}")),
            ObjectKind::Attributes => {
                let bytes = self.read(name, entry, MAX_XATTRS)?;
                ensure!(
                    Checksum::of(&bytes) == name.checksum,
                    "object {name} is damaged: its content has the checksum {}",
                    Checksum::of(&bytes)
                );
                let xattrs = parse::xattrs(&bytes).with_context(|| format!("object {name}"))?;
                self.attributes.insert(name.checksum, xattrs);
                Ok(())
            }
            ObjectKind::AttributesOfNext => self.attributes_of_next(name, entry),
            _ => bail!("it has {name} where only content may be"),
        }
    }

    fn attributes_of_next(&mut self, name: &ObjectName, entry: &Entry) -> Result<()> {
        if let Some((other, _)) = &self.next_attributes {
            bail!("it has the attributes of {other}.file, but not that object itself");
        }
        let xattrs = match &entry.kind {
            EntryKind::HardLink(target) => {
                let target = clean_path(target)?;
                let target = target.strip_prefix(OBJECTS).unwrap_or(&target);
                let linked = ObjectName::parse(target)?;
                let known = self.attributes.get(&linked.checksum).cloned();
                known.with_context(|| {
                    format!("{name} is a link to {linked}, which is not there before it")
                })?
            }
            _ => {
                let bytes = self.read(name, entry, MAX_XATTRS)?;
                parse::xattrs(&bytes).with_context(|| format!("object {name}"))?
            }
        };
        self.next_attributes = Some((name.checksum, xattrs));
        Ok(())
    }

    fn file(&mut self, name: &ObjectName, entry: &Entry) -> Result<()> {
        let xattrs = match self.next_attributes.take() {
            Some((checksum, xattrs)) if checksum == name.checksum => xattrs,
            Some((other, _)) => {
                bail!("the attributes before it belong to {other}.file");
            }
            None => bail!("its attributes are not before it"),
        };
        ensure!(self.seen.insert(name.checksum), "the layer has it twice");
        if self
            .named
            .is_some_and(|named| !named.contains(&name.checksum))
        {
            tracing::debug!("left out {name}: the commit does not name it");
            return Ok(());
        }
        if self.transaction.has_file(name.checksum)? {
            return Ok(());
        }
        let (kind, target) = match &entry.kind {
            EntryKind::Regular => (Kind::Regular, String::new()),
            EntryKind::Symlink(target) => (Kind::Symlink, link_target(target)?),
            _ => bail!("it is neither a regular file nor a link"),
        };
        let header = FileHeader {
            kind,
            permissions: match kind {
                // Links have no permissions of their own (`S_IFLNK | 0777`).
                Kind::Symlink => 0o777,
                _ => entry.permissions,
            },
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            target,
            xattrs,
        };
        let file = NewFile {
            header: &header,
            expected: Some(name.checksum),
        };
        self.transaction.file(&file, &mut self.tar)?;
        Ok(())
    }
}
