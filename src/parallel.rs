//! Work shared out over threads, in an order the caller chooses, with results in that order.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

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
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    let run = || {
        let mut state = state();
        let mut mine = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { break };
            let outcome = work(&mut state, job);
            if outcome.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            mine.push((at, outcome));
        }
        if let Ok(mut all) = results.lock() {
            all.append(&mut mine);
        }
    };
    std::thread::scope(|scope| {
        for n in 1..threads.get().min(jobs.len()) {
            let thread = std::thread::Builder::new().name(format!("worker {n}"));
            if let Err(e) = thread.spawn_scoped(scope, run) {
                // One thread is enough, and it is there.
                tracing::debug!("working with {n} threads only: {e}");
                break;
            }
        }
        run();
    });
    let mut results = results
        .into_inner()
        .map_err(|_| anyhow!("a worker thread ended too early"))?;
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
