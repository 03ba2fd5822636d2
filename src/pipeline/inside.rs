//! What is written while a root filesystem is read must not lie in it.

use anyhow::{Result, bail};
use camino::Utf8Path;

use crate::oci::parent_directory;
use crate::remedy::{Advised, Remedy};
use crate::tree::{Filter, is_mount_point};

/// Refuses `path`, which the user knows as the output or the cache, inside `rootfs`.
///
/// # Errors
/// When it lies there, and is neither left out nor on something that is mounted there.
pub fn refuse_inside(
    what: &str,
    path: &Utf8Path,
    rootfs: &Utf8Path,
    filter: &Filter,
) -> Result<()> {
    let (Ok(parent), Ok(root)) = (
        parent_directory(path).canonicalize_utf8(),
        rootfs.canonicalize_utf8(),
    ) else {
        // What is missing is reported by whoever needs it.
        return Ok(());
    };
    let output = parent.join(path.file_name().unwrap_or_default());
    match output.strip_prefix(&root) {
        Ok(_) if is_mounted_elsewhere(&parent, &root) => Ok(()),
        Ok(inside) if !filter.excludes(inside.as_str()) => {
            bail!(Advised::new(
                Remedy::LeaveOutDirectory,
                format!(
                    "the {what} {path} lies inside the rootfs {rootfs} and would become part of it; write it elsewhere"
                )
            ))
        }
        _ => Ok(()),
    }
}

/// Whether `directory`, below the root of this very system, is on a volume or the like: what is
/// mounted is left out there.
fn is_mounted_elsewhere(directory: &Utf8Path, root: &Utf8Path) -> bool {
    root == "/"
        && directory
            .ancestors()
            .any(|above| above != root && is_mount_point(above))
}
