//! A writable view of a root filesystem that itself stays unchanged: an overlay over it or, where
//! none can be mounted, a copy whose files share their blocks where the file system supports that.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::oci::temporary_directory;
use crate::process::{Call, Owner, ProcessState};
use crate::tree::{is_mount_point, is_own_root};
use crate::undo::{Undo, remove_tree};

/// How the names of their directories begin; the [`Owner`] and a number follow.
const PREFIX: &str = "apt-ostree-helper-view-";
/// Where in it the view is.
const MERGED: &str = "merged";

/// A view, which is removed with this value, or by a signal.
pub struct View {
    path: Utf8PathBuf,
    _undo: Undo,
}

impl View {
    /// A view of the system at `rootfs`.
    ///
    /// # Errors
    /// When that is the root of this process, or neither an overlay nor a copy can be made.
    pub fn of(rootfs: &Utf8Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let source = Dir::open_ambient_dir(rootfs, ambient_authority())
            .with_context(|| format!("opening the root filesystem {rootfs}"))?;
        ensure!(
            !is_own_root(&rustix::fs::fstat(&source)?),
            "a view of the system that this runs in cannot be made: finalize it in a step of its own first"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", Owner::this_process());
        let dir = temporary_directory()?.join(name);
        let (_, undo) = Undo::around(
            || fs::create_dir(&dir).with_context(|| format!("making the directory {dir}")),
            |()| {
                let dir = dir.clone();
                move || {
                    if let Err(e) = remove(&dir) {
                        tracing::warn!("could not remove {dir}: {e:#}");
                    }
                }
            },
        )?;
        private(&dir)?;
        let path = dir.join(MERGED);
        if let Err(why) = mount(&source, &dir) {
            tracing::info!("copying {rootfs}, as no overlay can be mounted over it: {why:#}");
            copy(rootfs, &path)?;
        }
        Ok(Self { path, _undo: undo })
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

/// Nobody else sees the system meanwhile.
fn private(dir: &Utf8Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?)
}

fn mount(source: &Dir, dir: &Utf8Path) -> Result<()> {
    for name in ["upper", "work", MERGED] {
        fs::create_dir(dir.join(name)).with_context(|| format!("making {dir}/{name}"))?;
    }
    // By the handle: whatever the source is called, and whoever gives that name to something else.
    let lower = format!("/proc/self/fd/{}", source.as_raw_fd());
    let options = format!("lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work");
    let options = CString::new(options)?;
    let merged = dir.join(MERGED);
    rustix::mount::mount(
        "overlay",
        merged.as_str(),
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .context("mounting an overlay")
}

fn copy(rootfs: &Utf8Path, to: &Utf8Path) -> Result<()> {
    if to.is_dir() {
        fs::remove_dir(to)?;
    }
    let arguments = ["-a", "--reflink=auto", "--one-file-system", "--"];
    let arguments = arguments.into_iter().chain([rootfs.as_str(), to.as_str()]);
    Call::new("cp", arguments)
        .run()
        .map(drop)
        .with_context(|| format!("copying {rootfs}"))
}

fn remove(dir: &Utf8Path) -> Result<()> {
    let merged = dir.join(MERGED);
    if is_mount_point(&merged) {
        rustix::mount::unmount(merged.as_str(), UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {merged}"))?;
    }
    ensure!(!is_mount_point(&merged), "{merged} is still mounted");
    remove_tree(dir);
    Ok(())
}

/// Removes the views of processes that have ended; gives what was removed, and what could not be,
/// with the reason.
///
/// # Errors
/// When there is no directory for temporary files.
pub fn remove_abandoned_views() -> Result<Vec<Result<Utf8PathBuf>>> {
    let mut found = Vec::new();
    let parent = temporary_directory()?;
    for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit_once('-'))
            .and_then(|(owner, _)| owner.parse::<Owner>().ok());
        if owner.is_some_and(|owner| owner.state() == ProcessState::Ended) {
            let dir = parent.join(&name);
            found.push(
                remove(&dir)
                    .map(|()| dir.clone())
                    .with_context(|| format!("directory {dir}")),
            );
        }
    }
    Ok(found)
}
