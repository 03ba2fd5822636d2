//! Claims for the paths that installed packages own, by the lists of dpkg.

use anyhow::Result;

use crate::dpkg::{Database, Files};
use crate::tree::Tree;

/// For each entry the position of the package that owns it. Paths go through the links that have
/// replaced directories since they were recorded (merged `/usr`). An entry in several lists
/// belongs to the first package by name; for a directory that says little.
pub fn owned_entries(
    tree: &Tree,
    database: Option<&Database>,
    files: &dyn Files,
) -> Result<Vec<Option<u32>>> {
    let mut owned = vec![None; tree.len()];
    let Some(database) = database else {
        return Ok(owned);
    };
    for (at, package) in database.packages.iter().enumerate() {
        for path in database.paths(files, package)? {
            // Listed and absent is normal: dpkg's path-exclude leaves documentation out.
            if let Some(id) = tree.locate(&path) {
                owned[id.index()].get_or_insert(at as u32);
            }
        }
    }
    Ok(owned)
}
