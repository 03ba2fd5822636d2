//! Work shared out over threads, in an order the caller chooses, with results in that order. A
//! thread that has run out of jobs does errands of those that have not ([`Idle`]).

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Error, Result, anyhow, ensure};

/// Applies `work` to every job on `threads` threads and returns the results in the order of `jobs`.
/// Jobs are started in order, so the largest should come first. Each thread makes its own state (a
/// buffer, say) with `state` once. Where there are no more threads to be had, fewer do the work.
///
/// # Errors
/// The error of the earliest job that failed; no further job is started after a failure.
pub fn map<J: Sync, S, R: Send>(
    threads: NonZeroUsize,
    jobs: &[J],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = threads.get().min(jobs.len());
    run(&Idle::default(), threads, jobs, state, work)
}

/// The same, where jobs may leave errands to `idle`: also a single job has all threads.
///
/// # Errors
/// As [`map`].
pub fn map_with<J: Sync, S, R: Send>(
    idle: &Idle,
    threads: NonZeroUsize,
    jobs: &[J],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    run(idle, threads.get(), jobs, state, work)
}

fn run<J: Sync, S, R: Send>(
    idle: &Idle,
    threads: usize,
    jobs: &[J],
    new_state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let has_failed = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    let run = |working: Working<'_>| {
        let mut state = None;
        while !has_failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { break };
            match work(state.get_or_insert_with(&new_state), job) {
                Ok(result) => {
                    if let Ok(mut results) = results.lock() {
                        results.push((at, result));
                    }
                }
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    if let Ok(mut failed) = failed.lock() {
                        if failed.as_ref().is_none_or(|(earliest, _)| at < *earliest) {
                            *failed = Some((at, error));
                        }
                    }
                }
            }
        }
        drop(state);
        working.end_and_help();
    };
    let run = &run;
    std::thread::scope(|scope| {
        let own = idle.begin();
        for n in 1..threads {
            let thread = std::thread::Builder::new().name(format!("worker {n}"));
            let working = idle.begin();
            if let Err(e) = thread.spawn_scoped(scope, move || run(working)) {
                // One thread is enough, and it is there.
                tracing::debug!("working with {n} threads only: {e}");
                break;
            }
        }
        run(own);
    });
    let ended_early = || anyhow!("a worker thread ended too early");
    if let Some((_, error)) = failed.into_inner().map_err(|_| ended_early())? {
        return Err(error);
    }
    let mut results = results.into_inner().map_err(|_| ended_early())?;
    results.sort_unstable_by_key(|(at, _)| *at);
    ensure!(results.len() == jobs.len(), ended_early());
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// What a thread leaves to another one. It tells of its end by a channel, say.
pub type Errand = Box<dyn FnOnce() + Send>;

/// The threads that have run out of jobs while others have not.
#[derive(Default)]
pub struct Idle {
    state: Mutex<IdleState>,
    changed: Condvar,
}

#[derive(Default)]
struct IdleState {
    /// Threads that have jobs.
    working: usize,
    /// Threads that have none and do no errand either.
    waiting: usize,
    /// Threads that do errands.
    helping: usize,
    errands: VecDeque<Errand>,
}

/// Errands that wait while all who could do them are busy, so that who is done first has another.
const AHEAD: usize = 1;

impl IdleState {
    fn has_room(&self) -> bool {
        let is_anybody = self.waiting + self.helping > 0;
        is_anybody && self.errands.len() < self.waiting + AHEAD
    }
}

impl Idle {
    /// Whether a thread will take an errand at once, or after the one that it does now.
    pub fn is_there(&self) -> bool {
        self.lock().has_room()
    }

    /// Leaves `errand` to such a thread; gives it back where there is none.
    ///
    /// # Errors
    /// The errand.
    pub fn offer(&self, errand: Errand) -> Result<(), Errand> {
        let mut state = self.lock();
        if !state.has_room() {
            return Err(errand);
        }
        state.errands.push_back(errand);
        self.changed.notify_all();
        Ok(())
    }

