//! Work shared out over threads, in an order the caller chooses, with results in that order.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let has_failed = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    let run = || {
        let mut state = state();
        while !has_failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { break };
            match work(&mut state, job) {
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
    let ended_early = || anyhow!("a worker thread ended too early");
    if let Some((_, error)) = failed.into_inner().map_err(|_| ended_early())? {
        return Err(error);
    }
    let mut results = results.into_inner().map_err(|_| ended_early())?;
    results.sort_unstable_by_key(|(at, _)| *at);
    ensure!(results.len() == jobs.len(), ended_early());
    Ok(results.into_iter().map(|(_, result)| result).collect())
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
