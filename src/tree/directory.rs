//! The content of files of a scanned directory, which must still be what was scanned.

use std::io::{self, Read};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use rustix::fs::{OFlags, Stat};

use super::builder::reorder;
use super::{Contents, EntryId, FileIdentity, Tree, identity};

/// What tells, beside what the tree says of it, whether a file is still the one that was scanned.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    inode: u64,
    /// Nanoseconds since the epoch.
    changed: i64,
    /// Of the time whose seconds the tree has.
    modified_nsec: u32,
    /// In [`Stamps::devices`].
    device: u32,
}

const SECOND: i64 = 1_000_000_000;

impl Stamp {
    fn of(stat: &Stat, device: u32) -> Self {
        Self {
            inode: stat.st_ino,
            changed: (stat.st_ctime.saturating_mul(SECOND))
                .saturating_add(stat.st_ctime_nsec as i64),
            modified_nsec: stat.st_mtime_nsec as u32,
            device,
        }
    }

    /// Whether an open file is the one that was scanned, with `size` bytes. Not by the device: on
    /// some overlays it is another one when the file is open.
    fn is_of(&self, open: &Stat, size: u64) -> bool {
        let open_stamp = Self::of(open, self.device);
        let told = |stamp: &Self| (stamp.inode, stamp.changed);
        told(&open_stamp) == told(self) && u64::try_from(open.st_size) == Ok(size)
    }
}

/// What tells of all entries of a tree whether they are those that were scanned.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// A rootfs has few mounts.
    devices: Vec<u64>,
    entries: Vec<Stamp>,
}

impl Stamps {
    /// Takes the next entry.
    pub(super) fn push(&mut self, stat: &Stat) {
        let known = self.devices.iter().rposition(|known| *known == stat.st_dev);
        let device = known.unwrap_or_else(|| {
            self.devices.push(stat.st_dev);
            self.devices.len() - 1
        });
        self.entries.push(Stamp::of(stat, device as u32));
    }

    /// Puts them in the order of a tree whose builder gave `new_ids`.
    pub(super) fn reorder(&mut self, new_ids: &[EntryId]) {
        reorder(&mut self.entries, new_ids);
        self.entries.shrink_to_fit();
    }

    fn device(&self, stamp: Stamp) -> u64 {
        self.devices[stamp.device as usize]
    }
}

/// A directory on disk that has been scanned: opens the content of its files.
#[derive(Debug)]
pub struct Directory {
    path: Utf8PathBuf,
    handle: Dir,
    stamps: Stamps,
    /// The file system of the root directory: its device, and what it calls itself.
    filesystem: Option<(u64, u64)>,
    /// The tree's `/etc` lies at `/usr/etc` on disk: a checkout of a commit.
    etc_is_in_usr: bool,
}

impl Directory {
    pub(super) fn new(path: &Utf8Path, handle: Dir, stamps: Stamps, etc_is_in_usr: bool) -> Self {
        let root = stamps.entries.first();
        let device = root.map(|root| stamps.device(*root));
        Self {
            path: path.to_owned(),
            filesystem: device.zip(identity::filesystem(&handle)),
            handle,
            stamps,
            etc_is_in_usr,
        }
    }
}

impl Directory {
    /// The content of the regular file at `path` on disk, also where the tree leaves it out; none
    /// when there is no regular file. No link is followed.
    ///
    /// # Errors
    /// When it has more than `limit` bytes or cannot be read.
    pub fn read_file(&self, path: &Utf8Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(parent) = self.directory(path.parent().unwrap_or(Utf8Path::new("")))? else {
            return Ok(None);
        };
        let name = Utf8Path::new(path.file_name().unwrap_or_default());
        let file = match open_file(&parent, name) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("opening {}/{path}", self.path)),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(None);
        }
        ensure!(
            found.len() <= limit,
            "{}/{path} has {} bytes, more than {limit}",
            self.path,
            found.len()
        );
        let mut content = Vec::new();
        file.take(limit)
            .read_to_end(&mut content)
            .with_context(|| format!("reading {}/{path}", self.path))?;
        Ok(Some(content))
    }

    /// The names in the directory at `path` on disk, sorted; none when there is no directory. No
    /// link is followed, and names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, path: &Utf8Path) -> Result<Option<Vec<String>>> {
        let Some(directory) = self.directory(path)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        for entry in directory.entries()? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    fn directory(&self, path: &Utf8Path) -> Result<Option<Dir>> {
        let mut at = self.handle.try_clone()?;
        for part in path.components() {
            at = match at.open_dir_nofollow(part.as_str()) {
                Ok(next) => next,
                // Nothing there, a link, or something else.
                Err(_) => return Ok(None),
            };
        }
        Ok(Some(at))
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
            size: tree.entry(id).size,
            remaining: tree.entry(id).size,
            stamp: self.stamps.entries[id.index()],
            path: self.path.join(path),
        }))
    }

    /// Only where one file system has all that is told of it: what the root is called says nothing
    /// of what is mounted below it.
    fn identity(&self, tree: &Tree, id: EntryId) -> Option<FileIdentity> {
        let (stamp, entry) = (self.stamps.entries[id.index()], tree.entry(id));
        let (device, filesystem) = self.filesystem?;
        (self.stamps.device(stamp) == device).then(|| FileIdentity {
            device: identity::of_disk(device),
            filesystem,
            inode: stamp.inode,
            size: entry.size,
            changed: (
                stamp.changed.div_euclid(SECOND),
                stamp.changed.rem_euclid(SECOND),
            ),
            modified: (entry.mtime, i64::from(stamp.modified_nsec)),
        })
    }
}

/// A file that must still be what was scanned when its last byte has been read.
struct CheckedFile {
    file: File,
    size: u64,
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
        let got = loop {
            match self.file.read(&mut buffer[..want]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let got =
            got.map_err(|e| io::Error::new(e.kind(), format!("reading {}: {e}", self.path)))?;
        self.remaining -= got as u64;
        let short = got == 0 && want > 0;
        let is_whole = self.remaining == 0;
        let is_same = || -> io::Result<bool> {
            let open = rustix::fs::fstat(&self.file)?;
            Ok(self.stamp.is_of(&open, self.size))
        };
        if short || (is_whole && !is_same()?) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_million_files_fits_in_24_megabytes() {
        assert!(size_of::<Stamp>() <= 24, "{}", size_of::<Stamp>());
    }
}
