//! The input of an image: a root filesystem on disk, or a commit in a repository, read into a tree.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use camino::Utf8Path;

use super::embedded::RootFiles;
use super::image_root::ImageRoot;
use super::inside::refuse_inside;
use super::{CommitOptions, Parent, Place, RootfsOptions, embedded};
use crate::component::{ComponentTable, Ownership, TreeFiles};
use crate::dpkg::{Database, Package};
use crate::layers::{self, Sharing};
use crate::oci::Platform;
use crate::ostree::{
    Commit, CommitInfo, ContentCache, ContentObjects, KnownObjects, MetadataValue, Repository,
    SecretKey, StoredCommit, detached_with,
};
use crate::progress::Progress;
use crate::registry::Image;
use crate::tree::{self, Contents, EntryId, Filter, Kind, Tree};

/// The metadata that says that a commit can be booted (ostree-core.h,
/// `OSTREE_METADATA_KEY_BOOTABLE`).
pub const BOOTABLE: &str = "ostree.bootable";
/// The metadata that names the version of its kernel (`OSTREE_METADATA_KEY_LINUX`).
pub const LINUX: &str = "ostree.linux";
/// The metadata that names the version of the whole (ostree-commit(1), "version").
pub const VERSION: &str = "version";

/// When the objects of files are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashPass {
    /// Before anything else: something depends on which files have changed.
    Ahead,
    /// As their content is written, so that it is read once.
    WhileWriting,
    /// Not at all: nothing asks for them.
    Never,
}

/// A system with its commit.
pub struct System {
    /// Every file, link and directory.
    pub tree: Tree,
    /// The content of the files.
    pub contents: Box<dyn Contents>,
    /// The names of the files' objects, as far as the files have been read.
    pub objects: KnownObjects,
    /// What there is when all files have been read.
    commit: OnceLock<(ContentObjects, Commit)>,
    /// What the commit is signed with.
    sign: Vec<SecretKey>,
    /// What the commit says of itself.
    pub info: CommitInfo,
    /// The command that the commit has for containers.
    pub container_cmd: Option<Vec<String>>,
    /// Metadata of the commit that is neither text nor a truth value: key and type.
    pub other_metadata: BTreeMap<String, String>,
}

impl System {
    /// Reads a root filesystem, with the content of its files where `hash_pass` says so.
    ///
    /// # Errors
    /// When it cannot be read or cannot be a commit.
    pub fn of_rootfs(
        options: &RootfsOptions,
        commit_options: &CommitOptions,
        hash_pass: HashPass,
        threads: NonZeroUsize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        for key in &commit_options.sign {
            key.check()?;
        }
        let cache = match (&options.cache, &options.rootfs) {
            (Some(cache), Place::Directory(path)) => {
                Some(open_cache(cache, path, &options.filter)?)
            }
            (Some(_), Place::Image(..)) => {
                tracing::warn!(
                    "the cache is not used: it is for files in a directory, and the {} is read from its layers",
                    options.rootfs
                );
                None
            }
            (None, _) => None,
        };
        let (mut tree, contents): (Tree, Box<dyn Contents>) = match &options.rootfs {
            Place::Directory(path) => {
                progress.begin("reading the tree", 0);
                let (mut tree, contents) = tree::scan(path, &options.filter, threads)?;
                progress.end();
                restore_directories(&mut tree, &contents, options)?;
                (tree, Box::new(contents))
            }
            Place::Image(reference, access) => {
                let image = Image::open(reference, access)?;
                let root = ImageRoot::read(&image, &options.filter, &options.rootfs, progress)?;
                let ImageRoot { mut tree, files } = root;
                restore_directories(&mut tree, &files, options)?;
                (tree, Box::new(files.into_contents()))
            }
        };
        if options.canonical_permissions {
            tree.make_canonical();
        }
        Commit::check(&tree).with_context(|| format!("making a commit of {}", options.rootfs))?;
        let info = commit_info(&tree, commit_options)?;
        let objects = KnownObjects::without_content(&tree);
        // What the cache knows takes no reading.
        if hash_pass == HashPass::Ahead || cache.is_some() {
            let contents = contents.as_ref();
            objects.hash_files(&tree, contents, tree.ids(), cache, threads, progress)?;
        }
        Ok(Self {
            tree,
            contents,
            objects,
            commit: OnceLock::new(),
            sign: commit_options.sign.clone(),
            info,
            container_cmd: None,
            other_metadata: BTreeMap::new(),
        })
    }

