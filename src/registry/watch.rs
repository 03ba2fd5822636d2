//! Observes from outside which of some files a program reads. skopeo does not report which layers
//! it sends; but it opens only those that the registry lacks.

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::checksum::Checksum;
use crate::progress::Progress;

/// How often is looked what happened.
const POLL: Duration = Duration::from_millis(50);

/// A layer in a file.
pub struct Watched {
    /// Its digest.
    pub digest: Checksum,
    /// Its bytes.
    pub size: u64,
    /// Where it is.
    pub path: Utf8PathBuf,
}

/// Runs `work`, tells `progress` of each layer that was read to its end meanwhile, and gives those
/// that were opened.
pub fn while_watched<T>(
    layers: &[Watched],
    progress: &dyn Progress,
    work: impl FnOnce() -> T,
) -> (T, BTreeSet<Checksum>) {
    let Some((queue, by_watch)) = watch(layers) else {
        return (work(), BTreeSet::new());
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let follow = || {
            let mut opened = BTreeSet::new();
            let mut told = BTreeSet::new();
            loop {
                let is_last = done.load(Ordering::Acquire);
                read_events(&queue, |watch, flags| {
                    let Some(layer) = by_watch.get(&watch) else {
                        return;
                    };
                    opened.insert(layer.digest);
                    if flags.contains(ReadFlags::CLOSE_NOWRITE) && told.insert(layer.digest) {
                        progress.advance(layer.size);
                    }
                });
                if is_last {
                    return opened;
                }
                std::thread::sleep(POLL);
            }
        };
        let follower = scope.spawn(follow);
        let result = work();
        done.store(true, Ordering::Release);
        (result, follower.join().unwrap_or_default())
    })
}

/// Watches each file that is there; none where the system has no room for that.
fn watch(layers: &[Watched]) -> Option<(OwnedFd, HashMap<i32, &Watched>)> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let mut by_watch = HashMap::new();
    for layer in layers {
        let flags = WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE;
        // One that is missing is in the registry.
        if let Ok(watch) = inotify::add_watch(&queue, layer.path.as_std_path(), flags) {
            by_watch.insert(watch, layer);
        }
    }
    Some((queue, by_watch))
}

fn read_events(queue: &OwnedFd, mut seen: impl FnMut(i32, ReadFlags)) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(queue, &mut buffer);
    while let Ok(event) = reader.next() {
        seen(event.wd(), event.events());
    }
}
