//! A root filesystem read through directory handles. Every path is walked from the root's own
//! handle, one directory at a time, and a link on the way is an error: a rootfs is hostile, and
//! nothing outside it is reached.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use cap_fs_ext::DirExt;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::dpkg::Files;
use crate::tree;

/// Larger than any file that is read whole, in bytes: a hostile one must not fill the memory.
const READ_LIMIT: u64 = 512 << 20;
/// As many links as the kernel follows before it reports a loop (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What is at a path. Links are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Absent,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with its target.
    Link(String),
    /// A socket, a fifo or a device.
    Special,
}

/// A root filesystem.
#[derive(Debug)]
pub struct Root {
    path: Utf8PathBuf,
    dir: Dir,
    is_own: bool,
}

impl Root {
    /// Opens the system at `path`.
    ///
    /// # Errors
    /// When there is no directory.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())
            .with_context(|| format!("opening the root filesystem {path}"))?;
        let is_own = tree::is_own_root(&rustix::fs::fstat(&dir)?);
        Ok(Self {
            path: path.to_owned(),
            dir,
            is_own,
        })
    }

    /// Where the system is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Whether it is the root of this very process, as in a step of a container build.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// The handle of the root directory.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// How a path of the system reads in messages.
    pub fn name(&self, path: &str) -> String {
        let root = self.path.as_str().trim_end_matches('/');
        format!("{root}/{path}")
    }

    /// The directory that `path` is in; none where that does not exist.
    ///
    /// # Errors
    /// When something on the way is not a directory.
    pub(super) fn parent<'a>(&self, path: &'a str) -> Result<Option<(Dir, &'a str)>> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        ensure!(
            !matches!(name, "" | "." | ".."),
            "'{path}' names no file of the system"
        );
        Ok(self.directory(above)?.map(|dir| (dir, name)))
    }

    /// The directory at `path`; none where there is nothing.
    ///
    /// # Errors
    /// When it, or something on the way, is not a directory.
    pub(super) fn directory(&self, path: &str) -> Result<Option<Dir>> {
        let mut at = self.dir.try_clone()?;
        for (end, part) in parts(path) {
            at = match at.open_dir_nofollow(part) {
                Ok(next) => next,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => {
                    let here = self.name(&path[..end]);
                    let found = rustix::fs::statat(&at, part, AtFlags::SYMLINK_NOFOLLOW);
                    let found = found.map(|stat| FileType::from_raw_mode(stat.st_mode));
                    return Err(match found {
                        Ok(FileType::Directory) | Err(_) => {
                            Error::new(e).context(format!("opening {here}"))
                        }
                        Ok(FileType::Symlink) => anyhow!(
                            "{here} is a symbolic link where a directory is expected: put the directory there"
                        ),
                        Ok(_) => anyhow!("{here} is not a directory: remove it"),
                    });
                }
            };
        }
        Ok(Some(at))
    }

    /// What stat(2) says of the entry at `path`; none where there is nothing.
    ///
    /// # Errors
    /// When something on the way is not a directory, or cannot be read.
    pub fn stat(&self, path: &str) -> Result<Option<Stat>> {
        let Some((dir, name)) = self.parent(path)? else {
            return Ok(None);
        };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", self.name(path))),
        }
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// As [`Root::stat`].
    pub fn kind(&self, path: &str) -> Result<Kind> {
        let Some(stat) = self.stat(path)? else {
            return Ok(Kind::Absent);
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link(self.target(path)?),
            _ => Kind::Special,
        })
    }

    /// Where the link at `path` leads.
    fn target(&self, path: &str) -> Result<String> {
        let Some((dir, name)) = self.parent(path)? else {
            bail!("{} is gone", self.name(path));
        };
        let target = rustix::fs::readlinkat(&dir, name, Vec::new())
            .with_context(|| format!("reading the link {}", self.name(path)))?;
        target.into_string().map_err(|_| {
            anyhow!(
                "the target of the link {} is not UTF-8: remove the link",
                self.name(path)
            )
        })
    }

    /// Whether something is mounted at `path`, which then is not part of the system.
    pub fn is_mounted(&self, path: &str) -> bool {
        match self.parent(path) {
            Ok(Some((dir, name))) => tree::is_root_of_mount(&dir, name),
            _ => false,
        }
    }

    /// Opens the regular file at `path` for reading; none where there is none. Never waits for a
    /// fifo.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open_file(&self, path: &str) -> Result<Option<OwnedFd>> {
        let Some((dir, name)) = self.parent(path)? else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            // A link gives LOOP, a socket NXIO.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("opening {}", self.name(path))),
        };
        let stat = rustix::fs::fstat(&file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then_some(file))
    }

    /// The content of the regular file at `path`; none where there is no regular file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        let read = std::fs::File::from(file)
            .take(READ_LIMIT + 1)
            .read_to_end(&mut content);
        read.with_context(|| format!("reading {}", self.name(path)))?;
        ensure!(
            content.len() as u64 <= READ_LIMIT,
            "{} has more than {READ_LIMIT} bytes",
            self.name(path)
        );
        Ok(Some(content))
    }

    /// The text of the regular file at `path`, what is not UTF-8 replaced; empty where there is no
    /// regular file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self, path: &str) -> Result<String> {
        let content = self.read(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// The names in the directory at `path`, sorted; none of them where there is no directory. What
    /// is not UTF-8 is left out: no image can hold it, and the scan for one names it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        if self.kind_or_root(path)? != Kind::Directory {
            return Ok(Vec::new());
        }
        let Some(dir) = self.directory(path)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in dir.entries()? {
            let entry = entry.with_context(|| format!("reading {}", self.name(path)))?;
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn kind_or_root(&self, path: &str) -> Result<Kind> {
        match path {
            "" => Ok(Kind::Directory),
            path => self.kind(path),
        }
    }

    /// All entries below the directory at `path`, parents first, siblings sorted, with what they
    /// are. What is mounted below it is not entered and not among them.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn below(&self, path: &str) -> Result<Vec<(String, Kind)>> {
        let mut found = Vec::new();
        let mut pending = vec![path.to_owned()];
        while let Some(at) = pending.pop() {
            let mut directories = Vec::new();
            for name in self.list(&at)? {
                let child = format!("{at}/{name}");
                if self.is_mounted(&child) {
                    continue;
                }
                let kind = self.kind(&child)?;
                if kind == Kind::Directory {
                    directories.push(child.clone());
                }
                found.push((child, kind));
            }
            pending.extend(directories.into_iter().rev());
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The path of what `path` names when links are followed inside the system; none where that is
    /// nothing.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn resolve(&self, path: &str) -> Result<Option<String>> {
        let mut at: Vec<String> = Vec::new();
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => {}
            }
            let here = at
                .iter()
                .chain([&part])
                .cloned()
                .collect::<Vec<_>>()
                .join("/");
            match self.kind(&here)? {
                Kind::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Kind::Absent => return Ok(None),
                Kind::Directory => at.push(part),
                _ if pending.iter().all(|part| part.is_empty()) => at.push(part),
                _ => return Ok(None),
            }
        }
        Ok(Some(at.join("/")))
    }
}

impl Files for Root {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.resolve(path)? {
            Some(path) if !path.is_empty() => Root::read(self, &path),
            _ => Ok(None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        match self.resolve(path)? {
            Some(path) if self.kind_or_root(&path)? == Kind::Directory => {
                Root::list(self, &path).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The components of a path, each with where it ends.
fn parts(path: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    path.split('/').filter_map(move |part| {
        let end = start + part.len();
        start = end + 1;
        (!part.is_empty()).then_some((end, part))
    })
}
