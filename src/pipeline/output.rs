//! The output: checked before any work, written out of sight, published in one step.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FileType, OFlags};
use serde_json::Value;

use super::inside::refuse_inside;
use crate::checksum::Checksum;
use crate::oci::{
    IN_PLACE, LayoutTarget, Stage, parent_directory, temporary_directory, write_archive,
};
use crate::progress::Progress;
use crate::registry::{self, Access, Destination, RegistryName};
use crate::source::store_layout;
use crate::tree::Filter;

/// A destination that can be written to as far as that can be told beforehand.
pub enum Output {
    /// A layout.
    Layout(LayoutTarget),
    /// An archive at a path, with the image's name in it.
    Archive(Utf8PathBuf, Option<String>),
    /// An archive on standard output.
    Stdout(Option<String>),
    /// The storage of podman and buildah: a layout of its own first.
    Storage {
        /// The image's whole name.
        name: String,
        /// The layout, in the directory after it.
        target: LayoutTarget,
        /// Removed with this value.
        temporary: Stage,
    },
    /// A registry: a layout of what it lacks first.
    Registry {
        /// The image's name.
        name: RegistryName,
        /// How the registry is reached.
        access: Access,
    },
}

impl Output {
    /// Checks `destination`.
    ///
    /// # Errors
    /// When it cannot be written or must not be replaced.
    pub fn prepare(destination: &Destination, access: &Access) -> Result<Self> {
        Ok(match destination {
            Destination::Registry(name) => {
                registry::check_writable(name, access)
                    .with_context(|| format!("cannot write the output {name}"))?;
                Self::Registry {
                    name: name.clone(),
                    access: access.clone(),
                }
            }
            Destination::Layout { path, tag } => {
                Self::Layout(LayoutTarget::new(path, tag.as_deref())?)
            }
            Destination::Archive { path, tag } => {
                match fs::metadata(path) {
                    Ok(found) => ensure!(
                        found.is_file(),
                        "the output {path} is there and is not a regular file; choose another path, or write an oci: layout, or '-' for standard output"
                    ),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        return Err(e).with_context(|| format!("looking at the output {path}"));
                    }
                }
                let parent = parent_directory(path);
                let is_directory = match fs::metadata(parent) {
                    Ok(found) => found.is_dir(),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                    Err(e) => return Err(e).with_context(|| format!("looking at {parent}")),
                };
                ensure!(
                    is_directory,
                    "cannot write the output {path}: there is no directory {parent}; create it first"
                );
                Self::Archive(path.clone(), tag.clone())
            }
            Destination::Stdout { tag } => {
                refuse_closed_stdout()?;
                Self::Stdout(tag.clone())
            }
            Destination::Storage { name } => {
                let temporary = Stage::new_temporary()?;
                let target = LayoutTarget::new(&temporary.path().join("image"), None)?;
                Self::Storage {
                    name: name.clone(),
                    target,
                    temporary,
                }
            }
        })
    }

    /// Refuses an output inside `rootfs`, which would be read as part of it.
    ///
    /// # Errors
    /// When it lies there, and is not left out.
    pub fn refuse_inside(&self, rootfs: &Utf8Path, filter: &Filter) -> Result<()> {
        match self {
            Self::Layout(target) => refuse_inside("output", target.path(), rootfs, filter),
            Self::Archive(path, _) => refuse_inside("output", path, rootfs, filter),
            Self::Stdout(_) => Ok(()),
            Self::Registry { .. } => {
                refuse_inside("output", &temporary_directory()?, rootfs, filter)
                    .context("temporary files; set TMPDIR to a directory elsewhere")
            }
            Self::Storage { temporary, .. } => {
                refuse_inside("output", temporary.path(), rootfs, filter)
                    .context("the temporary layout; set TMPDIR to a directory elsewhere")
            }
        }
    }

    /// The place where the blobs are made.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn stage(&self) -> Result<Stage> {
        match self {
            Self::Layout(target) | Self::Storage { target, .. } => target.stage(),
            Self::Archive(path, _) => Stage::new_in(parent_directory(path))
                .with_context(|| format!("cannot write the output {path}")),
            Self::Stdout(_) | Self::Registry { .. } => Stage::new_temporary(),
        }
    }

    /// Publishes what `descriptor` names, with `blobs` from the stage. Of a registry it tells which
    /// layers were sent.
    ///
    /// # Errors
    /// When it cannot be written; what was at the destination is untouched then.
    pub fn publish(
        &self,
        stage: Stage,
        descriptor: Value,
        blobs: &[Checksum],
        layers: &[(Checksum, u64)],
        progress: &dyn Progress,
    ) -> Result<Option<BTreeSet<Checksum>>> {
        match self {
            Self::Registry { name, access } => {
                return registry::push(&stage, &descriptor, layers, name, access, progress)
                    .map(Some);
            }
            Self::Layout(target) => target.publish(stage, descriptor)?,
            Self::Storage { name, target, .. } => {
                target.publish(stage, descriptor)?;
                store_layout(target.path(), name)?;
            }
            Self::Archive(path, tag) => {
                let made = stage.path().join("archive");
                let write = || -> Result<()> {
                    let file = File::create(&made)?;
                    write_archive(&stage, blobs, descriptor, tag.as_deref(), &file)?;
                    file.sync_all()?;
                    fs::rename(&made, path)?;
                    let synced = File::open(parent_directory(path)).and_then(|dir| dir.sync_all());
                    synced.context(IN_PLACE)
                };
                write().with_context(|| format!("writing the output {path}"))?;
            }
            Self::Stdout(tag) => {
                let out = io::stdout().lock();
                write_archive(&stage, blobs, descriptor, tag.as_deref(), out)
                    .context("writing the archive to standard output")?;
            }
        }
        Ok(None)
    }
}

/// An archive that nobody gets is not made. Where standard output is closed, the runtime has opened
/// /dev/null in its place, for reading and writing, as no shell does.
fn refuse_closed_stdout() -> Result<()> {
    let out = io::stdout();
    let flags = rustix::fs::fcntl_getfl(&out).context("looking at standard output")?;
    let found = rustix::fs::fstat(&out).context("looking at standard output")?;
    let null = fs::metadata("/dev/null").map(|null| null.rdev());
    let is_null = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && null.is_ok_and(|null| null == found.st_rdev);
    ensure!(
        !is_null || !flags.contains(OFlags::RDWR),
        "the archive would go to standard output, which is closed; write it to a file"
    );
    Ok(())
}