    fn begin(&self) -> Working<'_> {
        self.lock().working += 1;
        Working(self)
    }

    fn lock(&self) -> MutexGuard<'_, IdleState> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that has jobs: it has none any more when this goes, also where that is by a panic.
struct Working<'a>(&'a Idle);

impl Working<'_> {
    /// Does errands until all threads have run out of jobs.
    fn end_and_help(self) {
        let idle = self.0;
        drop(self);
        let mut state = idle.lock();
        state.waiting += 1;
        loop {
            if let Some(errand) = state.errands.pop_front() {
                state.waiting -= 1;
                state.helping += 1;
                drop(state);
                errand();
                state = idle.lock();
                state.helping -= 1;
                state.waiting += 1;
                continue;
            }
            if state.working == 0 {
                break;
            }
            state = (idle.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.lock().working -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    #[test]
    fn keeps_the_order_of_the_jobs() {
        let jobs: Vec<u32> = (0..1000).collect();
        let doubled = map(FOUR, &jobs, || (), |(), j| Ok(j * 2)).unwrap();
        assert!(doubled.iter().zip(&jobs).all(|(d, j)| *d == j * 2));
        assert!(
            map(FOUR, &[] as &[u32], || (), |(), j| Ok(*j))
                .unwrap()
                .is_empty()
        );
    }

    /// One long job and a short one: who has done that does all errands that are left to him.
    #[test]
    fn errands_are_done_by_who_has_nothing_else_to_do() {
        let idle = Idle::default();
        let here = std::thread::current;
        let work = |(): &mut (), is_long: &bool| {
            if !is_long {
                return Ok(0);
            }
            let own = here().id();
            let mut by_others = 0;
            let late = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while by_others < 100 {
                assert!(std::time::Instant::now() < late, "nobody is idle");
                let (reply, answer) = channel();
                let errand = Box::new(move || reply.send(here().id()).unwrap());
                if idle.offer(errand).is_ok() {
                    assert_ne!(answer.recv().unwrap(), own);
                    by_others += 1;
                }
            }
            Ok(by_others)
        };
        let done = map_with(&idle, FOUR, &[true, false], || (), work).unwrap();
        assert_eq!(done, [100, 0]);
        // Nobody waits where nobody works.
        assert!(!idle.is_there() && idle.offer(Box::new(|| ())).is_err());
    }

    /// Gives a thread an errand that ends when what this gives back is dropped.
    pub(crate) fn keep_busy(idle: &Idle) -> Sender<()> {
        let ((started, has_started), (end, may_end)) = (channel(), channel::<()>());
        let mut errand: Errand = Box::new(move || {
            started.send(()).unwrap();
            assert!(may_end.recv().is_err());
        });
        while let Err(refused) = idle.offer(errand) {
            errand = refused;
            std::thread::yield_now();
        }
        has_started.recv().unwrap();
        end
    }

    /// Who does an errand has the next one when that is done, and no more are kept for him.
    #[test]
    fn one_errand_waits_for_who_is_busy() {
        let idle = Idle::default();
        let work = |(): &mut (), is_long: &bool| {
            if !is_long {
                return Ok(());
            }
            let busy = keep_busy(&idle);
            let (reply, answer) = channel();
            assert!(idle.is_there());
            let second = Box::new(move || reply.send(()).unwrap());
            assert!(idle.offer(second).is_ok());
            assert!(!idle.is_there() && idle.offer(Box::new(|| ())).is_err());
            drop(busy);
            answer.recv().unwrap();
            Ok(())
        };
        let two = NonZeroUsize::MIN.saturating_add(1);
        map_with(&idle, two, &[true, false], || (), work).unwrap();
    }

    #[test]
    fn reports_a_failure() {
        let jobs: Vec<u32> = (0..100).collect();
        let failing = |(): &mut (), j: &u32| {
            if *j == 7 {
                Err(anyhow!("seven"))
            } else {
                Ok(())
            }
        };
        assert_eq!(
            map(FOUR, &jobs, || (), failing).unwrap_err().to_string(),
            "seven"
        );
    }
}
