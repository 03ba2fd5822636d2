//! One walk over a directory on disk. A rootfs is hostile input: everything below it is reached
//! through directory handles, and no link is ever followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, anyhow, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use cap_fs_ext::DirExt;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Stat};

use super::directory::{Directory, Stamps};
use super::disk_xattrs;
use super::faults::Faults;
use super::filter::Verdict;
use super::mounts;
use super::odd::Oddities;
use super::{EntryId, Filter, Kind, Metadata, SpecialFiles, Tree, TreeBuilder, Xattrs};
use crate::parallel;

/// The mode that containers-storage gives the root of every overlay, whatever the image says (its
/// `drivers/overlay`, `defaultPerms`); on vfs the root is as the image has it. Debian's is 0755
/// (base-files).
const STORAGE_ROOT: u32 = 0o555;

/// Directories that are listed before any of them is taken into the tree: work for all threads, and
/// little memory.
const BATCH: usize = 256;

/// Reads the tree below the directory at `path`, without the content of files, on `threads`
/// threads. Where there is only `/usr/etc`, as in a checkout of a commit, the tree has it as
/// `/etc`.
///
/// # Errors
/// When `path` is no readable directory; when an entry cannot be part of an image (a special file,
/// a name or link target that is not UTF-8, a `.wh.` name): up to ten such entries are named.
pub fn scan(path: &Utf8Path, filter: &Filter, threads: NonZeroUsize) -> Result<(Tree, Directory)> {
    let handle = open_root(path)?;
    let stat = rustix::fs::fstat(&handle).with_context(|| format!("reading rootfs {path}"))?;
    let xattrs =
        disk_xattrs::of_directory(&handle).with_context(|| format!("reading rootfs {path}"))?;
    let proc_links = std::fs::symlink_metadata("/proc/self/fd").is_ok();
    let mut root = metadata(&stat, Kind::Directory, xattrs);
    if root.permissions == STORAGE_ROOT && mounts::is_overlay(&handle) {
        root.permissions = 0o755;
    }
    let lister = Lister {
        filter,
        proc_links,
        in_place: mounts::is_own_root(&stat),
    };
    let mut walk = Walk {
        links: HashMap::new(),
        etc_is_in_usr: false,
        builder: TreeBuilder::new(root),
        stamps: Stamps::default(),
        faults: Faults::default(),
        odd: Oddities::new(),
    };
    walk.stamps.push(&stat);
    walk.run(&handle, &lister, threads)
        .with_context(|| format!("reading rootfs {path}"))?;
    walk.faults.check(&path, &walk.odd)?;
    filter.warn_of_unmatched();
    walk.odd.tell();
    drop(walk.links);
    let (tree, new_ids) = walk.builder.finish();
    let mut stamps = walk.stamps;
    stamps.reorder(&new_ids);
    let directory = Directory::new(path, handle, stamps, walk.etc_is_in_usr);
    Ok((tree, directory))
}

fn open_root(path: &Utf8Path) -> Result<Dir> {
    let found = std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("no rootfs at {path}: there is no such directory; is it mounted there?")
        }
        _ => anyhow!(e).context(format!("opening rootfs {path}")),
    })?;
    ensure!(
        found.is_dir(),
        "rootfs {path} is not a directory; give the directory that holds usr, etc and var"
    );
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
        .with_context(|| format!("opening rootfs {path}"))
}

/// An entry that has been looked at but is not in the tree yet.
struct Seen {
    parent: EntryId,
    name: String,
    target: String,
    stat: Stat,
    kind: Kind,
    xattrs: Xattrs,
    verdict: Verdict,
}

impl Seen {
    /// A directory that something is mounted on: its own owner and mode cannot be seen.
    fn mount_point(parent: EntryId, name: &str, path: &Utf8Path, mounted: Stat) -> Self {
        let mut stat = mounted;
        stat.st_mode = match path.as_str() {
            "tmp" | "var/tmp" => 0o1777,
            _ => 0o755,
        };
        (stat.st_uid, stat.st_gid, stat.st_mtime) = (0, 0, 0);
        Self {
            parent,
            name: name.to_owned(),
            target: String::new(),
            stat,
            kind: Kind::Directory,
            xattrs: Vec::new(),
            verdict: Verdict::KeepEmpty,
        }
    }
}

