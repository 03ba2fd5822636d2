//! Where blobs are made before anybody sees them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};

use super::blob::{Blob, BlobWriter, Compression};
use crate::checksum::Checksum;
use crate::undo::{Undo, remove_tree};

/// Where blobs lie in a layout (image-spec, image-layout.md).
pub(super) const BLOBS: &str = "blobs/sha256";
/// How the names of staging directories begin.
pub(super) const STAGE_PREFIX: &str = ".apt-ostree-helper-";
/// A staging directory is taken for abandoned only after this time: a new one is not locked yet.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// A directory that holds the blobs of an image in the making; removed unless published.
pub struct Stage {
    path: Utf8PathBuf,
    undo: Undo,
    /// Held while the stage is in use: the kernel drops it with the process, whatever ends that.
    lock: File,
}

impl Stage {
    /// A new staging directory in `parent`, which must be on the file system of the output. What
    /// killed processes have left there is removed.
    ///
    /// # Errors
    /// When `parent` is no directory that can be written to.
    pub fn new_in(parent: &Utf8Path) -> Result<Self> {
        remove_abandoned(parent, ABANDONED_AFTER);
        let make = || -> Result<Utf8PathBuf> {
            let mut builder = tempfile::Builder::new();
            let dir = builder.prefix(STAGE_PREFIX).tempdir_in(parent)?;
            Ok(Utf8PathBuf::try_from(dir.keep())?)
        };
        let undo = |path: &Utf8PathBuf| {
            let path = path.clone();
            move || remove_tree(&path)
        };
        let (path, undo) = Undo::around(make, undo)
            .with_context(|| format!("making a temporary directory in {parent}"))?;
        let lock = File::open(&path).with_context(|| format!("opening {path}"))?;
        // Where there are no locks nothing can be told to be abandoned either.
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let stage = Self { path, undo, lock };
        // Readable by the same people as a directory made by mkdir: the stage may become the output.
        let mode = 0o777 & !current_umask();
        fs::set_permissions(
            &stage.path,
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .with_context(|| format!("setting permissions of {}", stage.path))?;
        fs::create_dir_all(stage.path.join(BLOBS))
            .with_context(|| format!("creating {}/{BLOBS}", stage.path))?;
        Ok(stage)
    }

    /// A staging directory where containers tools put large temporary files: in TMPDIR, else /var/tmp.
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
        BlobWriter::create(self.path.join(name), compression)
    }

    /// Takes a finished blob in under its digest.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn add(&self, writer: BlobWriter) -> Result<Blob> {
        let from = writer.path().to_owned();
        let blob = writer.finish()?;
        let to = self.blob_path(blob.digest);
        rename(&from, &to)?;
        Ok(blob)
    }

    /// Takes in a blob of another layout, as it is: its bytes are not read again where the file system can link them.
    /// Tells whether it was there in that size.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn take(&self, layout: &Utf8Path, digest: Checksum, size: u64) -> Result<bool> {
        let from = layout.join(BLOBS).join(digest.to_string());
        if !fs::symlink_metadata(&from).is_ok_and(|m| m.is_file() && m.len() == size) {
            return Ok(false);
        }
        let to = self.blob_path(digest);
        if to.exists() || fs::hard_link(&from, &to).is_ok() {
            return Ok(true);
        }
        let copy = || -> Result<bool> {
            fs::copy(&from, &to)?;
            let file = File::open(&to)?;
            file.sync_data()?;
            let whole = file.metadata()?.len() == size;
            Ok(whole)
        };
        copy().with_context(|| format!("copying the blob {from} to {to}"))
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

    /// Where a blob lies.
    pub fn blob_path(&self, digest: Checksum) -> Utf8PathBuf {
        self.path.join(BLOBS).join(digest.to_string())
    }

    /// The directory, what removes it, and what keeps others from doing so.
    pub(super) fn into_parts(self) -> (Utf8PathBuf, Undo, File) {
        (self.path, self.undo, self.lock)
    }

    /// The staging directory itself.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

pub(super) fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("renaming {from} to {to}"))
}

pub(super) fn write_synced(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("writing {path}");
    let mut file = File::create(path).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.sync_data().with_context(context)
}

/// The process's umask, which can only be read by setting it.
fn current_umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    mask.as_raw_mode()
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

/// Removes the staging directories in `parent` whose process was killed: our own, made before that time, and locked
/// by nobody. That one stays is no failure. Returns those that went.
pub fn remove_abandoned(parent: &Utf8Path, age: Duration) -> Vec<Utf8PathBuf> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_stage = name.to_str().is_some_and(|n| n.starts_with(STAGE_PREFIX));
        if !is_stage || !entry.metadata().is_ok_and(|m| is_own_and_old(&m, age)) {
            continue;
        }
        let (Ok(path), Ok(dir)) = (
            Utf8PathBuf::try_from(entry.path()),
            File::open(entry.path()),
        ) else {
            continue;
        };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            tracing::info!("removing {path}, which a killed process left");
            remove_tree(&path);
            removed.push(path);
        }
    }
    removed
}

fn is_own_and_old(found: &fs::Metadata, age: Duration) -> bool {
    // By the older of both: what dies in it may change it after its maker is gone.
    let times = [found.created().ok(), found.modified().ok()]
        .into_iter()
        .flatten();
    let found_age = times.filter_map(|time| time.elapsed().ok()).max();
    found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found_age > Some(age)
}
