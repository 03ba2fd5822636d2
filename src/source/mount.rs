//! What is mounted for a job, with the guard that undoes it by the backend's own command, so that
//! its counts of mounts stay right.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::backend::{Backend, last_line};
use super::record::{MountState, MountTarget, Record};
use crate::process::{Call, Outcome, Owner};
use crate::remedy::Remedy;
use crate::undo::Undo;

/// How the names of containers begin that a job makes; the [`Owner`] and a number follow.
pub const TEMPORARY: &str = "apt-ostree-helper-";
/// What undoing may take at most for a call: somebody waits for the end of the process.
const UNDO_LIMIT: Duration = Duration::from_secs(60);

/// A mounted root filesystem; it is unmounted with this value, or by a signal.
pub struct Mounted {
    path: Utf8PathBuf,
    undo: Undo,
    record: Option<Record>,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Leaves it mounted: it is nobody's to undo from now on but the user's.
    pub fn keep(self) {
        let Self { undo, record, .. } = self;
        let forget = || {
            if let Some(record) = &record {
                record.remove();
            }
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(()) = undo.disarm_with(forget);
    }

    /// Mounts the image with that id: read-only where the backend can, else through a container
    /// that is never run.
    ///
    /// # Errors
    /// When the backend fails, or the mount cannot be seen from here; everything is undone then.
    pub fn image(backend: &Backend, id: &str) -> Result<Self> {
        let own = format!("{TEMPORARY}{}-{}", Owner::this_process(), next_number());
        Self::image_or_container(backend, id, &own)
    }

    /// As [`Mounted::image`], with the name of the container, if one is needed.
    ///
    /// # Errors
    /// As [`Mounted::image`].
    pub fn image_or_container(backend: &Backend, id: &str, name: &str) -> Result<Self> {
        let Some(call) = backend.mount_image(id) else {
            return Self::new_container(backend, id, name);
        };
        let outcome = Outcome::default();
        let target = MountTarget::Image(id.to_owned());
        match Self::recorded(backend, call, target, &outcome) {
            Err(why) if outcome.has_refused() => {
                tracing::info!("mounting through a container, because: {why:#}");
                Self::new_container(backend, id, name).with_context(|| {
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
        let target = MountTarget::Container(name.to_owned());
        Self::recorded(backend, backend.mount(name), target, &Outcome::default())
    }

    /// Makes a mount that the backend counts. It is on record before it is made, for the case that
    /// nobody is left to undo it, and the backend itself writes what it made to that record.
    fn recorded(
        backend: &Backend,
        call: Call,
        what: MountTarget,
        outcome: &Outcome,
    ) -> Result<Self> {
        let record = Record::new(backend.kind(), what.clone());
        let called = format!("the mount of {what}");
        let name = call.name();
        let call = match record.write() {
            Some(output) => call.output_to(output),
            None => call,
        };
        let undo = {
            let (backend, outcome, record) = (backend.clone(), outcome.clone(), record.clone());
            Undo::later(move || {
                match made(&outcome, &record) {
                    MountState::Mounted => {
                        if let Err(e) = undo_recorded(&backend, &record) {
                            return warn_of_leftover("unmount", &e);
                        }
                    }
                    MountState::Never => {}
                    MountState::Unknown => {
                        if backend.within(UNDO_LIMIT).may_be_mounted(record.mounted()) {
                            tracing::warn!("{}", left_alone(&backend, record.mounted()));
                        }
                    }
                }
                record.remove();
            })
            .called(called)
        };
        let printed = call.run_telling(outcome)?;
        Ok(Self {
            path: path_in(&printed, &name)?,
            undo,
            record: Some(record),
        })
    }

    /// Makes a container of the image, with a name that nobody else gives, and mounts that.
    fn new_container(backend: &Backend, id: &str, name: &str) -> Result<Self> {
        let record = Record::new(backend.kind(), MountTarget::Made(name.to_owned()));
        // By its name it is known whose it is: only what is mounted in it is counted.
        record.write();
        let outcome = Outcome::default();
        let undo = {
            let (backend, name) = (backend.clone(), name.to_owned());
            let (outcome, record) = (outcome.clone(), record.clone());
            let called = format!("the container {name}");
            Undo::later(move || {
                if outcome.is_started() {
                    if let Err(e) = remove(&backend, &name) {
                        return warn_of_leftover("remove a container", &e);
                    }
                }
                record.remove();
            })
            .called(called)
        };
        backend.create(name, id)?.run_telling(&outcome)?;
        let call = backend.mount(name);
        let what = call.name();
        let printed = call.run()?;
        Ok(Self {
            path: path_in(&printed, &what)?,
            undo,
            record: Some(record),
        })
    }
}

/// A number that no other name of this process has.
pub fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A result is not worth less because something could not be undone.
pub fn warn_of_leftover(what: &str, why: &anyhow::Error) {
    tracing::warn!(remedy = ?Remedy::RemoveLeftovers, "could not {what}: {why:#}");
}

/// What is said of a mount of which nobody knows whose it is.
pub fn left_alone(backend: &Backend, what: &MountTarget) -> String {
    format!(
        "{what} is left as it is: it is mounted, and it cannot be known whether by a call that was ended halfway; if nobody else uses it, '{}' undoes it",
        undoing(backend, what).name()
    )
}

/// Whether a mount has been made that is to be undone: by how the call ended, or by what it said of
/// it.
fn made(outcome: &Outcome, record: &Record) -> MountState {
    match (outcome.is_started(), outcome.is_success()) {
        (false, _) => MountState::Never,
        (true, true) => MountState::Mounted,
        (true, false) if outcome.has_refused() => MountState::Never,
        (true, false) => record.made(),
    }
}

fn undoing(backend: &Backend, what: &MountTarget) -> Call {
    match what {
        MountTarget::Image(id) => backend.unmount_image(id),
        MountTarget::Container(name) => backend.unmount(name),
        MountTarget::Made(name) => backend.remove(name),
    }
}

/// Undoes the mount of a record. What the backend says of that goes beside the record, so that the
/// mount is not undone a second time when this process is killed before the record goes.
pub fn undo_recorded(backend: &Backend, record: &Record) -> Result<()> {
    let backend = backend.within(UNDO_LIMIT);
    let call = match record.mounted() {
        MountTarget::Made(name) => return remove(&backend, name),
        what => undoing(&backend, what),
    };
    let call = match record.undoing_output() {
        Some(path) => call.output_to(path),
        None => call,
    };
    // One that failed may be tried again.
    let undone = call.run_unguarded();
    undone.map(drop).inspect_err(|_| record.is_not_undone())
}

/// Undoes one mount that is counted.
pub fn unmount(backend: &Backend, what: &MountTarget) -> Result<()> {
    match what {
        MountTarget::Made(name) => remove(backend, name),
        what => undoing(&backend.within(UNDO_LIMIT), what)
            .run_unguarded()
            .map(drop),
    }
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
