//! Reading extended attributes from disk (xattr(7)).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Result;
use camino::Utf8Path;
use cap_std::fs::Dir;
use rustix::fs::{Mode, OFlags};

use super::directory::open_file;
use super::{Xattrs, xattrs};

/// The attributes of an entry of any kind, by its path through /proc: without opening it.
pub fn through_proc(dir: &Dir, name: &str) -> Result<Xattrs> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
    read_xattrs(
        |list| rustix::fs::llistxattr(&path, list),
        |name, value| rustix::fs::lgetxattr(&path, name, value),
    )
}

/// The attributes of a regular file.
pub fn of_file(dir: &Dir, name: &str) -> Result<Xattrs> {
    fd_xattrs(open_file(dir, Utf8Path::new(name))?)
}

/// The attributes of a directory, whose handle alone is not good for reading them (`O_PATH`).
pub fn of_directory(dir: &Dir) -> Result<Xattrs> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fd_xattrs(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

fn fd_xattrs(fd: impl AsFd) -> Result<Xattrs> {
    read_xattrs(
        |list| rustix::fs::flistxattr(&fd, list),
        |name, value| rustix::fs::fgetxattr(&fd, name, value),
    )
}

/// Lists and reads attributes, those that are content only. Values may grow between two calls.
fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> Result<Xattrs> {
    let names = match grown(list) {
        // A file system without extended attributes.
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0) {
        // What the storage uses may even be unreadable.
        if !name.is_empty() && (xattrs::is_content(name) || xattrs::is_hint(name)) {
            let c_name = CString::new(name)?;
            match grown(|value| get(&c_name, value)) {
                // Gone since it was listed.
                Err(rustix::io::Errno::NODATA) => {}
                value => found.push((name.to_vec(), value?)),
            }
        }
    }
    Ok(found)
}

/// Calls `fill` with buffers that grow until the answer fits.
fn grown(fill: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match fill(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => {
                // Asked with no room, the kernel tells the size.
                let needed = fill(&mut [])?;
                buffer.resize(needed.max(buffer.len()) * 2, 0);
            }
            Err(e) => return Err(e),
        }
    }
}
