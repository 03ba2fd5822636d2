//! A staging directory in which blobs are written before anybody can see them.
//!
//! A stage is a hidden directory with a file `owner` in it, which its process holds locked, and a
//! directory `layout`, which may become the output as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::Value;

use super::blob::{Blob, BlobWriter, Compression};
use super::layout::{metadata_files, new_index};
use super::reach::UNKNOWN_AFTER;
use super::sync::Syncer;
use crate::checksum::Checksum;
use crate::parallel::Idle;
use crate::undo::{Left, Undo, remove_tree};

/// Where blobs lie in a layout (image-spec, image-layout.md).
pub(super) const BLOBS: &str = "blobs/sha256";
/// How the names of staging directories begin, with as many random letters after it.
pub(super) const STAGE_PREFIX: &str = ".apt-ostree-helper-";
const RANDOM_LETTERS: usize = 6;
/// The file by which a directory is known as a stage, and its user as alive.
const OWNER: &str = "owner";
/// The name of that file, and of a journal, before it is whole.
pub(super) const UNNAMED: &str = "new";
const OWNER_TEXT: &str =
    "A temporary directory of apt-ostree-helper. The next job that writes here removes it.\n";
/// What may become a layout as a whole.
const LAYOUT: &str = "layout";
/// The blobs that were about to be moved into a layout, or to be removed from it
/// ([`super::layout`]).
pub(super) const JOURNAL: &str = "journal";
/// A directory of that name without an owner, an empty one, goes only after this time: its owner
/// may be about to come.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// A directory that holds the blobs of an image in the making; removed unless published.
pub struct Stage {
    path: Utf8PathBuf,
    undo: Undo,
    /// Where the blobs are to stay, unlike those that are only read from here.
    syncer: Option<Syncer>,
    /// Threads that help those that write blobs, when they have none to write.
    idle: Arc<Idle>,
    /// Held while the stage is in use: the kernel drops the lock with the process, whatever ends
    /// that.
    _owner: File,
}

impl Stage {
    /// A new staging directory in `parent`, which must be on the file system of the output. What
    /// killed processes have left there is removed.
    ///
    /// # Errors
    /// When `parent` is not a directory that can be written to.
    pub fn new_in(parent: &Utf8Path) -> Result<Self> {
        remove_abandoned(parent, ABANDONED_AFTER);
        let make = || -> Result<Utf8PathBuf> {
            let mut builder = tempfile::Builder::new();
            let builder = builder.prefix(STAGE_PREFIX).rand_bytes(RANDOM_LETTERS);
            let dir = builder.tempdir_in(parent)?;
            Ok(Utf8PathBuf::try_from(dir.keep())?)
        };
        let undo = |path: &Utf8PathBuf| {
            let path = path.clone();
            move || remove_tree(&path)
        };
        let (path, undo) = Undo::around(make, undo)
            .with_context(|| format!("making a temporary directory in {parent}"))?;
        let stage = Self {
            _owner: own(&path).with_context(|| format!("making {path}/{OWNER}"))?,
            path,
            undo,
            syncer: None,
            idle: Arc::default(),
        };
        let blobs = stage.layout().join(BLOBS);
        fs::create_dir_all(&blobs).with_context(|| format!("creating {blobs}"))?;
        Ok(stage)
    }

    /// The same, whose blobs are to outlive a power failure once [`Stage::sync`] is done.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.syncer = Some(Syncer::new());
        self
    }

    /// Waits until all blobs are on the disk, where they are to stay.
    ///
    /// # Errors
    /// When one cannot be written; a full disk is seen here at the latest.
    pub fn sync(&self) -> Result<()> {
        self.syncer.as_ref().map_or(Ok(()), Syncer::wait)
    }

    /// A staging directory where containers tools put large temporary files: in TMPDIR, else
    /// /var/tmp.
    ///
    /// # Errors
    /// As [`Stage::new_in`].
    pub fn new_temporary() -> Result<Self> {
        Self::new_in(&temporary_directory()?)
    }

    /// A writer for one more blob. `name` must be no other blob's.
    ///
    /// # Errors
    /// When its file cannot be created.
    pub fn blob_writer(&self, name: &str, compression: Compression) -> Result<BlobWriter> {
        BlobWriter::create(self.path.join(name), compression, self.idle.clone())
    }

    /// The threads that help those that write blobs here, when they have none to write.
    pub fn idle(&self) -> &Idle {
        &self.idle
    }

    /// Takes a finished blob in under its digest.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn add(&self, writer: BlobWriter) -> Result<Blob> {
        let from = writer.path().to_owned();
        let (blob, file) = writer.finish()?;
        let path = self.blob_path(blob.digest);
        rename(&from, &path)?;
        if let Some(syncer) = &self.syncer {
            syncer.add(file, path)?;
        }
        Ok(blob)
    }

    /// Adds a blob that is in memory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<Checksum> {
        let checksum = Checksum::of(bytes);
        write_synced(&self.blob_path(checksum), bytes)?;
        Ok(checksum)
    }

    /// Makes the stage itself a layout of what `descriptor` names, for a program that reads it from
    /// here. Blobs may be missing that this program has elsewhere.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn be_layout_of(&self, descriptor: &Value) -> Result<()> {
        for (name, text) in metadata_files(&new_index(descriptor.clone(), None)) {
            let path = self.layout().join(name);
            fs::write(&path, text).with_context(|| format!("writing {path}"))?;
        }
        Ok(())
    }

    /// Removes a blob, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_blob(&self, digest: Checksum) -> Result<()> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("removing {path}")),
        }
    }

    /// Where a blob lies.
    pub fn blob_path(&self, digest: Checksum) -> Utf8PathBuf {
        self.layout().join(BLOBS).join(digest.to_string())
    }

    /// What holds the blobs as a layout does.
    pub fn layout(&self) -> Utf8PathBuf {
        self.path.join(LAYOUT)
    }

    /// Runs a step that a signal waits for. Where it gives [`Left::ForOthers`], the journal, and
    /// nothing else, is left to the next writer; else the stage is removed in the end.
    pub(super) fn while_held<T>(&self, step: impl FnOnce() -> (T, Left)) -> T {
        self.undo.while_held(|| {
            let (outcome, left) = step();
            if left == Left::ForOthers {
                remove_tree(&self.layout());
            }
            (outcome, left)
        })
    }

    /// The staging directory itself.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

