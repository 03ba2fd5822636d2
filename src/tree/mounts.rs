//! Detects mounts in the root of the running system, which are not part of that system.

use camino::Utf8Path;
use cap_std::fs::Dir;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, Stat, StatxAttributes, StatxFlags, statx};

/// Whether `root` is the root directory of this process.
pub fn is_own_root(root: &Stat) -> bool {
    let own = rustix::fs::stat("/");
    own.is_ok_and(|own| (own.st_dev, own.st_ino) == (root.st_dev, root.st_ino))
}

/// Whether a directory is on an overlay file system (statfs(2), `OVERLAYFS_SUPER_MAGIC`).
pub fn is_overlay(dir: &Dir) -> bool {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    rustix::fs::fstatfs(dir).is_ok_and(|found| found.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

/// Whether something is mounted at `name` in `dir`, be it on a file: the device does not tell with
/// bind mounts (statx(2), `STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
pub fn is_root_of_mount(dir: &Dir, name: &str) -> bool {
    is_root(dir.as_fd(), name)
}

/// Whether something is mounted at a path.
pub fn is_mount_point(path: &Utf8Path) -> bool {
    is_root(CWD, path.as_str())
}

fn is_root(at: rustix::fd::BorrowedFd<'_>, path: &str) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(at, path, flags, StatxFlags::TYPE);
    found.is_ok_and(|found| {
        found
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
            && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}
