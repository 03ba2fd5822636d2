//! The layers of an encapsulated OSTree commit: an object store and a checkout of it in one, as
//! ostree-ext defined it ("tar/export.rs"): objects below `sysroot/ostree/repo`, hard links to them
//! where the files are.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use anyhow::Result;

use super::members::{LayerArchive, Source};
use crate::checksum::Checksum;
use crate::oci::MemberKind;
use crate::ostree::{Commit, gvariant};
use crate::tree::{EntryId, Kind};

/// Whether content layers repeat the directories that their entries are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatVersion {
    /// They do not: a runtime makes up missing ones, owned by root, 0755.
    V1,
    /// They do, with the commit's metadata.
    V2,
}

const SYSROOT: &str = "sysroot";
const OSTREE: &str = "sysroot/ostree";
const REPO: &str = "sysroot/ostree/repo";
const OBJECTS: &str = "sysroot/ostree/repo/objects";
/// Directories of a repository besides `objects`.
const REPO_DIRECTORIES: [&str; 8] = [
    "extensions",
    "refs",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "state",
    "tmp",
    "tmp/cache",
];
const REPO_CONFIG: &str = "[core]\nrepo_version=1\nmode=bare-split-xattrs\n";
/// Hard links that one file of a layer gets; ext4 allows 65,000.
const MAX_LINKS: usize = 60_000;

/// Writes layer 0 to `out` and gives `out` back: the repository, the commit and its metadata
/// objects, every directory, the objects of empty files (whose paths are no links, so that they
/// need no place in a content layer), and `content`, for an image of one layer.
///
/// # Errors
/// When a file cannot be read, changes meanwhile, or `out` fails.
pub fn write_commit_layer<W: Write>(
    source: Source<'_>,
    commit: &Commit,
    content: &[EntryId],
    out: W,
    buffer: &mut [u8],
) -> Result<W> {
    let tree = source.tree;
    let mut layer = Encapsulated::new(source, out, buffer);
    layer.archive.lone_directory(EntryId::ROOT)?;
    layer.repository()?;
    layer.metadata_object(commit.checksum, "commit", &commit.object)?;
    if let Some(detached) = &commit.detached {
        layer.metadata_object(commit.checksum, "commitmeta", detached)?;
    }
    for (checksum, object) in &commit.dirmetas {
        layer.metadata_object(*checksum, "dirmeta", object)?;
    }
    for (checksum, object) in &commit.dirtrees {
        layer.metadata_object(*checksum, "dirtree", object)?;
    }
    for id in tree.ids().filter(|id| tree.entry(*id).is_dir()) {
        layer.archive.directory(id)?;
    }
    layer.standard_var()?;
    for id in tree.ids() {
        let entry = tree.entry(id);
        if entry.kind == Kind::Regular && entry.size == 0 {
            layer.object(id)?;
        }
    }
    for id in content {
        layer.content(*id)?;
    }
    Ok(layer.archive.tar.finish()?)
}

/// Writes a content layer with `entries` to `out` and gives `out` back.
///
/// # Errors
/// As [`write_commit_layer`].
pub fn write_content_layer<W: Write>(
    source: Source<'_>,
    entries: &[EntryId],
    version: FormatVersion,
    out: W,
    buffer: &mut [u8],
) -> Result<W> {
    let tree = source.tree;
    let mut layer = Encapsulated::new(source, out, buffer);
    if version == FormatVersion::V2 {
        layer.archive.lone_directory(EntryId::ROOT)?;
    }
    for id in entries.iter().filter(|id| !tree.entry(**id).is_dir()) {
        if version == FormatVersion::V2 {
            layer.archive.directory(tree.entry(*id).parent)?;
        }
        layer.content(*id)?;
    }
    Ok(layer.archive.tar.finish()?)
}

/// One layer being written.
struct Encapsulated<'a, W: Write> {
    archive: LayerArchive<'a, W>,
    /// Which of `objects/00` to `objects/ff` are there.
    object_directories: HashSet<u8>,
    /// The content objects that are there, with the number of links to each.
    links: HashMap<Checksum, usize>,
}

/// OSTree knows no times.
fn no_mtime(_: EntryId) -> u64 {
    0
}

impl<'a, W: Write> Encapsulated<'a, W> {
    fn new(source: Source<'a>, out: W, buffer: &'a mut [u8]) -> Self {
        Self {
            archive: LayerArchive::new(source, out, &no_mtime, buffer),
            object_directories: HashSet::new(),
            links: HashMap::new(),
        }
    }

