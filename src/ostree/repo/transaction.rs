//! Writing to a repository: all or nothing.

use std::io::{Read, Seek, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use ostree::gio::{self, prelude::*};
use ostree::glib;
use ostree::{ObjectType, Repo, RepoMode};
use sha2::{Digest, Sha256};

use super::NewFile;
use super::linked::{NO_CANCELLABLE, Repository, object_type, variant};
use super::staging::{begin_alone, lock_of, own, remove_killed, staging_directory};
use crate::checksum::Checksum;
use crate::ostree::commit::Commit;
use crate::ostree::gvariant;
use crate::ostree::objects::content_header_of_object;
use crate::ostree::stored::{FileHeader, MetadataKind};
use crate::tree::Kind;
use crate::undo::{Undo, remove_tree};

/// Files up to this size are written from memory, in bytes.
///
/// Their checksums are computed here: Debian's libostree is built without a library that uses the
/// processor's instructions for SHA-256, and takes several times as long.
const IN_MEMORY: u64 = 16 << 20;

/// Objects on their way into a repository. Dropped without [`Transaction::commit`], it leaves the
/// repository as it was.
pub struct Transaction<'a> {
    repository: &'a Repository,
    /// Removes what was written so far, also when a signal ends the process; none when that is
    /// over.
    undo: Option<Undo>,
    /// The commits that were written.
    commits: Commits,
    buffer: Vec<u8>,
}

/// Names of commits, and whether it was this transaction that marked each as partial; shared with
/// what undoes the marks when a signal ends the process.
type Commits = Arc<Mutex<Vec<(String, bool)>>>;

impl Repository {
    /// Begins to write; nothing is seen before [`Transaction::commit`].
    ///
    /// # Errors
    /// When the repository cannot be written to.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        Transaction::begin(self)
    }
}

impl<'a> Transaction<'a> {
    fn begin(repository: &'a Repository) -> Result<Self> {
        let (path, repo) = (repository.path(), repository.inner());
        // Where a repository is told not to sync, libostree puts objects in their place at once,
        // and an abort would leave them there. One sync in the end is the price.
        repo.set_disable_fsync(false);
        let begin = || -> Result<Option<Utf8PathBuf>> {
            let _alone = begin_alone(path);
            remove_killed(path);
            if let Err(e) = repo.prepare_transaction(NO_CANCELLABLE) {
                // libostree leaves its lock then.
                remove_killed(path);
                return Err(e.into());
            }
            let staging = staging_directory(path);
            if let Some(staging) = &staging {
                // What a process without the mark leaves, libostree takes for the next transaction.
                if let Err(e) = own(staging) {
                    tracing::debug!("marking {staging}: {e}");
                }
            }
            Ok(staging)
        };
        let commits = Commits::default();
        let remove = |staging: &Option<Utf8PathBuf>| {
            let (staging, commits) = (staging.clone(), Arc::clone(&commits));
            let path = path.to_owned();
            move || {
                if let Some(staging) = staging {
                    remove_tree(&staging);
                    // libostree would remove it, too, were it asked to end.
                    let _ = std::fs::remove_file(lock_of(&staging));
                }
                for (commit, is_ours) in locked(&commits).drain(..) {
                    // A commit that came to its place before others failed to is partial indeed.
                    if is_ours && is_there(&object(&path, &commit)).is_ok_and(|there| !there) {
                        let _ = std::fs::remove_file(mark(&path, &commit));
                    }
                }
            }
        };
        let (_, undo) = Undo::around(begin, remove)
            .with_context(|| format!("the repository {path} cannot be written to"))?;
        Ok(Self {
            repository,
            undo: Some(undo),
            commits,
            buffer: Vec::new(),
        })
    }

    /// Marks a commit as one that not all objects are there of (`state/COMMIT.commitpartial`),
    /// unless the repository has it, or others have marked it.
    fn mark_partial(&self, commit: &str) -> Result<()> {
        let path = self.repository.path();
        // Not what libostree says, which counts what is only staged.
        let is_new = !is_there(&object(path, commit))? && !is_there(&mark(path, commit))?;
        locked(&self.commits).push((commit.to_owned(), is_new));
        if is_new {
            self.repo().mark_commit_partial(commit, true)?;
        }
        Ok(())
    }

    /// Writes a metadata object, unless it is there.
    ///
    /// # Errors
    /// When it is not what its name says, or cannot be written.
    pub fn metadata(&self, kind: MetadataKind, checksum: Checksum, object: &[u8]) -> Result<()> {
        let of_type = match kind {
            MetadataKind::Commit => "(a{sv}aya(say)sstayay)",
            MetadataKind::Dirtree => "(a(say)a(sayay))",
            MetadataKind::Dirmeta => "(uuua(ayay))",
        };
        let extension = kind.extension();
        let actual = Checksum::of(object);
        ensure!(
            actual == checksum,
            "object {checksum}.{extension} is damaged: its content has the checksum {actual}"
        );
        let object = variant(object, of_type)?;
        let name = checksum.to_string();
        if kind == MetadataKind::Commit {
            self.mark_partial(&name)?;
        }
        self.repo()
            .write_metadata(object_type(kind), Some(&name), &object, NO_CANCELLABLE)
            .with_context(|| {
                let path = self.repository.path();
                format!("writing object {checksum}.{extension} to {path}")
            })?;
        Ok(())
    }

