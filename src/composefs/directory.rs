//! Directories as EROFS stores them: blocks of entries, the last of which may follow the inode
//! directly (Linux, filesystems/erofs.rst, "Directories").

use std::borrow::Cow;

use super::image::{BLOCK, Out};
use super::inodes::DIRECTORY;

/// Bytes of an entry without its name.
const ENTRY: usize = 12;
/// What is larger gets a block of its own.
const LARGEST_TAIL: usize = 2048;

/// A name in a directory.
#[derive(Debug)]
pub struct DirectoryEntry<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// The number of its inode.
    pub inode: usize,
    /// What kind of inode it is.
    pub kind: u8,
}

/// The entries of a directory.
#[derive(Debug, Default)]
pub struct Directory<'a> {
    /// Whole blocks.
    pub blocks: Vec<Vec<DirectoryEntry<'a>>>,
    /// What lies behind the inode.
    pub tail: Vec<DirectoryEntry<'a>>,
    /// Bytes of it all.
    pub size: u64,
    /// How many directories it names, itself and its parent among them.
    pub links: usize,
}

impl<'a> Directory<'a> {
    /// Puts sorted entries into blocks.
    pub fn new(entries: Vec<DirectoryEntry<'a>>) -> Self {
        let links = entries.iter().filter(|e| e.kind == DIRECTORY).count();
        let (mut blocks, mut tail, mut size) = (Vec::new(), Vec::new(), 0);
        for entry in entries {
            let needs = ENTRY + entry.name.len();
            if size + needs > BLOCK as usize {
                blocks.push(std::mem::take(&mut tail));
                size = 0;
            }
            size += needs;
            tail.push(entry);
        }
        if size > LARGEST_TAIL {
            blocks.push(std::mem::take(&mut tail));
            size = 0;
        }
        Self {
            size: BLOCK * blocks.len() as u64 + size as u64,
            blocks,
            tail,
            links,
        }
    }
}

/// Writes entries: first what they are, then their names. `place` gives the address of an inode.
pub fn write_entries(
    entries: &[DirectoryEntry<'_>],
    out: &mut Out<'_>,
    place: impl Fn(usize) -> u64,
) {
    let mut name_at = ENTRY * entries.len();
    for entry in entries {
        out.write(&place(entry.inode).to_le_bytes());
        out.write(&(name_at as u16).to_le_bytes());
        out.write(&[entry.kind, 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        out.write(entry.name.as_bytes());
    }
}
