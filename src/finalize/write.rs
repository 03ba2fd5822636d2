//! Changes to a root filesystem. Each call makes one change, completely or not at all, whenever the
//! process ends. A file is replaced by writing the new one beside it and renaming it; what moves to
//! another file system is copied completely before the original is removed. Nothing is synced to
//! disk: after a power cut, the build starts anew.

use std::io::Write;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use cap_std::fs::Dir;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::root::{Kind, Root};

/// What ends the name of a file that is not yet in its place. Left by a process that was killed, it
/// is overwritten.
pub const UNFINISHED: &str = ".unfinished";

/// Who owns an entry, and its permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits (`07777`).
    pub mode: u32,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owner {
    /// Root's, with these permission bits.
    pub const fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
        }
    }

    /// As the entry has them.
    pub fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

/// A system that is changed. Everything goes through [`Writer::step`], where a test can stop it.
pub struct Writer<'a> {
    root: &'a Root,
    before: &'a dyn Fn(&str) -> Result<()>,
}

impl<'a> Writer<'a> {
    /// Changes `root`; `before` is told of each change on disk before it is made, and can refuse
    /// it.
    pub fn new(root: &'a Root, before: &'a dyn Fn(&str) -> Result<()>) -> Self {
        Self { root, before }
    }

    fn step(&self, what: &str, path: &str) -> Result<()> {
        (self.before)(&format!("{what} {path}"))
    }

    /// Makes a directory, unless there is one. Those above it are made too, as root's with mode
    /// 0755.
    pub fn make_directory(&self, path: &str, owner: Owner) -> Result<()> {
        if let Some((above, _)) = path.rsplit_once('/') {
            if self.root.stat(above)?.is_none() {
                self.make_directory(above, Owner::root(0o755))?;
            }
        }
        match self.root.kind(path)? {
            Kind::Directory => return Ok(()),
            Kind::Absent => {}
            _ => bail!(
                "{} is not a directory, and one must be there: remove it",
                self.root.name(path)
            ),
        }
        // It is complete when it gets its name.
        self.beside(path, |dir, new| {
            rustix::fs::mkdirat(dir, new, Mode::from_raw_mode(0o700))?;
            set_owner(dir, new, owner)
        })
    }

    /// Puts a symbolic link at `path`, in the place of a link, a file or an empty directory.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        if self.root.kind(path)? == Kind::Directory {
            self.remove_directory(path)?;
        }
        self.beside(path, |dir, new| {
            rustix::fs::symlinkat(target, dir, new)?;
            Ok(())
        })
    }

    /// Puts a file at `path`, in the place of a link or file. With `modified` it has that time.
    pub fn write(
        &self,
        path: &str,
        owner: Owner,
        content: &[u8],
        modified: Option<Timespec>,
    ) -> Result<()> {
        self.beside(path, |dir, new| {
            let file = create(dir, new)?;
            let mut file = std::fs::File::from(file);
            file.write_all(content)?;
            chown(&file, owner)?;
            set_times(&file, modified)?;
            Ok(())
        })
    }

    /// Moves a file, link or directory to a path, where nothing or a file or link is. To another
    /// file system (and between the layers of an overlay) it is copied, with all that belongs to
    /// it, and then removed.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (Some((old, old_name)), Some((new, new_name))) =
            (self.root.parent(from)?, self.root.parent(to)?)
        else {
            bail!("moving {}: it is gone", self.root.name(from));
        };
        self.step("rename", from)?;
        match rustix::fs::renameat(&old, old_name, &new, new_name) {
            Ok(()) => return Ok(()),
            Err(Errno::XDEV) => {}
            Err(e) => return Err(self.failure(from, e)),
        }
        self.copy(from, to)?;
        self.remove_tree(from)
    }

    /// Copies a file, link or directory with all that belongs to it; it has its name when it is
    /// complete.
    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let Some((source, name)) = self.root.parent(from)? else {
            bail!("copying {}: it is gone", self.root.name(from));
        };
        self.beside(to, |dir, new| copy_tree(&source, name, dir, new))
            .with_context(|| format!("copying {}", self.root.name(from)))
    }

    /// Gives what a program made its name, owner and time, in seconds since the epoch.
    pub fn finish(&self, made: &str, path: &str, time: i64) -> Result<()> {
        let Some(file) = self.root.open_file(made)? else {
            bail!("{} is not a regular file", self.root.name(made));
        };
        chown(&file, Owner::root(0o644))?;
        let modified = Timespec {
            tv_sec: time,
            tv_nsec: 0,
        };
        set_times(&file, Some(modified))?;
        self.rename(made, path)
    }

    /// Removes a file or link.
    pub fn remove(&self, path: &str) -> Result<()> {
        let Some((dir, name)) = self.root.parent(path)? else {
            return Ok(());
        };
        self.step("remove", path)?;
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failure(path, e)),
        }
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, path: &str) -> Result<()> {
        let Some((dir, name)) = self.root.parent(path)? else {
            return Ok(());
        };
        self.step("remove", path)?;
        match rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failure(path, e)),
        }
    }

    /// Removes whatever is at `path`, with all below it.
    pub fn remove_tree(&self, path: &str) -> Result<()> {
        if self.root.kind(path)? != Kind::Directory {
            return self.remove(path);
        }
        let below = self.root.below(path)?;
        for (at, kind) in below.iter().rev() {
            match kind {
                Kind::Directory => self.remove_directory(at)?,
                _ => self.remove(at)?,
            }
        }
        self.remove_directory(path)
    }

    /// Makes something under another name in the directory of `path`, and gives it its name.
    fn beside(&self, path: &str, make: impl FnOnce(&Dir, &str) -> Result<()>) -> Result<()> {
        let Some((dir, name)) = self.root.parent(path)? else {
            bail!("writing {}: its directory is gone", self.root.name(path));
        };
        let new = format!(".{name}{UNFINISHED}");
        let unfinished = match path.rsplit_once('/') {
            Some((above, _)) => format!("{above}/{new}"),
            None => new.clone(),
        };
        if self.root.stat(&unfinished)?.is_some() {
            self.remove_tree(&unfinished)?;
        }
        self.step("write", &unfinished)?;
        make(&dir, &new).map_err(|e| match e.downcast::<Errno>() {
            Ok(e) => self.failure(path, e),
            Err(e) => match e.downcast::<std::io::Error>() {
                Ok(e) => match Errno::from_io_error(&e) {
                    Some(errno) => self.failure(path, errno),
                    None => anyhow!(e).context(format!("writing {}", self.root.name(path))),
                },
                Err(e) => e,
            },
        })?;
        self.step("rename", &unfinished)?;
        rustix::fs::renameat(&dir, new.as_str(), &dir, name).map_err(|e| self.failure(path, e))
    }

    /// What a call to the kernel failed with, in words that help.
    fn failure(&self, path: &str, errno: Errno) -> anyhow::Error {
        let advice = match errno {
            Errno::ROFS => "; mount the root filesystem so that it can be written",
            Errno::PERM => "; it may be immutable: see lsattr(1) and chattr(1)",
            Errno::NOSPC => "; make room and run this again: it goes on where it stopped",
            Errno::BUSY => "; something is mounted there",
            _ => "",
        };
        anyhow!("changing {}: {errno}{advice}", self.root.name(path))
    }
}

