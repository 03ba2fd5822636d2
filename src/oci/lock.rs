//! Locks of a layout, for writers and for readers. The kernel releases both when the process that
//! holds them ends, however it ends.
//!
//! A writer locks the file `oci-layout` (flock(2)) from before it reads `index.json` until what the
//! index no longer names is gone. The file is opened for writing, so that it works on NFS too,
//! where Linux makes a lock of the server's of it.
//!
//! A reader of ours shares a lock on `blobs/sha256`. It keeps no writer waiting: blobs that would
//! be removed stay until the next writer comes when nobody reads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8Path;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::layout::LAYOUT_FILE;
use super::stage::BLOBS;

/// How long a writer waits for others. Each holds the lock for some renames, syncs and removals
/// only.
pub(super) const WAIT: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a reader waits for one that removes blobs, and the latter for readers.
const SHORTLY: Duration = Duration::from_secs(1);

/// The right to change a layout, until it is dropped.
#[derive(Debug)]
pub(super) struct LayoutLock {
    file: File,
}

impl LayoutLock {
    /// Waits at most so long for other writers of the layout at `path`. The file `oci-layout` is
    /// made, empty, where it is missing.
    ///
    /// # Errors
    /// When others hold it for longer, or the file cannot be opened.
    pub(super) fn take(path: &Utf8Path, wait: Duration) -> Result<Self> {
        let name = path.join(LAYOUT_FILE);
        let start = Instant::now();
        let mut told = false;
        loop {
            let file = open(&name).with_context(|| format!("opening {name} to lock the layout"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Others may have removed or replaced it before it was locked.
                Ok(()) if is_at(&file, &name)? => return Ok(Self { file }),
                Ok(()) | Err(Errno::INTR | Errno::WOULDBLOCK) => {}
                Err(e) => {
                    tracing::warn!(
                        "{path} cannot be locked ({e}): its file system has no locks; let no other job write to it now"
                    );
                    return Ok(Self { file });
                }
            }
            ensure!(
                start.elapsed() < wait,
                "another process has held the lock on {name} for {} seconds; wait for it, or end it ('fuser -v {name}' names it), and try again",
                wait.as_secs()
            );
            if !told && start.elapsed() > SHORTLY {
                tracing::warn!("waiting for another process that writes to {path}");
                told = true;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The locked file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Opened for writing where that may be: others own the layout, perhaps.
fn open(name: &Utf8Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    let file = match options.open(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            match options.create_new(true).open(name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    options.create_new(false).open(name)
                }
                made => made,
            }
        }
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            OpenOptions::new().read(true).custom_flags(flags).open(name)
        }
        opened => opened,
    }?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn is_at(file: &File, name: &Utf8Path) -> Result<bool> {
    let ours = file.metadata();
    let ours = ours.with_context(|| format!("looking at {name}"))?;
    match std::fs::symlink_metadata(name) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("looking at {name}")),
    }
}

/// What keeps writers from removing blobs of the layout at `path` while it is held; none where that
/// cannot be had.
pub(super) fn reading(path: &Utf8Path) -> Option<File> {
    lock_blobs(path, FlockOperation::NonBlockingLockShared).unwrap_or_default()
}

/// The same for one who removes blobs.
///
/// # Errors
/// When others read the layout.
pub(super) fn removing(path: &Utf8Path) -> Result<Option<File>> {
    lock_blobs(path, FlockOperation::NonBlockingLockExclusive)
}

fn lock_blobs(path: &Utf8Path, operation: FlockOperation) -> Result<Option<File>> {
    let Ok(blobs) = File::open(path.join(BLOBS)) else {
        return Ok(None);
    };
    let start = Instant::now();
    loop {
        match flock(&blobs, operation) {
            Ok(()) => return Ok(Some(blobs)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if start.elapsed() < SHORTLY => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => bail!("others read {path}"),
            // NFS locks no directory for one alone.
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_second_writer_waits_and_then_says_so() {
        let dir = scratch();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let first = LayoutLock::take(path, WAIT).unwrap();
        let error = LayoutLock::take(path, Duration::from_millis(50)).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("has held the lock on") && error.contains("fuser -v"),
            "{error}"
        );
        drop(first);
        LayoutLock::take(path, Duration::ZERO).unwrap();
    }

    /// Whoever waits for a file that is removed, or replaced, locks the new one.
    #[test]
    fn the_lock_is_on_the_file_that_is_there() {
        let dir = scratch();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let name = path.join(LAYOUT_FILE);
        let old = LayoutLock::take(path, WAIT).unwrap();
        std::fs::remove_file(&name).unwrap();
        let new = LayoutLock::take(path, Duration::ZERO).unwrap();
        assert!(is_at(new.file(), &name).unwrap());
        assert!(!is_at(old.file(), &name).unwrap());
    }

    #[test]
    fn what_is_no_file_is_not_locked() {
        let dir = scratch();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::os::unix::fs::symlink("/dev/null", path.join(LAYOUT_FILE)).unwrap();
        let error = LayoutLock::take(path, WAIT).unwrap_err();
        assert!(format!("{error:#}").contains("oci-layout"), "{error:#}");
    }

    #[test]
    fn readers_keep_blobs_and_do_not_keep_writers() {
        let dir = scratch();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir_all(path.join(BLOBS)).unwrap();
        let (one, two) = (reading(path), reading(path));
        assert!(one.is_some() && two.is_some());
        LayoutLock::take(path, Duration::ZERO).unwrap();
        assert!(removing(path).is_err());
        drop((one, two));
        assert!(removing(path).unwrap().is_some());
    }
}
