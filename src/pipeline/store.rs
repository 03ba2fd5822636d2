//! Stores a commit and all its objects in a repository.

use anyhow::{Context, Result, ensure};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::system::System;
use crate::checksum::Checksum;
use crate::ostree::{FileHeader, MetadataKind, NewFile, Repository, Transaction};
use crate::progress::Progress;
use crate::tree::{EntryId, Kind};

/// Where a commit is stored.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The repository.
    pub repo: Utf8PathBuf,
    /// The branch that points at the commit then.
    pub branch: Option<String>,
}

impl StoreOptions {
    /// Opens the repository, and checks what can be checked before any work.
    pub(super) fn open(&self) -> Result<Repository> {
        let repository = Repository::open(&self.repo)?;
        if let Some(branch) = &self.branch {
            repository.check_branch(branch)?;
        }
        Ok(repository)
    }

    /// The same without a branch.
    pub(super) fn without_branch(&self) -> Self {
        Self {
            repo: self.repo.clone(),
            branch: None,
        }
    }

    /// Makes the branch, if there is one, point at a commit that is stored.
    pub(super) fn set_branch(&self, commit: Checksum) -> Result<()> {
        match &self.branch {
            Some(branch) => self.open()?.set_branch(branch, commit),
            None => Ok(()),
        }
    }

    /// The commit that the branch points at now, if there is one.
    pub(super) fn branch_commit(&self) -> Result<Option<Checksum>> {
        match &self.branch {
            Some(branch) => self.open()?.branch(branch),
            None => Ok(None),
        }
    }
}

/// A commit in a repository.
#[derive(Debug, Serialize)]
pub struct Committed {
    /// Its checksum.
    pub commit: String,
    /// Seconds since the epoch: its date.
    pub timestamp: u64,
    /// Entries in it.
    pub entries: usize,
    /// Objects of files that the repository did not have.
    pub objects_written: usize,
    /// Bytes of their content.
    pub bytes_written: u64,
}

/// Writes what the repository has not: the content of files, directories, the commit; then the
/// branch.
pub fn store(
    system: &System,
    options: &StoreOptions,
    progress: &dyn Progress,
) -> Result<Committed> {
    let repository = options.open()?;
    let commit = system.commit()?;
    let mut transaction = repository.transaction()?;
    let (objects_written, bytes_written) = write_files(system, &mut transaction, progress)
        .with_context(|| format!("storing commit {} in {}", commit.checksum, options.repo))?;
    for (checksum, object) in &commit.dirmetas {
        transaction.metadata(MetadataKind::Dirmeta, *checksum, object)?;
    }
    for (checksum, object) in &commit.dirtrees {
        transaction.metadata(MetadataKind::Dirtree, *checksum, object)?;
    }
    transaction.commit(commit, options.branch.as_deref())?;
    Ok(Committed {
        commit: commit.checksum.to_string(),
        timestamp: system.timestamp(),
        entries: system.tree.len(),
        objects_written,
        bytes_written,
    })
}

/// Gives the number of objects that were missing, and the bytes of their content.
fn write_files(
    system: &System,
    transaction: &mut Transaction<'_>,
    progress: &dyn Progress,
) -> Result<(usize, u64)> {
    let tree = &system.tree;
    let first = system.content_objects()?.first_entries(tree);
    let mut first: Vec<(Checksum, EntryId)> = first.into_iter().collect();
    // In the order of the tree, which is nearly that of the disk.
    first.sort_unstable_by_key(|(_, id)| *id);
    let mut missing = Vec::new();
    for (checksum, id) in first {
        if !transaction.has_file(checksum)? {
            missing.push((checksum, id));
        }
    }
    let sizes = missing.iter().map(|(_, id)| tree.entry(*id).size);
    let total = sizes.fold(0, u64::saturating_add);
    progress.begin("storing files", total);
    let count = missing.len();
    for (checksum, id) in missing {
        write_file(system, transaction, checksum, id)
            .with_context(|| format!("storing /{}", tree.path(id)))?;
        progress.done(tree.entry(id).size)?;
    }
    progress.end();
    Ok((count, total))
}

fn write_file(
    system: &System,
    transaction: &mut Transaction<'_>,
    checksum: Checksum,
    id: EntryId,
) -> Result<()> {
    let tree = &system.tree;
    let entry = tree.entry(id);
    let header = FileHeader {
        kind: entry.kind,
        permissions: entry.permissions(),
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        target: tree.target(id).to_owned(),
        xattrs: tree.xattrs(id).clone(),
    };
    let file = NewFile {
        header: &header,
        expected: Some(checksum),
    };
    let written = if entry.kind == Kind::Regular && entry.size > 0 {
        let mut content = system.contents.open(tree, id)?;
        transaction.file(&file, &mut content)?
    } else {
        transaction.file(&file, &mut std::io::empty())?
    };
    ensure!(
        written == checksum,
        "it became object {written}.file, not {checksum}.file"
    );
    Ok(())
}
