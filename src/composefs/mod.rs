//! The composefs image of a system, as bootc makes it of a container image: an EROFS of all names
//! and metadata, in which each file is named by its fs-verity digest. The fs-verity digest of that
//! image is what a sealed kernel command line names: a machine boots that image and no other.
//!
//! In goes a tree, out comes the digest; the image itself is never written. This is bootc 1.16's
//! choice of what composefs offers: SHA-512, format version 1, and extended attributes but for
//! file capabilities left out. The crate `composefs` would give the same, and asks for OpenSSL,
//! threads of its own, a repository on disk and a newer Rust; the tests hold this equal to it.

mod directory;
mod image;
mod inodes;
#[cfg(test)]
mod tests;
mod verity;
mod view;
mod xattrs;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::num::NonZeroUsize;

use anyhow::{Context, Result, ensure};

use crate::checksum::hexadecimal;
use crate::parallel;
use crate::progress::Progress;
use crate::tree::{Contents, EntryId, Tree};
use inodes::Inodes;
use verity::{Digest, Verity};
use view::View;

/// Files up to this size, in bytes, are in the image itself.
const INLINE: u64 = 64;
/// Larger ones are several chunks, in bytes.
const LARGEST: u64 = 1 << 43;
const BUFFER: usize = 256 * 1024;

/// The fs-verity digest of a composefs image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ImageId(Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The content of a file as the image has it.
#[derive(Debug)]
enum Stored {
    Inline(Vec<u8>),
    Object(Digest),
}

/// The digest of the image that bootc makes of `tree`: the files of a container image, with the
/// times that its layers give them.
///
/// # Errors
/// When a file cannot be read, or bootc would not boot the system: without `/usr`, `/boot` or
/// `/sysroot`; or with a policy of SELinux, by which it would label files.
pub fn image_id(
    tree: &Tree,
    contents: &dyn Contents,
    threads: NonZeroUsize,
    progress: &dyn Progress,
) -> Result<ImageId> {
    let mut hasher = Verity::default();
    write_image(tree, contents, threads, progress, &mut |bytes| {
        hasher.update(bytes);
    })?;
    Ok(ImageId(hasher.finish()))
}

fn write_image(
    tree: &Tree,
    contents: &dyn Contents,
    threads: NonZeroUsize,
    progress: &dyn Progress,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let view = View::new(tree)?;
    let mut files = view.files();
    files.sort_by_key(|id| Reverse(tree.entry(*id).size));
    let total = files.iter().map(|id| tree.entry(*id).size);
    progress.begin("hashing files", total.fold(0, u64::saturating_add));
    let stored = parallel::map(
        threads,
        &files,
        || vec![0; BUFFER],
        |buffer, id| {
            let stored = store(tree, contents, *id, buffer);
            progress.done(tree.entry(*id).size)?;
            stored.with_context(|| format!("reading /{}", tree.path(*id)))
        },
    )?;
    progress.end();
    let stored: HashMap<EntryId, Stored> = files.into_iter().zip(stored).collect();
    image::write(&Inodes::collect(&view, &stored)?, sink);
    Ok(())
}

fn store(tree: &Tree, contents: &dyn Contents, id: EntryId, buffer: &mut [u8]) -> Result<Stored> {
    let size = tree.entry(id).size;
    ensure!(
        size <= LARGEST,
        "it has {size} bytes, and composefs takes {LARGEST} at most"
    );
    let mut content = contents.open(tree, id)?;
    if size <= INLINE {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        return Ok(Stored::Inline(bytes));
    }
    let mut hasher = Verity::default();
    loop {
        match content.read(buffer)? {
            0 => return Ok(Stored::Object(hasher.finish())),
            got => hasher.update(&buffer[..got]),
        }
    }
}
