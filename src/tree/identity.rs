//! What tells that a file on disk is the one that was read at another time.

use std::os::fd::AsFd;

/// The major number of devices that stand for no disk: overlays, tmpfs, btrfs. Each mount gets
/// another minor number, so that it tells nothing at another time (proc(5), "Anonymous devices").
const ANONYMOUS: u32 = 0;

/// A file on disk as its file system tells it from others, and from what it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The number of the device; 0 where that is none of a disk.
    pub device: u64,
    /// What the file system calls itself (statvfs(3), `f_fsid`).
    pub filesystem: u64,
    /// The number of the inode.
    pub inode: u64,
    /// The size of the content in bytes.
    pub size: u64,
    /// The time of the last change of anything, which no program can set: seconds since the epoch
    /// and nanoseconds.
    pub changed: (i64, i64),
    /// The time of the last change of the content, which programs set.
    pub modified: (i64, i64),
}

impl FileIdentity {
    /// All of it, for hashing.
    pub fn to_bytes(self) -> [u8; 64] {
        let numbers = [
            self.device,
            self.filesystem,
            self.inode,
            self.size,
            self.changed.0 as u64,
            self.changed.1 as u64,
            self.modified.0 as u64,
            self.modified.1 as u64,
        ];
        let mut bytes = [0; 64];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

/// The number of a device where it is a disk's, else 0.
pub(super) fn of_disk(device: u64) -> u64 {
    match rustix::fs::major(device) {
        ANONYMOUS => 0,
        _ => device,
    }
}

/// What a file system calls itself; none where it has no name.
pub(super) fn filesystem(file: impl AsFd) -> Option<u64> {
    let found = rustix::fs::fstatvfs(file).ok()?;
    (found.f_fsid != 0).then_some(found.f_fsid)
}