/// The tree as far as it has been walked.
struct Walk {
    /// The first entry of each file, by device and inode: numbers of inodes repeat across mounts.
    links: HashMap<(u64, u64), EntryId>,
    etc_is_in_usr: bool,
    builder: TreeBuilder,
    stamps: Stamps,
    faults: Faults,
    odd: Oddities,
}

impl Walk {
    /// The last directories first, with those still to read on a list instead of the stack and no
    /// handle held open: neither depth nor width of a hostile tree exhausts anything.
    fn run(&mut self, root: &Dir, lister: &Lister<'_>, threads: NonZeroUsize) -> Result<()> {
        let lacks_etc = rustix::fs::statat(root, "etc", AtFlags::SYMLINK_NOFOLLOW).is_err();
        let mut pending: Vec<(EntryId, Utf8PathBuf)> = vec![(EntryId::ROOT, Utf8PathBuf::new())];
        while !pending.is_empty() {
            let batch = pending.split_off(pending.len().saturating_sub(BATCH));
            let listed = parallel::map(
                threads,
                &batch,
                || (),
                |(), (id, path)| lister.open_and_list(root, *id, path, self.odd.begin_as()),
            )?;
            for ((_, path), listed) in batch.into_iter().zip(listed) {
                self.faults.append(listed.faults);
                self.odd.append(listed.odd);
                for mut entry in listed.seen {
                    if lacks_etc && path == "usr" && entry.name == "etc" {
                        entry.parent = EntryId::ROOT;
                        self.etc_is_in_usr = true;
                    }
                    let descend = entry.kind == Kind::Directory && entry.verdict == Verdict::Keep;
                    let child = descend.then(|| path.join(&entry.name));
                    let id = self.add(entry)?;
                    pending.extend(child.map(|child| (id, child)));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, seen: Seen) -> Result<EntryId> {
        let metadata = metadata(&seen.stat, seen.kind, seen.xattrs);
        let id = self
            .builder
            .push(seen.parent, &seen.name, &seen.target, metadata)?;
        self.stamps.push(&seen.stat);
        if seen.kind == Kind::Regular {
            // Not by the link count: overlay file systems report a stale one after a copy-up.
            let key = (seen.stat.st_dev, seen.stat.st_ino);
            let first = *self.links.entry(key).or_insert(id);
            if first != id {
                self.builder.link(id, first);
            }
        }
        Ok(id)
    }
}

/// What was seen in one directory.
struct Listed {
    seen: Vec<Seen>,
    faults: Faults,
    odd: Oddities,
}

/// Looks at directories.
struct Lister<'f> {
    filter: &'f Filter,
    /// Whether /proc is there; a container without it takes a longer way to attributes, which
    /// links do not have.
    proc_links: bool,
    /// Whether this is the root of the running system: what is mounted in it is not part of it.
    in_place: bool,
}

impl Lister<'_> {
    fn open_and_list(
        &self,
        root: &Dir,
        id: EntryId,
        path: &Utf8Path,
        odd: Oddities,
    ) -> Result<Listed> {
        let opened = match path.as_str() {
            "" => root.try_clone(),
            below => root.open_dir_nofollow(below),
        };
        let dir = opened.with_context(|| format!("opening directory /{path}"))?;
        let mut listed = Listed {
            seen: Vec::new(),
            faults: Faults::default(),
            odd,
        };
        self.list(&dir, id, path, &mut listed)
            .with_context(|| format!("reading directory /{path}"))?;
        Ok(listed)
    }

    fn list(&self, dir: &Dir, parent: EntryId, path: &Utf8Path, listed: &mut Listed) -> Result<()> {
        for item in dir.entries()? {
            let name = item?.file_name();
            let Some(name) = name.to_str() else {
                let faults = &mut listed.faults;
                faults.add(
                    &shown(path, &name),
                    "its name is not UTF-8; rename or remove it",
                );
                continue;
            };
            let full = path.join(name);
            let verdict = self.filter.verdict(full.as_str());
            if verdict == Verdict::Drop {
                continue;
            }
            if name.starts_with(".wh.") {
                let why = "container tools take this name for a whiteout (a deleted file); rename or remove it";
                listed.faults.add(&shown(path, OsStr::new(name)), why);
                continue;
            }
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("reading /{full}"))?;
            let is_empty = stat.st_mode & 0o170_000 == 0o100_000 && stat.st_size == 0;
            if is_empty && is_injected(&full, (stat.st_uid, stat.st_mode & 0o7777)) {
                tracing::debug!("left out /{full}: a container runtime has put it there");
                continue;
            }
            if self.in_place && mounts::is_root_of_mount(dir, name) {
                tracing::info!("left out what is mounted at /{full}");
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    listed
                        .seen
                        .push(Seen::mount_point(parent, name, &full, stat));
                }
                continue;
            }
            let Some(kind) = self.kind(&stat, path, name, &mut listed.faults) else {
                continue;
            };
            let target = match kind {
                Kind::Symlink => match target(dir, path, name, &mut listed.faults)? {
                    Some(target) => target,
                    None => continue,
                },
                _ => String::new(),
            };
            if kind == Kind::Regular {
                listed.odd.see_file(dir, name, &full, &stat);
            }
            let xattrs = self
                .xattrs(dir, name, kind)
                .with_context(|| format!("reading the extended attributes of /{full}"))?;
            listed.seen.push(Seen {
                parent,
                name: name.to_owned(),
                target,
                stat,
                kind,
                xattrs,
                verdict,
            });
        }
        Ok(())
    }

    /// The kind of an entry; none, with or without a fault, for a special file.
    fn kind(&self, stat: &Stat, path: &Utf8Path, name: &str, faults: &mut Faults) -> Option<Kind> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Some(Kind::Directory),
            FileType::RegularFile => return Some(Kind::Regular),
            FileType::Symlink => return Some(Kind::Symlink),
            FileType::Socket => "a socket",
            FileType::Fifo => "a fifo",
            FileType::CharacterDevice | FileType::BlockDevice => "a device node",
            FileType::Unknown => "of a type unknown here",
        };
        if self.filter.special_files == SpecialFiles::Skip {
            tracing::debug!("left out /{}: it is {what}", path.join(name));
        } else {
            faults.special(&shown(path, OsStr::new(name)), what);
        }
        None
    }

    fn xattrs(&self, dir: &Dir, name: &str, kind: Kind) -> Result<Xattrs> {
        match (self.proc_links, kind) {
            (true, _) => disk_xattrs::through_proc(dir, name),
            (false, Kind::Symlink) => Ok(Vec::new()),
            (false, Kind::Directory) => disk_xattrs::of_directory(&dir.open_dir_nofollow(name)?),
            (false, Kind::Regular) => disk_xattrs::of_file(dir, name),
        }
    }
}

