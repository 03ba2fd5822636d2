//! The content of files of a scanned directory, which must still be what was scanned.

use std::io::{self, Read};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use rustix::fs::{OFlags, Stat};

use super::{Contents, EntryId, Tree};

/// What tells whether a file is still the one that was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    inode: u64,
    size: i64,
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// A directory on disk that has been scanned: opens the content of its files.
#[derive(Debug)]
pub struct Directory {
    path: Utf8PathBuf,
    handle: Dir,
    stamps: Vec<Stamp>,
    /// The tree's `/etc` lies at `/usr/etc` on disk: a checkout of a commit.
    etc_is_in_usr: bool,
}

impl Directory {
    pub(super) fn new(
        path: &Utf8Path,
        handle: Dir,
        stamps: Vec<Stamp>,
        etc_is_in_usr: bool,
    ) -> Self {
        Self {
            path: path.to_owned(),
            handle,
            stamps,
            etc_is_in_usr,
        }
    }
}

impl Contents for Directory {
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>> {
        let mut path = tree.path(id);
        if self.etc_is_in_usr && path.starts_with("etc") {
            path = Utf8Path::new("usr").join(path);
        }
        let file = open_file(&self.handle, &path)
            .with_context(|| format!("opening {}/{path}", self.path))?;
        Ok(Box::new(CheckedFile {
            file,
            remaining: tree.entry(id).size,
            stamp: self.stamps[id.index()],
            path: self.path.join(path),
        }))
    }
}

/// A file that must still be what was scanned when its last byte has been read.
struct CheckedFile {
    file: File,
    remaining: u64,
    stamp: Stamp,
    path: Utf8PathBuf,
}

impl CheckedFile {
    fn changed(&self) -> io::Error {
        io::Error::other(format!(
            "{} changed while it was read; nothing may write to the rootfs during a build",
            self.path
        ))
    }
}

impl Read for CheckedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 {
            return Ok(0);
        }
        let want = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let got = self
            .file
            .read(&mut buffer[..want])
            .map_err(|e| io::Error::new(e.kind(), format!("reading {}: {e}", self.path)))?;
        self.remaining -= got as u64;
        let short = got == 0 && want > 0;
        if short
            || (self.remaining == 0 && Stamp::of(&rustix::fs::fstat(&self.file)?) != self.stamp)
        {
            return Err(self.changed());
        }
        Ok(got)
    }
}

/// Opens a regular file below `dir` without following a link, and without waiting on a fifo.
pub(super) fn open_file(dir: &Dir, path: &Utf8Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No);
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    dir.open_with(path, &options)
}