fn create(dir: &Dir, name: &str) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(0o600),
    )?)
}

fn chown(file: impl AsFd, owner: Owner) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    // After the owner, whose change clears special bits.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode))?;
    Ok(())
}

fn set_times(file: impl AsFd, modified: Option<Timespec>) -> Result<()> {
    if let Some(time) = modified {
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(file, &times)?;
    }
    Ok(())
}

fn set_owner(dir: &Dir, name: &str, owner: Owner) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    chown(rustix::fs::openat(dir, name, flags, Mode::empty())?, owner)
}

/// Copies one entry and what is below it: content, owner, permissions, times and attributes.
fn copy_tree(from: &Dir, name: &str, to: &Dir, new: &str) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            rustix::fs::mkdirat(to, new, Mode::from_raw_mode(0o700))?;
            let target = rustix::fs::openat(to, new, flags, Mode::empty())?;
            let below = Dir::reopen_dir(&source)?;
            let made = Dir::reopen_dir(&target)?;
            for entry in below.entries()? {
                let child = entry?.file_name();
                let child = child
                    .to_str()
                    .ok_or_else(|| anyhow!("{child:?} is not UTF-8: rename or remove it"))?;
                copy_tree(&below, child, &made, child)?;
            }
            finish(&source, &target, &stat)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let target = create(to, new)?;
            let mut reader = std::fs::File::from(source);
            let mut writer = std::fs::File::from(target);
            std::io::copy(&mut reader, &mut writer)?;
            finish(&reader, &writer, &stat)?;
            Ok(())
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, new)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        }
        _ => bail!("{name} is neither a file, a link nor a directory: remove it"),
    }
}

fn finish(source: impl AsFd, target: impl AsFd, stat: &Stat) -> Result<()> {
    chown(&target, Owner::of(stat))?;
    copy_attributes(&source, &target)?;
    set_times(&target, Some(super::byte_code::modified(stat)))
}

/// Copies extended attributes, but for those that the storage below uses.
fn copy_attributes(source: impl AsFd, target: impl AsFd) -> Result<()> {
    let mut names = vec![0; 64 << 10];
    let len = match rustix::fs::flistxattr(&source, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    for name in names[..len].split(|byte| *byte == 0) {
        let of_storage =
            name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        if name.is_empty() || of_storage {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::fgetxattr(&source, name, &mut value[..])?;
        rustix::fs::fsetxattr(&target, name, &value[..len], XattrFlags::empty())?;
    }
    Ok(())
}
