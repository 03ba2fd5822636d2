//! Regular files at paths that somebody else may control. A file is opened once and checked through
//! its handle, so that what is read is what was checked: the path may name another file a moment
//! later.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use camino::Utf8Path;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// A regular file that is open for reading. As a [`Read`] it gives at most the bytes that it had
/// when it was opened: files of `/proc` have none, and may never end.
#[derive(Debug)]
pub struct RegularFile {
    file: File,
    len: u64,
    left: u64,
}

impl RegularFile {
    /// The file at `path`. Opening it never waits (as for a FIFO).
    ///
    /// # Errors
    /// When it cannot be opened, or `path` names a symbolic link or anything else than a regular
    /// file ([`io::ErrorKind::InvalidInput`]). [`io::ErrorKind::NotFound`] means that there is
    /// nothing, or a part of the way is missing.
    pub fn open(path: &Utf8Path) -> io::Result<Self> {
        Self::open_with(path, OFlags::NOFOLLOW).map_err(|e| {
            if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
                return io::Error::other("it is a symbolic link, which is not followed");
            }
            e
        })
    }

    /// The file that a user has named: as [`RegularFile::open`], but a symbolic link is followed.
    ///
    /// # Errors
    /// When it cannot be opened, or is not a regular file.
    pub fn open_named(path: &Utf8Path) -> io::Result<Self> {
        Self::open_with(path, OFlags::empty())
    }

    fn open_with(path: &Utf8Path, flags: OFlags) -> io::Result<Self> {
        let flags = (OFlags::NONBLOCK | flags).bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        let len = found.len();
        Ok(Self {
            file,
            len,
            left: len,
        })
    }

    /// Its size when it was opened, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The handle, to look at or to read at a place of the caller's choice.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The handle alone; what is read from it has no end but its own.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The rest of the file in memory.
    ///
    /// # Errors
    /// When it has more than `limit` bytes, or cannot be read.
    pub fn read_all(mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.left > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has {} bytes, and only up to {limit} are read", self.len),
            ));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for RegularFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.file).take(self.left).read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(got) => {
                    self.left -= got as u64;
                    return Ok(got);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use camino::Utf8PathBuf;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_none_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8PathBuf::try_from(dir.path().join(name)).unwrap();
        std::fs::write(path("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", path("link").as_std_path()).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero").as_std_path()).unwrap();
        mknodat(
            CWD,
            path("fifo").as_std_path(),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let file = RegularFile::open(&path("file")).unwrap();
        assert_eq!(file.len(), 7);
        assert_eq!(file.read_all(7).unwrap(), b"content");
        let named = RegularFile::open_named(&path("link")).unwrap();
        assert!(named.read_all(6).unwrap_err().to_string().contains("7"));
        for (name, why) in [
            ("link", "symbolic link"),
            ("zero", "symbolic link"),
            ("fifo", "not a regular file"),
            (".", "not a regular file"),
        ] {
            let error = RegularFile::open(&path(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert!(RegularFile::open_named(&path("zero")).is_err());
        let missing = RegularFile::open(&path("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_without_a_size_ends_at_once() {
        let endless = RegularFile::open(Utf8Path::new("/proc/self/status")).unwrap();
        assert_eq!(endless.len(), 0);
        assert_eq!(endless.read_all(100).unwrap(), b"");
    }

    #[test]
    fn what_is_added_later_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("file")).unwrap();
        std::fs::write(&path, "first").unwrap();
        let file = RegularFile::open(&path).unwrap();
        std::fs::write(&path, "first and second").unwrap();
        assert_eq!(file.read_all(100).unwrap(), b"first");
    }
}
