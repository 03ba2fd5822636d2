//! Cleaning up: every half-written directory, mount, container and process is registered here
//! together with how to undo it. That happens when its guard is dropped, and also when SIGINT or
//! SIGTERM ends the process (for SIGTERM even as PID 1, to which the kernel delivers only signals
//! that have a handler). A second signal ends the process at once, and what is left behind is
//! named.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8Path;

type Action = Box<dyn FnOnce() + Send>;

struct Registry {
    next: u64,
    actions: Vec<(u64, Action)>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    next: 0,
    actions: Vec::new(),
});

/// What is not undone yet, also while the registry is locked: by number, with what users call it.
static LEFT: Mutex<BTreeMap<u64, Option<String>>> = Mutex::new(BTreeMap::new());

/// A container runtime kills a process 10 s after SIGTERM; before that it is said what takes long.
const SLOW: Duration = Duration::from_secs(5);

fn names() -> MutexGuard<'static, BTreeMap<u64, Option<String>>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is not undone yet, last first, in words.
fn left() -> Vec<String> {
    let names = names();
    let mut left: Vec<String> = names.values().rev().flatten().cloned().collect();
    if names.values().any(Option::is_none) {
        left.push("temporary files".into());
    }
    left
}

/// The registry; a panic elsewhere must not keep the undoing from being done.
fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Undoes what it was registered for when it is dropped, unless [`Undo::disarm_with`] came first.
#[must_use = "dropping it undoes the work at once"]
pub struct Undo {
    id: u64,
}

/// What becomes of what is registered, after a step of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is undone in the end.
    ToUndo,
    /// Others need it.
    ForOthers,
}

impl Undo {
    /// Does something with `make` and registers the way to undo it, which `undo` gives. A signal
    /// waits until both are done. Neither must register or drop guards.
    ///
    /// # Errors
    /// The error of `make`; nothing is registered then.
    pub fn around<T, E, U: FnOnce() + Send + 'static>(
        make: impl FnOnce() -> Result<T, E>,
        undo: impl FnOnce(&T) -> U,
    ) -> Result<(T, Self), E> {
        let mut registry = registry();
        let made = make()?;
        let id = registry.next;
        registry.next += 1;
        registry.actions.push((id, Box::new(undo(&made))));
        names().insert(id, None);
        Ok((made, Self { id }))
    }

    /// Registers `undo` for what is about to be done.
    pub fn later(undo: impl FnOnce() + Send + 'static) -> Self {
        let mut registry = registry();
        let id = registry.next;
        registry.next += 1;
        registry.actions.push((id, Box::new(undo)));
        names().insert(id, None);
        Self { id }
    }

    /// Says what is there as long as it is not undone, for who does not want to wait for that.
    pub fn called(self, name: impl Into<String>) -> Self {
        // It may have been undone by a signal in between.
        if let Some(called) = names().get_mut(&self.id) {
            *called = Some(name.into());
        }
        self
    }

    /// Runs `step`, which a signal waits for and which tells whether there is anything left to
    /// undo. It must not register or drop guards.
    pub fn while_held<T>(&self, step: impl FnOnce() -> (T, Left)) -> T {
        let mut held = registry();
        let (outcome, left) = step();
        if left == Left::ForOthers {
            held.actions.retain(|(other, _)| *other != self.id);
            names().remove(&self.id);
        }
        drop(held);
        outcome
    }

    /// Runs `commit`, the step that makes the work final, and forgets the undoing when that
    /// succeeds. A signal waits until the step is over, so the outcome is all or nothing.
    ///
    /// # Errors
    /// The error of `commit`; the work is undone then.
    pub fn disarm_with<T, E>(self, commit: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut held = registry();
        let outcome = commit();
        if outcome.is_ok() {
            let id = self.id;
            held.actions.retain(|(other, _)| *other != id);
            names().remove(&id);
        }
        drop(held);
        outcome
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut held = registry();
        if let Some(at) = held.actions.iter().position(|(id, _)| *id == self.id) {
            // The lock stays held: a signal that arrives now waits until this is undone.
            let (_, action) = held.actions.remove(at);
            action();
            names().remove(&self.id);
        }
    }
}

