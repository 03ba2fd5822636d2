//! Checks for files that cannot be in an image, or cannot be used there as they are.

use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType};

use crate::finalize::root::{Kind, Root};
use crate::finalize::system::System;
use crate::tree;

/// Directories whose contents are in no image.
const LEFT_OUT: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "tmp"];

pub fn refused(system: &System<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(at) = pending.pop() {
        if LEFT_OUT.contains(&at.as_str()) {
            continue;
        }
        let Some(dir) = system.root.directory(&at)? else {
            continue;
        };
        for entry in dir.entries()? {
            let name = entry.with_context(|| format!("reading /{at}"))?.file_name();
            let slash = if at.is_empty() { "" } else { "/" };
            let Some(text) = name.to_str() else {
                found.push(format!("/{at}{slash}{}", name.as_bytes().escape_ascii()));
                continue;
            };
            let path = format!("{at}{slash}{text}");
            if tree::is_root_of_mount(&dir, text) {
                continue;
            }
            let stat = rustix::fs::statat(&dir, text, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.with_context(|| format!("reading /{path}"))?;
            match FileType::from_raw_mode(stat.st_mode) {
                _ if text.starts_with(".wh.") => found.push(format!("/{path}")),
                FileType::Directory => pending.push(path),
                FileType::RegularFile | FileType::Symlink => {}
                _ => found.push(format!("/{path}")),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub fn writable(system: &System<'_>) -> Result<Vec<String>> {
    const OTHERS_WRITE: u32 = 0o002;
    let root = system.root;
    let mut found = Vec::new();
    for (path, kind) in root.below("usr")? {
        let is_found = match kind {
            Kind::Directory => root
                .stat(&path)?
                .is_some_and(|stat| stat.st_mode & OTHERS_WRITE != 0),
            // A package's own is as it is to be.
            Kind::Link(target) => {
                leads_to_var(&target) && system.owner(&path).is_none() && !is_known(root, &path)
            }
            _ => false,
        };
        if is_found {
            found.push(format!("/{path}"));
        }
    }
    Ok(found)
}

fn leads_to_var(target: &str) -> bool {
    target.starts_with("/var/")
        || target.trim_start_matches("../").starts_with("var/") && target.starts_with("../")
}

/// Links that scripts of packages make to what the system finds at run time.
fn is_known(_: &Root, path: &str) -> bool {
    path.starts_with("usr/share/factory/") || path.starts_with("usr/lib/sysimage/")
}
