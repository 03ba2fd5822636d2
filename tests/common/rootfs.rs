//! Root filesystems made by code, and what is in one on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lsetxattr};

use super::image::{Nodes, Xattrs, sha256};
use super::is_root;

/// The time that every entry of a fixture has, in seconds since the epoch.
pub const MTIME: i64 = 1_700_000_000;

/// A root filesystem in the making.
pub struct Rootfs {
    /// Its root.
    pub path: PathBuf,
}

impl Rootfs {
    /// An empty one at `path`, which is created.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// The path as text.
    pub fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// A path below the root.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// A directory, with those above it.
    pub fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    /// A file with content; the directories above it are made.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        self.dir(Path::new(path).parent().unwrap().to_str().unwrap());
        fs::write(self.at(path), content).unwrap();
        self
    }

    /// A symbolic link.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        self.dir(Path::new(path).parent().unwrap().to_str().unwrap());
        symlink(target, self.at(path)).unwrap();
        self
    }

    /// A hard link to an earlier file.
    pub fn hard_link(&self, path: &str, first: &str) -> &Self {
        fs::hard_link(self.at(first), self.at(path)).unwrap();
        self
    }

    /// Permission bits.
    pub fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Owner and group, which only root can set: others leave it.
    pub fn owner(&self, path: &str, uid: u32, gid: u32) -> &Self {
        if is_root() {
            let path = self.at(path);
            match path.is_symlink() {
                true => lchown(path, Some(uid), Some(gid)).unwrap(),
                false => chown(path, Some(uid), Some(gid)).unwrap(),
            }
        }
        self
    }

    /// An extended attribute. `security.*` asks for root: others leave it.
    pub fn xattr(&self, path: &str, name: &str, value: &[u8]) -> &Self {
        if is_root() || name.starts_with("user.") {
            lsetxattr(self.at(path), name, value, XattrFlags::empty()).unwrap();
        }
        self
    }

    /// A dpkg database of packages with their sources, versions and paths.
    pub fn packages(&self, packages: &[(&str, &str, &str, &[&str])]) -> &Self {
        let mut status = String::new();
        for (name, source, version, paths) in packages {
            status += &format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {source}\nVersion: {version}\n\n"
            );
            let list: String = paths.iter().map(|path| format!("/{path}\n")).collect();
            self.file(
                &format!("var/lib/dpkg/info/{name}.list"),
                format!("/.\n{list}"),
            );
        }
        self.file("var/lib/dpkg/status", status)
    }

    /// Gives every entry the same time, so that two fixtures made alike are alike.
    pub fn settle(&self) -> &Self {
        settle(&self.path);
        self
    }
}

