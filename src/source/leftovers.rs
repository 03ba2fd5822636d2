//! What processes have left that were killed before they could undo it: programs that still run for
//! them, mounts on record, and containers that name them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::backend::Backend;
use super::build_container;
use super::choice::Backends;
use super::mount::{TEMPORARY, left_alone, remove, undo_recorded};
use super::record::{MountState, MountTarget, Record};
use super::view::remove_abandoned_views;
use crate::oci::{remove_abandoned, temporary_directory};
use crate::process::{Owner, ProcessState, numbers_are_ours, owner_of, processes};

/// A program that still runs for a killed process comes to its own end in this time, or is ended.
const BY_ITSELF: Duration = Duration::from_secs(10);
/// How long it then has.
const GRACE: Duration = Duration::from_secs(5);
/// A temporary directory may not be locked yet by the process that has just made it.
const NEW: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// What was removed, a line each.
    pub removed: Vec<String>,
    /// What could not be removed, with the reason.
    pub failed: Vec<String>,
    /// What may still be in use by a process that cannot be seen from here.
    pub unseen: Vec<String>,
    /// What is mounted by nobody knows whom, and so stays; a sentence each.
    pub unknown: Vec<String>,
}

impl Leftovers {
    fn note(&mut self, what: String, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.removed.push(what),
            Err(e) => self.failed.push(format!("{what}: {e:#}")),
        }
    }
}

/// Removes what killed processes of this program have left in the storage of any backend that is
/// there.
///
/// # Errors
/// When a backend cannot tell what there is.
pub fn remove_leftovers(backends: &Backends) -> Result<Leftovers> {
    let mut found = Leftovers::default();
    end_programs(&mut found);
    unmount_recorded(backends, &mut found);
    // Both see the containers of the other, where they share a storage.
    let mut seen = BTreeSet::new();
    for backend in backends.all() {
        let backend = &backend;
        for container in build_container::all(backend)? {
            if seen.insert(container.name.clone())
                && is_left(&container.owner, &container.name, &mut found)
            {
                let outcome = container.remove(backend);
                found.note(format!("container {} of a build", container.name), outcome);
            }
        }
        for name in backend.containers()? {
            let Some(owner) = owner_of_container(&name) else {
                continue;
            };
            if seen.insert(name.clone()) && is_left(&owner, &name, &mut found) {
                let outcome = remove(backend, &name);
                found.note(format!("container {name}"), outcome);
            }
        }
    }
    for view in remove_abandoned_views()? {
        match view {
            Ok(dir) => found.removed.push(format!("directory {dir}")),
            Err(e) => found.failed.push(format!("{e:#}")),
        }
    }
    let temporary = temporary_directory()?;
    let stages = remove_abandoned(&temporary, NEW);
    found
        .removed
        .extend(stages.into_iter().map(|path| format!("directory {path}")));
    Ok(found)
}

fn owner_of_container(name: &str) -> Option<Owner> {
    name.strip_prefix(TEMPORARY)?
        .rsplit_once('-')?
        .0
        .parse()
        .ok()
}

fn is_left(owner: &Owner, what: &str, found: &mut Leftovers) -> bool {
    match owner.state() {
        ProcessState::Runs => false,
        ProcessState::Ended => true,
        ProcessState::Unseen => {
            found.unseen.push(what.to_owned());
            false
        }
    }
}

/// Lets programs come to their end that run for processes which have ended, or ends them.
fn end_programs(found: &mut Leftovers) {
    if !numbers_are_ours() {
        // By the numbers that are seen others would be ended here.
        let left = processes()
            .into_iter()
            .filter(|process| is_orphan(*process));
        found
            .unseen
            .extend(left.map(|process| format!("process {process}")));
        return;
    }
    let start = Instant::now();
    let mut signals = [(BY_ITSELF, Signal::TERM), (BY_ITSELF + GRACE, Signal::KILL)].into_iter();
    let mut next = signals.next();
    loop {
        let left: Vec<u32> = processes()
            .into_iter()
            .filter(|process| is_orphan(*process))
            .collect();
        if left.is_empty() || start.elapsed() > BY_ITSELF + GRACE + GRACE {
            for process in left {
                found.failed.push(format!("process {process} does not end"));
            }
            return;
        }
        if let Some((after, signal)) = next.filter(|(after, _)| start.elapsed() >= *after) {
            tracing::debug!("ending {left:?} after {after:?}");
            for process in left {
                if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                    // It leads a group with what it has started, or is of such a one. It may have
                    // ended by itself.
                    let _ = kill_process_group(pid, signal).or_else(|_| kill_process(pid, signal));
                    if signal == Signal::TERM {
                        found.removed.push(format!("process {process}"));
                    }
                }
            }
            next = signals.next();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_orphan(process: u32) -> bool {
    process != std::process::id()
        && owner_of(process).is_some_and(|owner| owner.state() == ProcessState::Ended)
}

fn unmount_recorded(backends: &Backends, found: &mut Leftovers) {
    let records = match Record::all() {
        Ok(records) => records,
        Err(e) => return found.failed.push(format!("{e:#}")),
    };
    for (owner, record) in records {
        let what = match record.mounted() {
            MountTarget::Made(name) => format!("container {name}"),
            mounted => format!("mount of {mounted}"),
        };
        if !is_left(&owner, &what, found) {
            continue;
        }
        let Some(kind) = record.backend() else {
            continue;
        };
        let backend = backends.like(kind).with_environment(record.environment());
        match unmount_one(&backend, &record) {
            Ok(MountState::Mounted) => found.removed.push(what),
            // It was killed before anything was mounted.
            Ok(MountState::Never) => {}
            Ok(MountState::Unknown) => found.unknown.push(left_alone(&backend, record.mounted())),
            Err(e) => {
                found.failed.push(format!("{what}: {e:#}"));
                continue;
            }
        }
        record.remove();
    }
}

/// Undoes the mount of a record, if it was made and is still there.
fn unmount_one(backend: &Backend, record: &Record) -> Result<MountState> {
    let what = record.mounted();
    let is_there = match what {
        MountTarget::Image(id) => backend.is_image_mounted(id)?,
        MountTarget::Container(name) | MountTarget::Made(name) => backend.is_there(name)?,
    };
    let made = match what {
        // Nobody else gives such a name.
        MountTarget::Made(_) => MountState::Mounted,
        _ => record.made(),
    };
    match (is_there, made) {
        (false, _) => Ok(MountState::Never),
        (true, MountState::Mounted) => undo_recorded(backend, record).map(|()| MountState::Mounted),
        (true, other) => Ok(other),
    }
}