    /// Writes a content object and gives its checksum. `content` is read to its end, which must
    /// come after as many bytes as the header says.
    ///
    /// # Errors
    /// When reading fails, the object is not what was expected, or it cannot be written.
    pub fn file(&mut self, file: &NewFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        let written = match file.header.kind {
            Kind::Symlink => self.symlink(file),
            _ if file.header.size <= IN_MEMORY => self.in_memory(file, content),
            _ if self.repo().mode() == RepoMode::Archive => self.spooled(file, content),
            _ => self.streamed(file, content),
        };
        let path = self.repository.path();
        let written = match file.expected {
            Some(checksum) => {
                written.with_context(|| format!("writing object {checksum}.file to {path}"))
            }
            None => written.with_context(|| format!("writing to {path}")),
        }?;
        if self.repo().mode() == RepoMode::Archive {
            self.read_back(written)
                .with_context(|| format!("reading object {written}.filez back in {path}"))?;
        }
        Ok(written)
    }

    /// libostree (2022.7 at least) loses the error of the last write of a compressed object, so
    /// that one which did not fit on the disk is cut short and counts as written.
    fn read_back(&mut self, checksum: Checksum) -> Result<()> {
        let name = checksum.to_string();
        let (stream, _) =
            self.repo()
                .load_object_stream(ObjectType::File, &name, NO_CANCELLABLE)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(256 * 1024, 0);
        let mut hasher = Sha256::new();
        loop {
            match stream.read(&mut buffer[..], NO_CANCELLABLE)? {
                0 => break,
                got => hasher.update(&buffer[..got]),
            }
        }
        self.buffer = buffer;
        let found = Checksum::finish(hasher);
        ensure!(
            found == checksum,
            "it is damaged, though it was written without an error: the disk may be full"
        );
        Ok(())
    }

    fn symlink(&self, file: &NewFile<'_>) -> Result<Checksum> {
        let FileHeader {
            uid, gid, target, ..
        } = file.header;
        let xattrs = xattrs(file.header)?;
        let expected = file.expected.map(|checksum| checksum.to_string());
        let written = self.repo().write_symlink(
            expected.as_deref(),
            *uid,
            *gid,
            Some(&xattrs),
            target,
            NO_CANCELLABLE,
        )?;
        Checksum::from_hex(&written)
    }

    fn in_memory(&mut self, file: &NewFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        let header = file.header;
        let mut bytes = Vec::with_capacity(usize::try_from(header.size)? + 1);
        // One byte more than there should be tells that there are more.
        content.take(header.size + 1).read_to_end(&mut bytes)?;
        ensure_size(header, bytes.len() as u64)?;
        let mut hasher = Sha256::new_with_prefix(content_header_of_object(header));
        hasher.update(&bytes);
        let checksum = expected(file, Checksum::finish(hasher))?;
        let input = gio::MemoryInputStream::from_bytes(&glib::Bytes::from_owned(bytes));
        self.content(header, checksum, &input)?;
        Ok(checksum)
    }

    /// Writes an object whose checksum has been computed.
    fn content(
        &self,
        header: &FileHeader,
        checksum: Checksum,
        input: &impl IsA<gio::InputStream>,
    ) -> Result<()> {
        let info = gio::FileInfo::new();
        info.set_file_type(gio::FileType::Regular);
        info.set_size(i64::try_from(header.size)?);
        info.set_attribute_uint32("unix::uid", header.uid);
        info.set_attribute_uint32("unix::gid", header.gid);
        info.set_attribute_uint32("unix::mode", header.mode());
        let xattrs = xattrs(header)?;
        let (stream, length) =
            ostree::raw_file_to_content_stream(input, &info, Some(&xattrs), NO_CANCELLABLE)?;
        let name = checksum.to_string();
        self.repo()
            .write_content_trusted(&name, &stream, length, NO_CANCELLABLE)?;
        Ok(())
    }

    fn streamed(&mut self, file: &NewFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        let header = file.header;
        let expected = file.expected.map(|checksum| checksum.to_string());
        let writer = self.repo().write_regfile(
            expected.as_deref(),
            header.uid,
            header.gid,
            header.mode(),
            header.size,
            Some(&xattrs(header)?),
        )?;
        let copied = in_pieces(&mut self.buffer, content, header.size, |piece| {
            let (_, failed) = writer.write_all(piece, NO_CANCELLABLE)?;
            failed.map_or(Ok(()), |failed| Err(failed.into()))
        })?;
        let more = in_pieces(&mut self.buffer, content, 1, |_| Ok(()))?;
        ensure_size(header, copied + more)?;
        Checksum::from_hex(&writer.finish(NO_CANCELLABLE)?)
    }