fn settle(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            settle(&entry.unwrap().path());
        }
    }
    let time = Timespec {
        tv_sec: MTIME,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// `cap_net_raw+ep` as the kernel stores it (capabilities(7), VFS_CAP_REVISION_2).
pub const CAP_NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// `u::rw-,u:1000:r--,g::r--,m::r--,o::r--` as the kernel stores it (acl(5), version 2).
pub const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// A small system with everything in it that is easy to get wrong.
pub fn odd_rootfs(path: PathBuf) -> Rootfs {
    let rootfs = Rootfs::new(path);
    let long = format!("usr/share/{}/{}", "d".repeat(80), "f".repeat(90));
    rootfs
        .packages(&[
            (
                "libfoo1",
                "foo",
                "1.0-1",
                &[
                    "usr",
                    "usr/lib",
                    "lib/libfoo.so.1",
                    "usr/share/doc/libfoo1/copyright",
                ],
            ),
            (
                "foo",
                "foo",
                "1.0-1",
                &[
                    "usr/bin",
                    "usr/bin/foo",
                    "usr/bin/foo-setuid",
                    "usr/bin/foo-cap",
                    "usr/share/doc/foo/copyright",
                ],
            ),
            (
                "bar",
                "bar",
                "2.0-1+deb12u3",
                &[
                    "usr/bin/bar",
                    "usr/share/bar/empty-directory",
                    "usr/share/bar/empty",
                ],
            ),
            ("empty", "empty", "1", &[]),
        ])
        .link("lib", "usr/lib")
        .file("usr/lib/libfoo.so.1.0", vec![7; 100_000])
        .link("usr/lib/libfoo.so.1", "libfoo.so.1.0")
        .file("usr/bin/foo", vec![1; 5000])
        .file("usr/bin/foo-setuid", vec![2; 600])
        .mode("usr/bin/foo-setuid", 0o4755)
        .file("usr/bin/foo-cap", vec![3; 700])
        .xattr("usr/bin/foo-cap", "security.capability", &CAP_NET_RAW)
        .file("usr/bin/bar", vec![4; 300_000])
        .hard_link("usr/bin/bar2", "usr/bin/bar")
        .dir("usr/share/bar/empty-directory")
        .file("usr/share/bar/empty", "")
        .file("usr/share/doc/foo/copyright", "the same text\n")
        .file("usr/share/doc/libfoo1/copyright", "the same text\n")
        .file(
            "usr/share/ca/NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt",
            "x",
        )
        .link(
            "usr/share/ca/ékezet",
            "NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt",
        )
        .file("usr/share/odd/ leading and trailing ", "1")
        .file("usr/share/odd/new\nline", "2")
        .file("usr/share/odd/back\\slash", "3")
        .file("usr/share/odd/-dash", "4")
        .file("usr/share/odd/empty1", "")
        .file("usr/share/odd/empty2", "")
        .mode("usr/share/odd/empty2", 0o600)
        .file(&long, "long name")
        .link("usr/share/odd/long-link", &format!("../../../{long}"))
        .link("usr/share/odd/denormal", "..//..///share/./odd")
        .link("usr/share/odd/dangling", "/nowhere")
        .file("usr/share/odd/owned", "5")
        .owner("usr/share/odd/owned", 4_000_000_000, 65534)
        .file("usr/share/odd/acl", "6")
        .mode("usr/share/odd/acl", 0o644)
        .xattr("usr/share/odd/acl", "system.posix_acl_access", &ACL)
        .file("usr/share/odd/user-attribute", "7")
        .xattr("usr/share/odd/user-attribute", "user.note", b"\0\xff\nnote")
        .xattr(
            "usr/share/odd/user-attribute",
            "user.component",
            b"hinted, with comma",
        )
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/hostname", "odd\n")
        .file("var/log/dpkg.log", "log\n")
        .dir("proc")
        .dir("sys")
        .dir("dev")
        .dir("run")
        .dir("tmp")
        .mode("tmp", 0o1777)
        .file("run/left-out", "x")
        .file("tmp/left-out", "x")
        .file("sysroot/ostree/repo/config", "x")
        .dir("root")
        .mode("root", 0o700)
        .mode("usr/share/odd", 0o2775)
        .settle();
    rootfs
}

/// What the kernel stores for the default ACL of a directory:
/// `u::rwx,u:1000:r-x,g::r-x,m::r-x,o::r-x`.
pub const DEFAULT_ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 255, 255,
    255, 255, 16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
];

/// Directories at the top whose content no image has.
pub const EMPTIED: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "tmp"];

/// What an image of a rootfs must have.
pub fn read_rootfs(root: &Path) -> Nodes {
    let mut nodes = read_tree(root);
    nodes.retain(|path, _| {
        let top = path.split_once('/').map(|(top, _)| top);
        top.is_none_or(|top| !EMPTIED.contains(&top))
    });
    for (_, _, _, _, _, xattrs) in nodes.values_mut() {
        xattrs.retain(|name, _| !["user.component", "user.update-interval"].contains(&&**name));
    }
    nodes
}

/// What of a tree on disk a commit can hold, but for what labels files for SELinux.
pub fn read_tree(root: &Path) -> Nodes {
    use std::os::unix::fs::MetadataExt;
    let mut nodes = Nodes::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let permissions = found.mode() & 0o7777;
        let (kind, mode, text) = if found.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            ('d', permissions, String::new())
        } else if found.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            ('l', 0, target.to_str().unwrap().to_owned())
        } else {
            ('f', permissions, sha256(&fs::read(&path).unwrap()))
        };
        let owner = (found.uid().into(), found.gid().into());
        let relative = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        nodes.insert(
            relative,
            (kind, mode, owner.0, owner.1, text, xattrs(&path)),
        );
    }
    nodes
}

fn xattrs(path: &Path) -> Xattrs {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    let names = names.filter(|name| *name != b"security.selinux");
    let read = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
        (name, value[..len].to_vec())
    };
    // libostree takes an attribute without a value for none.
    let attributes = names.map(read);
    attributes.filter(|(_, value)| !value.is_empty()).collect()
}