/// Undoes everything registered, last first, and never lets another thread register or commit
/// again: for a process about to exit.
fn undo_all_for_exit() {
    let mut held = registry();
    while let Some((id, action)) = held.actions.pop() {
        action();
        names().remove(&id);
    }
    std::mem::forget(held);
}

/// What is told of the end by a signal.
#[derive(Debug)]
pub enum Notice<'a> {
    /// That signal came, and all is being undone.
    Begins(&'a str),
    /// It takes long, because of this.
    Slow(Vec<String>),
    /// Another signal came, and this is left as it is.
    Leaves(&'a str, Vec<String>),
}

/// Who tells it.
pub type Teller = Arc<dyn Fn(Notice<'_>) + Send + Sync>;

/// Starts the thread that undoes everything on SIGINT, SIGTERM or SIGHUP and then exits with 128
/// plus the number of the signal, as shells report it. When undoing takes long, that is told, and a
/// second signal does not wait for it. A signal that the process was started to ignore (by
/// nohup(1), say) stays ignored.
///
/// # Errors
/// When the handlers cannot be installed or the thread cannot be started.
pub fn on_signals(tell: Teller) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    // With a handler the write that is too large fails, and the error says where (setrlimit(2)).
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let ignored = ignored_signals();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter();
    let wanted = wanted.filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let mut is_ending = false;
    let name = |signal| signal_hook::low_level::signal_name(signal).unwrap_or("signal");
    let wait = move || {
        for signal in signals.forever() {
            if is_ending {
                tell(Notice::Leaves(name(signal), left()));
                // Nothing that is still at work is waited for.
                signal_hook::low_level::exit(128 + signal);
            }
            is_ending = true;
            tell(Notice::Begins(name(signal)));
            undo_all_and_exit(&tell, 128 + signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)?;
    Ok(())
}

/// Undoes everything in another thread, which then exits with that status; returns at once.
pub fn undo_all_and_exit(tell: &Teller, status: i32) {
    let slow = tell.clone();
    let say = move || {
        std::thread::sleep(SLOW);
        slow(Notice::Slow(left()));
    };
    // Without it nobody hears why it takes long.
    let _ = std::thread::Builder::new().name("slow".into()).spawn(say);
    let end = move || {
        undo_all_for_exit();
        std::process::exit(status);
    };
    let started = std::thread::Builder::new().name("undo".into()).spawn(end);
    if started.is_err() {
        // Where there are no threads to be had, a second signal waits.
        undo_all_for_exit();
        std::process::exit(status);
    }
}

/// Removes a directory that other threads may still be writing to. That it stays is told as an
/// error, since nobody else would tell.
pub fn remove_tree(path: &Utf8Path) {
    let mut last = None;
    for _ in 0..100 {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => last = Some(e),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Some(e) = last {
        tracing::error!("the temporary directory {path} cannot be removed ({e}); remove it");
    }
}

/// The signals that are ignored, a bit each from signal 1 (proc_pid_status(5), "SigIgn"); none
/// where /proc does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_left_is_told_while_it_is_being_undone() {
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let undo = Undo::later(|| *SEEN.lock().unwrap() = left()).called("the mount of x");
        assert!(left().contains(&"the mount of x".to_owned()));
        drop(undo);
        let during = SEEN.lock().unwrap().clone();
        assert!(during.contains(&"the mount of x".to_owned()), "{during:?}");
        assert!(!left().contains(&"the mount of x".to_owned()));
    }

    #[test]
    fn undoes_when_dropped_and_not_when_committed() {
        static UNDONE: AtomicUsize = AtomicUsize::new(0);
        let count = || UNDONE.load(Ordering::SeqCst);
        let register = || {
            let act = |(): &()| {
                || {
                    UNDONE.fetch_add(1, Ordering::SeqCst);
                }
            };
            Undo::around(|| Ok::<_, ()>(()), act).unwrap().1
        };
        drop(register());
        assert_eq!(count(), 1);
        assert!(register().disarm_with(|| Ok::<_, ()>(())).is_ok());
        assert_eq!(count(), 1, "committed work stays");
        assert!(register().disarm_with(|| Err::<(), _>(())).is_err());
        assert_eq!(count(), 2, "a failed commit is undone");
    }
}
