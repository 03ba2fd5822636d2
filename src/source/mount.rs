//! What is mounted for a job, with the guard that undoes it by the backend's own command, so that
//! its counts of mounts stay right.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::backend::{Backend, last_line};
use super::record::{Counted, Record};
use crate::process::{Call, Outcome, Owner};
use crate::undo::Undo;

/// How the names of containers begin that a job makes; the [`Owner`] and a number follow.
pub const TEMPORARY: &str = "apt-ostree-helper-";
/// What undoing may take at most for a call: somebody waits for the end of the process.
const UNDO_LIMIT: Duration = Duration::from_secs(60);

/// A mounted root filesystem; it is unmounted with this value, or by a signal.
pub struct Mounted {
    path: Utf8PathBuf,
    _undo: Undo,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Mounts the image with that id: read-only where the backend can, else through a container that is never run.
    ///
    /// # Errors
    /// When the backend fails, or the mount cannot be seen from here; everything is undone then.
    pub fn image(backend: &Backend, id: &str) -> Result<Self> {
        let Some(call) = backend.mount_image(id) else {
            return Self::temporary_container(backend, id);
        };
        let outcome = Outcome::default();
        let counted = Counted::Image(id.to_owned());
        match Self::counted(backend, call, counted, &outcome) {
            Err(why) if outcome.has_refused() => {
                tracing::info!("mounting through a container, because: {why:#}");
                Self::temporary_container(backend, id).with_context(|| {
                    format!(
                        "mounting it through a container, after mounting the image failed ({why:#})"
                    )
                })
            }
            other => other,
        }
    }

    /// Mounts an existing container.
    ///
    /// # Errors
    /// As [`Mounted::image`].
    pub fn container(backend: &Backend, name: &str) -> Result<Self> {
        let counted = Counted::Container(name.to_owned());
        Self::counted(backend, backend.mount(name), counted, &Outcome::default())
    }

    /// Makes a mount that the backend counts. It is on record before it is made, for the case that nobody is
    /// left to undo it.
    fn counted(backend: &Backend, call: Call, what: Counted, outcome: &Outcome) -> Result<Self> {
        let record = Record::new(backend.kind(), what.clone());
        record.write();
        let undo = {
            let (backend, outcome) = (backend.clone(), outcome.clone());
            Undo::later(move || {
                if is_mounted(&outcome, &backend, &what) {
                    if let Err(e) = unmount(&backend, &what) {
                        return warn_of_leftover("unmount", &e);
                    }
                }
                record.remove();
            })
        };
        let name = call.name();
        let printed = call.run_telling(outcome)?;
        Ok(Self {
            path: path_in(&printed, &name)?,
            _undo: undo,
        })
    }

    /// Makes a container of the image and mounts that.
    fn temporary_container(backend: &Backend, id: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{TEMPORARY}{}-{number}", Owner::this_process());
        let outcome = Outcome::default();
        let undo = {
            let (backend, name, outcome) = (backend.clone(), name.clone(), outcome.clone());
            Undo::later(move || {
                if !outcome.is_started() {
                    return;
                }
                if let Err(e) = remove(&backend, &name) {
                    warn_of_leftover("remove a container", &e);
                }
            })
        };
        backend.create(&name, id)?.run_telling(&outcome)?;
        let call = backend.mount(&name);
        let what = call.name();
        let printed = call.run()?;
        Ok(Self {
            path: path_in(&printed, &what)?,
            _undo: undo,
        })
    }
}

/// A result is not worth less because something could not be undone.
pub fn warn_of_leftover(what: &str, why: &anyhow::Error) {
    tracing::warn!("could not {what}: {why:#}; 'apt-ostree-helper umount --leftovers' tries again");
}

/// Whether a mount has been made that is to be undone.
fn is_mounted(outcome: &Outcome, backend: &Backend, what: &Counted) -> bool {
    if outcome.is_unknown() {
        return match what {
            Counted::Image(id) => backend
                .within(UNDO_LIMIT)
                .is_image_mounted(id)
                .unwrap_or(true),
            Counted::Container(_) => true,
        };
    }
    outcome.is_success()
}

/// Undoes one mount that is counted.
pub fn unmount(backend: &Backend, what: &Counted) -> Result<()> {
    let backend = backend.within(UNDO_LIMIT);
    let call = match what {
        Counted::Image(id) => backend.unmount_image(id),
        Counted::Container(name) => backend.unmount(name),
    };
    call.run_unguarded().map(drop)
}

/// Removes a container, if it is there.
pub fn remove(backend: &Backend, name: &str) -> Result<()> {
    let backend = backend.within(UNDO_LIMIT);
    match backend.remove(name).run_unguarded() {
        Ok(_) => Ok(()),
        // It may never have come to be.
        Err(e) => match backend.containers() {
            Ok(names) if !names.iter().any(|other| other == name) => Ok(()),
            _ => Err(e),
        },
    }
}

/// The path that a mounting call printed, if what is there can be seen.
pub fn path_in(printed: &str, call: &str) -> Result<Utf8PathBuf> {
    let path = Utf8Path::new(last_line(printed));
    if !path.is_absolute() {
        bail!(
            "'{call}' printed no path to what it mounted, but '{}'",
            printed.trim()
        );
    }
    let mut entries = path
        .read_dir_utf8()
        .with_context(|| format!("reading {path}, which '{call}' said it mounted"))?;
    ensure!(
        entries.next().is_some(),
        "'{call}' said that it mounted {path}, but nothing is there to be seen: mounting needs the capability SYS_ADMIN (in a container: --cap-add=sys_admin,mknod), and an empty image cannot be used"
    );
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_that_cannot_be_used_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let error =
            |printed: &str| format!("{:#}", path_in(printed, "podman mount x").unwrap_err());
        assert!(error("").contains("printed no path"));
        assert!(error("deadbeef\n").contains("'deadbeef'"));
        assert!(error("/no/such/directory").contains("/no/such/directory"));
        assert!(error(&format!("warning\n{dir}\n")).contains("SYS_ADMIN"));
        std::fs::write(dir.join("usr"), "").unwrap();
        assert_eq!(path_in(&format!("warning\n{dir}\n"), "x").unwrap(), dir);
    }
}