/// Where a link leads; none, with a fault, where that is no text.
fn target(dir: &Dir, path: &Utf8Path, name: &str, faults: &mut Faults) -> Result<Option<String>> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())
        .with_context(|| format!("reading the link /{}", path.join(name)))?;
    let target = target.into_string().ok();
    if target.is_none() {
        faults.target(&shown(path, OsStr::new(name)));
    }
    Ok(target)
}

/// The path of an entry whose name may be anything.
fn shown(path: &Utf8Path, name: &OsStr) -> String {
    let name = name.as_bytes().escape_ascii();
    match path.as_str() {
        "" => name.to_string(),
        path => format!("{path}/{name}"),
    }
}

/// Whether an empty file is the mark or the stub of a container runtime, by its owner and mode:
/// docker's mark, or the file that buildah and runc make (with mode 0755, which nobody else gives
/// it) to mount their own over.
pub(super) fn is_injected(path: &Utf8Path, (uid, permissions): (u32, u32)) -> bool {
    const STUBS: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
    uid == 0 && (path == ".dockerenv" || permissions == 0o755 && STUBS.contains(&path.as_str()))
}

fn metadata(stat: &Stat, kind: Kind, xattrs: Xattrs) -> Metadata {
    Metadata {
        kind,
        permissions: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        size: match kind {
            Kind::Regular => stat.st_size as u64,
            _ => 0,
        },
        xattrs,
    }
}