    /// Reads the commit that `name` stands for in a repository, without the content of its files,
    /// which is checked when it is read.
    ///
    /// # Errors
    /// When there is no such commit, an object of it is missing or damaged, or it has what no
    /// image can hold.
    pub fn of_commit(repository: &Repository, name: &str) -> Result<Self> {
        let checksum = repository.resolve(name)?;
        let stored = StoredCommit::read(repository, checksum).with_context(|| {
            format!("commit {checksum} of {} cannot be used", repository.path())
        })?;
        let StoredCommit {
            mut commit,
            parsed,
            tree,
            objects,
        } = stored;
        refuse_unrepresentable(&tree)
            .with_context(|| format!("commit {checksum} of {}", repository.path()))?;
        commit.detached = repository.detached_metadata(checksum)?;
        Ok(Self {
            contents: Box::new(repository.contents(objects.clone())),
            tree,
            objects: KnownObjects::all(&objects),
            commit: (objects, commit).into(),
            sign: Vec::new(),
            info: parsed.info,
            container_cmd: parsed.container_cmd,
            other_metadata: parsed.other_metadata,
        })
    }

    /// Reads those files of which it matters before layers are planned whether they are equal.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn hash_possible_duplicates(
        &self,
        ownership: &Ownership,
        sharing: Sharing,
        threads: NonZeroUsize,
        progress: &dyn Progress,
    ) -> Result<()> {
        let files = layers::possible_duplicates(&self.tree, ownership, sharing);
        let contents = self.contents.as_ref();
        let files = files.into_iter();
        self.objects
            .hash_files(&self.tree, contents, files, None, threads, progress)
    }

    /// The names of all objects.
    ///
    /// # Errors
    /// As [`System::commit`].
    pub fn content_objects(&self) -> Result<&ContentObjects> {
        Ok(&self.complete()?.0)
    }

    /// The commit, signed where that is asked for.
    ///
    /// # Errors
    /// When a file has not been read, or it cannot be signed.
    pub fn commit(&self) -> Result<&Commit> {
        Ok(&self.complete()?.1)
    }

    fn complete(&self) -> Result<&(ContentObjects, Commit)> {
        if let Some(complete) = self.commit.get() {
            return Ok(complete);
        }
        let objects = self.objects.complete(&self.tree)?;
        let mut commit = Commit::of_tree(&self.tree, &objects, &self.info)?;
        for key in &self.sign {
            let (name, signatures) = key.sign(&commit.object)?;
            let detached = detached_with(commit.detached.as_deref(), &name, signatures)?;
            commit.detached = Some(detached);
        }
        Ok(self.commit.get_or_init(|| (objects, commit)))
    }

    /// The time that the image gets, in seconds since the epoch.
    pub fn timestamp(&self) -> u64 {
        self.info.timestamp
    }

    /// Whether the commit says that it can be booted.
    pub fn is_bootable(&self) -> bool {
        self.info.metadata.get(BOOTABLE) == Some(&MetadataValue::Bool(true))
    }
}

/// Gives directories back what the image that a rootfs is of has lost of them.
fn restore_directories(
    tree: &mut Tree,
    files: &dyn RootFiles,
    options: &RootfsOptions,
) -> Result<()> {
    if options.filter.excludes("sysroot") {
        return Ok(());
    }
    embedded::restore_directories(tree, files)
        .with_context(|| format!("reading rootfs {}", options.rootfs))
}

/// Opens the cache of a build that reads `rootfs`, which must not hold it.
fn open_cache(directory: &Utf8Path, rootfs: &Utf8Path, filter: &Filter) -> Result<ContentCache> {
    // A directory that is there may be a volume itself.
    let file = directory.join("checksums");
    let path = if directory.is_dir() { &file } else { directory };
    refuse_inside("cache", path, rootfs, filter)?;
    ContentCache::open(directory)
}

/// What dpkg says of a system.
pub struct Packages {
    /// Who owns what.
    pub ownership: Ownership,
    /// The packages, by name.
    pub installed: Vec<Package>,
    /// The architecture they are for.
    pub architecture: Option<Platform>,
}