    /// A path, and before the first path of an object the object itself.
    fn content(&mut self, id: EntryId) -> Result<()> {
        let tree = self.archive.source.tree;
        let entry = tree.entry(id);
        let path = tree.path(id);
        match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::Regular if entry.size == 0 => return self.archive.file(id, path.as_str()),
            Kind::Regular | Kind::Symlink => {}
        }
        let checksum = self.object(id)?;
        let links = self.links.entry(checksum).or_default();
        *links += 1;
        if *links < MAX_LINKS {
            let target = object_path(checksum, "file");
            let link = MemberKind::HardLink(&target);
            self.archive.entry(id, path.as_str(), link, false)
        } else if entry.kind == Kind::Symlink {
            let link = MemberKind::Symlink(tree.target(id));
            self.archive.entry(id, path.as_str(), link, true)
        } else {
            self.archive.file(id, path.as_str())
        }
    }

    /// The object of a regular file or link with its attributes before it, once; gives its name.
    fn object(&mut self, id: EntryId) -> Result<Checksum> {
        let tree = self.archive.source.tree;
        let buffered = self.archive.read(id)?;
        let checksum = self.archive.name(id)?;
        if self.links.contains_key(&checksum) {
            return Ok(checksum);
        }
        self.links.insert(checksum, 0);
        self.object_directory(checksum.as_bytes()[0])?;
        let xattrs = gvariant::xattrs(tree.xattrs(id));
        let tar = &mut self.archive.tar;
        tar.append_bytes(&object_path(checksum, "file-xattrs-link"), &xattrs)?;
        let path = object_path(checksum, "file");
        match (tree.entry(id).kind, buffered) {
            (Kind::Symlink, _) => {
                let link = MemberKind::Symlink(tree.target(id));
                self.archive.entry(id, &path, link, true)?;
            }
            (_, Some(buffered)) => self.archive.buffered_file(id, &path, buffered)?,
            (_, None) => self.archive.file(id, &path)?,
        }
        Ok(checksum)
    }

    fn metadata_object(&mut self, checksum: Checksum, kind: &str, object: &[u8]) -> Result<()> {
        let path = object_path(checksum, kind);
        self.archive.tar.append_bytes(&path, object)
    }

    /// The empty repository.
    fn repository(&mut self) -> Result<()> {
        for prefix in 0..=u8::MAX {
            self.object_directory(prefix)?;
        }
        for directory in REPO_DIRECTORIES {
            self.default_directory(&format!("{REPO}/{directory}"), 0o755)?;
        }
        let config = format!("{REPO}/config");
        self.archive
            .tar
            .append_bytes(&config, REPO_CONFIG.as_bytes())
    }

    /// The directory of objects whose checksum begins with `prefix`, and those above it, where
    /// the layer has them not. `/sysroot` looks as the tree's does.
    fn object_directory(&mut self, prefix: u8) -> Result<()> {
        if self.object_directories.is_empty() {
            let tree = self.archive.source.tree;
            match tree.child(EntryId::ROOT, SYSROOT) {
                Some(id) if tree.entry(id).is_dir() => self.archive.lone_directory(id)?,
                _ => self.default_directory(SYSROOT, 0o755)?,
            }
            for directory in [OSTREE, REPO, OBJECTS] {
                self.default_directory(directory, 0o755)?;
            }
        }
        if self.object_directories.insert(prefix) {
            self.default_directory(&format!("{OBJECTS}/{prefix:02x}"), 0o755)?;
        }
        Ok(())
    }

    /// `/var/tmp`, which `podman run` of a commit with an empty `/var` needs.
    fn standard_var(&mut self) -> Result<()> {
        let tree = self.archive.source.tree;
        if tree.resolve("var/tmp").is_some() {
            return Ok(());
        }
        match tree.child(EntryId::ROOT, "var") {
            None => self.default_directory("var", 0o755)?,
            Some(id) if tree.entry(id).is_dir() => {}
            // A link: what it leads to is not there yet, and not ours to make.
            Some(_) => return Ok(()),
        }
        if tree.locate("var/tmp").is_none() {
            self.default_directory("var/tmp", 0o1777)?;
        }
        Ok(())
    }

    fn default_directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        let member = crate::oci::Member {
            path,
            kind: MemberKind::Directory,
            permissions,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        self.archive.tar.append(&member, &[])
    }
}

fn object_path(checksum: Checksum, kind: &str) -> String {
    let hex = checksum.to_string();
    let (prefix, rest) = hex.split_at(2);
    format!("{OBJECTS}/{prefix}/{rest}.{kind}")
}