    /// libostree compresses for `archive` only from a stream of its own kind.
    fn spooled(&mut self, file: &NewFile<'_>, content: &mut dyn Read) -> Result<Checksum> {
        let header = file.header;
        let path = self.repository.path().join("tmp");
        let mut spool =
            tempfile::tempfile_in(&path).with_context(|| format!("making a file in {path}"))?;
        let mut hasher = Sha256::new_with_prefix(content_header_of_object(header));
        let copied = in_pieces(&mut self.buffer, content, header.size + 1, |piece| {
            hasher.update(piece);
            Ok(spool.write_all(piece)?)
        })?;
        ensure_size(header, copied)?;
        let checksum = expected(file, Checksum::finish(hasher))?;
        spool.rewind()?;
        self.content(header, checksum, &gio::ReadInputStream::new(spool))?;
        Ok(checksum)
    }

    /// Whether the object is in the repository or written already.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has_file(&self, checksum: Checksum) -> Result<bool> {
        self.repository.has_file(checksum)
    }

    /// Makes all that was written part of the repository, with `branch` pointing at `commit`, whose
    /// detached metadata is set too. Of it, and of every other commit that was written, all objects
    /// must have been written or be there. The commit counts as partial until everything is in its
    /// place, so that `ostree fsck` passes at every moment.
    ///
    /// # Errors
    /// When the repository cannot be written; nothing is named by a branch then.
    pub fn commit(mut self, commit: &Commit, branch: Option<&str>) -> Result<()> {
        let path = self.repository.path();
        let repo = self.repo();
        let name = commit.checksum.to_string();
        let context = || format!("writing to the repository {path}");
        self.metadata(MetadataKind::Commit, commit.checksum, &commit.object)?;
        if let Some(detached) = &commit.detached {
            let detached = variant(detached, "a{sv}")?;
            repo.write_commit_detached_metadata(&name, Some(&detached), NO_CANCELLABLE)
                .with_context(context)?;
        }
        let commits = Arc::clone(&self.commits);
        let (repository, checksum) = (self.repository, commit.checksum);
        // A signal waits until the branch is set too: all of it is there then, or nothing.
        let commit = || -> Result<()> {
            // Another process may have finished the same commit meanwhile, or given it up.
            for (commit, _) in locked(&commits).iter() {
                repo.mark_commit_partial(commit, true)
                    .with_context(context)?;
            }
            repo.commit_transaction(NO_CANCELLABLE)
                .with_context(context)?;
            // Also where an earlier pull, or a process that was killed, has left a mark.
            for (commit, _) in locked(&commits).drain(..) {
                repo.mark_commit_partial(&commit, false)
                    .with_context(context)?;
            }
            match branch {
                Some(branch) => repository.set_branch(branch, checksum),
                None => Ok(()),
            }
        };
        match self.undo.take() {
            Some(undo) => undo.disarm_with(commit),
            None => commit(),
        }
    }

    fn repo(&self) -> &'a Repo {
        self.repository.inner()
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // First, while the staging directory is locked: libostree would keep it for the next
        // transaction.
        if let Some(undo) = self.undo.take() {
            drop(undo);
            if let Err(e) = self.repo().abort_transaction(NO_CANCELLABLE) {
                tracing::warn!("cleaning up in {}: {e}", self.repository.path());
            }
        }
    }
}

/// Where the object of a commit is.
fn object(repository: &Utf8Path, commit: &str) -> Utf8PathBuf {
    let (prefix, rest) = commit.split_at(2);
    repository.join(format!("objects/{prefix}/{rest}.commit"))
}

/// Where a commit is marked as partial.
fn mark(repository: &Utf8Path, commit: &str) -> Utf8PathBuf {
    repository.join(format!("state/{commit}.commitpartial"))
}

/// The names; a panic elsewhere must not keep marks from being removed.
fn locked(commits: &Commits) -> MutexGuard<'_, Vec<(String, bool)>> {
    commits
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether something is at `path`.
fn is_there(path: &Utf8Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("looking at {path}")),
    }
}

fn xattrs(header: &FileHeader) -> Result<ostree::glib::Variant> {
    variant(&gvariant::xattrs(&header.xattrs), "a(ayay)")
}

/// Hands `content` over in pieces, of not more than `limit` bytes altogether; gives their number.
fn in_pieces(
    buffer: &mut Vec<u8>,
    content: &mut dyn Read,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut content = content.take(limit);
    buffer.resize(256 * 1024, 0);
    let mut copied = 0;
    loop {
        let got = match content.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            got => got?,
        };
        if got == 0 {
            return Ok(copied);
        }
        copied += got as u64;
        take(&buffer[..got])?;
    }
}

/// What the object is called, which must be what was expected.
fn expected(file: &NewFile<'_>, found: Checksum) -> Result<Checksum> {
    ensure!(
        file.expected.is_none_or(|expected| expected == found),
        "it is damaged: its content has the checksum {found}"
    );
    Ok(found)
}

fn ensure_size(header: &FileHeader, read: u64) -> Result<()> {
    ensure!(
        read == header.size,
        "the file has {} bytes, not {} as was said",
        if read > header.size {
            "more".to_owned()
        } else {
            read.to_string()
        },
        header.size
    );
    Ok(())
}
