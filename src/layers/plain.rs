//! Layers of an ordinary image.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;

use super::members::{LayerArchive, Source};
use crate::oci::MemberKind;
use crate::tree::{EntryId, Kind};

/// Writes `entries` to `out` and gives `out` back. `mtime` gives the time of each entry in seconds
/// since the epoch; a directory's must not depend on what else is in it.
///
/// # Errors
/// When a file cannot be read, changes meanwhile, or `out` fails.
pub fn write_plain_layer<W: Write>(
    source: Source<'_>,
    entries: &[EntryId],
    mtime: &dyn Fn(EntryId) -> u64,
    out: W,
    buffer: &mut [u8],
) -> Result<W> {
    let tree = source.tree;
    let mut layer = LayerArchive::new(source, out, mtime, buffer);
    let mut written: HashMap<EntryId, EntryId> = HashMap::new();
    for id in entries {
        let entry = tree.entry(*id);
        layer.directory(match entry.kind {
            Kind::Directory => *id,
            _ => entry.parent,
        })?;
        let path = tree.path(*id);
        match entry.kind {
            Kind::Directory => {}
            Kind::Symlink => {
                let link = MemberKind::Symlink(tree.target(*id));
                layer.entry(*id, path.as_str(), link, true)?;
            }
            Kind::Regular => match written.get(&tree.inode(*id)) {
                Some(first) => {
                    let first = tree.path(*first);
                    let link = MemberKind::HardLink(first.as_str());
                    layer.entry(*id, path.as_str(), link, false)?;
                }
                None => {
                    layer.file(*id, path.as_str())?;
                    written.insert(tree.inode(*id), *id);
                }
            },
        }
    }
    Ok(layer.tar.finish()?)
}
