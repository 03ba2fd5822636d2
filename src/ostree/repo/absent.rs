//! Stands in for repositories in a program that was built without libostree: opening one is an
//! error, and nothing else can ever be called.

use std::convert::Infallible;
use std::io::Read;

use anyhow::{Result, bail};
use camino::Utf8Path;

use super::NewFile;
use crate::checksum::Checksum;
use crate::ostree::commit::Commit;
use crate::ostree::objects::ContentObjects;
use crate::ostree::stored::{FileHeader, FileStore, MetadataKind, ObjectStore};
use crate::tree::{Contents, EntryId, Tree};

const WITHOUT: &str = "this apt-ostree-helper was built without libostree; use one built with it (cargo build --features libostree)";

/// A repository; there is none in this program.
pub struct Repository(Infallible);

impl Repository {
    /// # Errors
    /// Always.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        bail!("the repository {path} cannot be opened: {WITHOUT}");
    }

    /// Never called.
    pub fn path(&self) -> &Utf8Path {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn resolve(&self, _name: &str) -> Result<Checksum> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn branch(&self, _name: &str) -> Result<Option<Checksum>> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn check_branch(&self, _name: &str) -> Result<()> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn set_branch(&self, _name: &str, _commit: Checksum) -> Result<()> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn detached_metadata(&self, _commit: Checksum) -> Result<Option<Vec<u8>>> {
        match self.0 {}
    }

    /// Never called.
    pub fn is_canonical_only(&self) -> bool {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn has_file(&self, _checksum: Checksum) -> Result<bool> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        match self.0 {}
    }

    /// Never called.
    pub fn contents(&self, _objects: ContentObjects) -> StoredContents {
        match self.0 {}
    }
}

impl ObjectStore for Repository {
    fn metadata(&self, _kind: MetadataKind, _checksum: Checksum) -> Result<Option<Vec<u8>>> {
        match self.0 {}
    }
}

impl FileStore for Repository {
    fn file(&self, _checksum: Checksum) -> Result<Option<FileHeader>> {
        match self.0 {}
    }
}

/// The content of files in a repository; there is none in this program.
pub struct StoredContents(Infallible);

impl Contents for StoredContents {
    fn open(&self, _tree: &Tree, _id: EntryId) -> Result<Box<dyn Read + '_>> {
        match self.0 {}
    }
}

/// Objects on their way into a repository; there is none in this program.
pub struct Transaction<'a>(Infallible, std::marker::PhantomData<&'a ()>);

impl Transaction<'_> {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn metadata(&self, _kind: MetadataKind, _checksum: Checksum, _object: &[u8]) -> Result<()> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn file(&mut self, _file: &NewFile<'_>, _content: &mut dyn Read) -> Result<Checksum> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn has_file(&self, _checksum: Checksum) -> Result<bool> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn commit(self, _commit: &Commit, _branch: Option<&str>) -> Result<()> {
        match self.0 {}
    }
}

/// # Errors
/// Always.
pub fn sign_with_libostree(kind: &str, _keys: &[Vec<u8>], _data: &[u8]) -> Result<Vec<Vec<u8>>> {
    bail!("signatures of type '{kind}' cannot be made: {WITHOUT}");
}

/// # Errors
/// Always.
pub fn verify_with_libostree(
    kind: &str,
    _keys: &[Vec<u8>],
    _data: &[u8],
    _signatures: &[Vec<u8>],
) -> Result<bool> {
    bail!("signatures of type '{kind}' cannot be checked: {WITHOUT}");
}