/// Where blobs are moved into a layout that others may have: both are on one file system.
pub(super) fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("renaming {from} to {to}"))
}

/// Writes a new file, to the disk.
pub(super) fn write_synced(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("writing {path}");
    let mut file = File::create(path).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.sync_data().with_context(context)
}

/// The file that says whose a directory is. It gets its name when it is locked.
fn own(directory: &Utf8Path) -> Result<File> {
    let (made, named) = (directory.join(UNNAMED), directory.join(OWNER));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&made)?;
    // Where there are no locks nothing can be told to be abandoned either.
    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
    file.write_all(OWNER_TEXT.as_bytes())?;
    fs::rename(made, named)?;
    Ok(file)
}

/// Where temporary stages are made.
///
/// # Errors
/// When there is no such directory.
pub fn temporary_directory() -> Result<Utf8PathBuf> {
    let named = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let mut usual = ["/var/tmp", "/tmp"].map(Utf8PathBuf::from).into_iter();
    match named {
        Some(dir) => Ok(Utf8PathBuf::try_from(std::path::PathBuf::from(dir))?),
        None => (usual.find(|dir| dir.is_dir()))
            .context("no directory for temporary files: set TMPDIR to one"),
    }
}

/// Removes the stages in `parent` whose process was killed: what is called as they are, has a file
/// `owner` of ours, and is locked by nobody; and empty ones of that age. Those with a journal are
/// left to whoever writes to their layout. When one stays, that is no
/// failure. Returns the removed ones.
pub fn remove_abandoned(parent: &Utf8Path, age: Duration) -> Vec<Utf8PathBuf> {
    let mut removed = Vec::new();
    for path in named_as_stages(parent) {
        let went = match lock_abandoned(&path) {
            Some(_owner) if has_journal(&path) => false,
            Some(_owner) => {
                tracing::info!("removing {path}, which a killed process left");
                remove_tree(&path);
                true
            }
            None => is_own_and_old(&path, age) && remove_unowned(&path),
        };
        removed.extend(went.then_some(path));
    }
    removed
}

/// Removes one whose maker was killed before it was owned: it is empty, but for what was to be the
/// owner.
fn remove_unowned(path: &Utf8Path) -> bool {
    let unnamed = path.join(UNNAMED);
    let text = fs::read_to_string(&unnamed);
    if text.is_ok_and(|text| OWNER_TEXT.starts_with(&text)) {
        // What else is there keeps the directory.
        let _ = fs::remove_file(&unnamed);
    }
    fs::remove_dir(path).is_ok()
}

/// What is called as a stage is.
pub(super) fn named_as_stages(parent: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let paths = entries.filter_map(|entry| Utf8PathBuf::try_from(entry.path()).ok());
    paths
        .filter(|path| path.file_name().is_some_and(is_stage_name))
        .collect()
}

/// Whether a name is one that a stage has.
pub(super) fn is_stage_name(name: &str) -> bool {
    let letters = name.strip_prefix(STAGE_PREFIX);
    letters.is_some_and(|letters| {
        letters.len() == RANDOM_LETTERS && letters.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// The lock of a stage that nobody uses; none when it is in use, or is no stage of ours.
pub(super) fn lock_abandoned(path: &Utf8Path) -> Option<File> {
    let owner = path.join(OWNER);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // For writing, as locks of NFS ask for.
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    let file = options
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(&owner)
        .ok()?;
    let found = file.metadata().ok()?;
    let is_ours = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
    let has_text = || io::read_to_string(&file).is_ok_and(|text| text == OWNER_TEXT);
    if !is_ours || found.len() != OWNER_TEXT.len() as u64 || !has_text() {
        return None;
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// An old one is of no more use: what it names is old too.
fn has_journal(stage: &Utf8Path) -> bool {
    let found = fs::symlink_metadata(stage.join(JOURNAL));
    let written = found.and_then(|found| found.modified());
    written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < UNKNOWN_AFTER))
}

fn is_own_and_old(path: &Utf8Path, age: Duration) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else {
        return false;
    };
    let elapsed = found.modified().ok().and_then(|time| time.elapsed().ok());
    found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && elapsed > Some(age)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::LayoutTarget;
    use super::*;

    #[test]
    fn a_blob_that_is_not_on_the_disk_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("layout");
        let target = LayoutTarget::new(&path, None).unwrap();
        let stage = target.stage().unwrap();
        // What has no place on a disk.
        let null = File::open("/dev/null").unwrap();
        let syncer = stage.syncer.as_ref().unwrap();
        syncer.add(null, "layer".into()).unwrap();
        let failed = target.publish(stage, Value::Null).unwrap_err();
        let failed = format!("{failed:#}");
        assert!(failed.contains("writing layer to the disk"), "{failed}");
        assert!(!path.exists());
    }
}
