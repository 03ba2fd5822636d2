//! libostree's staging directory, which keeps what a transaction has written. Nothing in it says
//! which process owns it, and the next transaction adopts the directory of a killed process with
//! everything in it.

use std::fs::{self, File, OpenOptions};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use crate::undo::remove_tree;

/// By this file in it a staging directory is known as one of ours. libostree looks at directories
/// only.
const OURS: &str = "apt-ostree-helper";

/// The one that a transaction of this process has, in the repository at `path`; only the kernel
/// tells.
pub(super) fn staging_directory(path: &Utf8Path) -> Option<Utf8PathBuf> {
    let prefix = path.canonicalize_utf8().ok()?.join("tmp/staging-");
    let files = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let targets =
        files.filter_map(|file| Utf8PathBuf::try_from(file.path().read_link().ok()?).ok());
    let mut ours = targets.filter(|target| target.as_str().starts_with(prefix.as_str()));
    ours.find(|target| target.is_dir())
}

/// Marks it as ours.
pub(super) fn own(staging: &Utf8Path) -> io::Result<()> {
    File::create(staging.join(OURS)).map(drop)
}

/// The file that libostree locks it with.
pub(super) fn lock_of(staging: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{staging}-lock"))
}

/// Removes those of ours that nobody uses any more, and locks of what is gone. That one stays is no
/// failure.
pub(super) fn remove_killed(path: &Utf8Path) {
    let entries = fs::read_dir(path.join("tmp"))
        .into_iter()
        .flatten()
        .flatten();
    let paths = entries.filter_map(|entry| Utf8PathBuf::try_from(entry.path()).ok());
    for path in paths.filter(|path| path.file_name().is_some_and(is_staging_name)) {
        let (staging, lock) = match path.as_str().strip_suffix("-lock") {
            Some(staging) => (Utf8PathBuf::from(staging), path),
            None => (path.clone(), lock_of(&path)),
        };
        let is_ours = staging.join(OURS).symlink_metadata().is_ok();
        let is_gone = staging
            .symlink_metadata()
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if !is_ours && !is_gone {
            continue;
        }
        // libostree makes the directory before the lock, and removes it while it has the lock. So
        // it is held here, or else libostree would begin a transaction in what is being removed.
        if let Some(_held) = hold(&lock) {
            tracing::info!("removing {staging}, which a killed process left");
            remove_tree(&staging);
            let _ = fs::remove_file(&lock);
        }
    }
}

fn is_staging_name(name: &str) -> bool {
    name.starts_with("staging-")
}

/// Takes a lock that nobody has: gives the locked file, or nothing where no lock was ever made.
/// libostree takes the first kind of lock, and the other where that is not to be had.
fn hold(lock: &Utf8Path) -> Option<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(lock) {
        Ok(file) => {
            let is_free = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            is_free.then_some(Some(file))
        }
        Err(e) => (e.kind() == io::ErrorKind::NotFound).then_some(None),
    }
}

/// Keeps other processes of this program from beginning a transaction in the repository at `path`
/// as long as the result lives: libostree opens a directory that was left before it locks it, and
/// one that another process removes in between would take nothing any more ("Operation not
/// permitted"). No file is made: the directory itself is locked. Where it cannot be, nothing is.
pub(super) fn begin_alone(path: &Utf8Path) -> Option<File> {
    let directory = File::open(path.join("tmp")).ok()?;
    loop {
        match flock(&directory, FlockOperation::LockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