impl Packages {
    /// Reads the package database of `system`; `name` is what the user calls that, `table` what he
    /// says of paths.
    ///
    /// # Errors
    /// When the database cannot be read or understood.
    pub fn of(
        system: &System,
        admin_dir: Option<&str>,
        table: Option<&ComponentTable>,
        name: &dyn std::fmt::Display,
    ) -> Result<Self> {
        let files = TreeFiles {
            tree: &system.tree,
            contents: system.contents.as_ref(),
        };
        let database = Database::load(&files, admin_dir)
            .with_context(|| format!("reading dpkg's database in {name}"))?;
        let count = database.as_ref().map_or(0, |d| d.packages.len());
        match &database {
            Some(_) if count > 0 => tracing::debug!("{count} packages"),
            Some(database) => tracing::warn!(
                "dpkg's database in {}, {name}, has no packages: layers cannot follow them",
                database.admin_dir()
            ),
            None => tracing::warn!(
                "{name} has no dpkg database (looked in /var/lib/dpkg and /usr/lib/sysimage/dpkg): layers cannot follow packages"
            ),
        }
        let ownership = Ownership::of_tree(&system.tree, database.as_ref(), &files, table)
            .with_context(|| format!("reading dpkg's file lists in {name}"))?;
        let debian = database.as_ref().and_then(Database::architecture);
        let architecture = debian.and_then(|name| Platform::from_name(name).ok());
        Ok(Self {
            ownership,
            installed: database.map_or_else(Vec::new, |database| database.packages),
            architecture,
        })
    }
}

/// What the commit of a tree says of itself.
pub fn commit_info(tree: &Tree, options: &CommitOptions) -> Result<CommitInfo> {
    let mut metadata = BTreeMap::new();
    if let Some(version) = kernel_version(tree) {
        metadata.insert(BOOTABLE.into(), MetadataValue::Bool(true));
        metadata.insert(LINUX.into(), MetadataValue::String(version));
    }
    if let Some(version) = &options.version {
        metadata.insert(VERSION.into(), MetadataValue::String(version.clone()));
    }
    metadata.extend(options.metadata.clone());
    let parent = match (&options.parent, &options.store) {
        (Parent::None, _) | (Parent::Branch, None) => None,
        (Parent::Branch, Some(store)) => store.branch_commit()?,
        (Parent::Commit(checksum), _) => Some(*checksum),
    };
    Ok(CommitInfo {
        parent,
        subject: options.subject.clone(),
        body: options.body.clone(),
        timestamp: options.timestamp.unwrap_or_else(|| newest_mtime(tree)),
        metadata,
    })
}

/// The time of the newest file, which a copy of the rootfs has too; times of directories tell
/// when something was last installed or copied.
fn newest_mtime(tree: &Tree) -> u64 {
    let files = tree.ids().map(|id| tree.entry(id));
    let times = files.filter(|entry| entry.kind == Kind::Regular);
    let newest = times.map(|entry| entry.mtime).max().unwrap_or(0);
    u64::try_from(newest).unwrap_or(0)
}

/// The version of the kernel that can be booted from the commit: where libostree looks for it
/// (`ostree_commit_metadata_for_bootable`), `/usr/lib/modules/VERSION/vmlinuz`.
fn kernel_version(tree: &Tree) -> Option<String> {
    let modules = tree.locate("usr/lib/modules")?;
    let has_kernel = |id: &&EntryId| tree.child(**id, "vmlinuz").is_some();
    let kernels: Vec<&str> = (tree.children(modules).iter())
        .filter(has_kernel)
        .map(|id| tree.name(*id))
        .collect();
    if kernels.len() > 1 {
        tracing::warn!(
            "several kernels in /usr/lib/modules ({}): bootc and OSTree expect one",
            kernels.join(", ")
        );
    }
    kernels.last().map(|version| (*version).to_owned())
}

/// A commit may hold what a container tool would take for something else.
fn refuse_unrepresentable(tree: &Tree) -> Result<()> {
    let whiteout = tree.ids().find(|id| tree.name(*id).starts_with(".wh."));
    if let Some(id) = whiteout {
        bail!(
            "/{} cannot be in a container image: tools take its name for a whiteout (a deleted file); commit the system without it",
            tree.path(id)
        );
    }
    if tree.locate("sysroot/ostree").is_some() {
        bail!(
            "it has a directory /sysroot/ostree, which is where a container image keeps the commit itself; commit the system with /sysroot empty"
        );
    }
    Ok(())
}
