//! Warnings about a root filesystem: things that are allowed but probably not intended.

use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use cap_std::fs::Dir;
use rustix::fs::{SeekFrom, Stat, seek};

use super::directory::open_file;

/// Fewer bytes of holes are not worth a word: databases and logs have some.
const MANY_BYTES: u64 = 64 << 20;
/// A file that takes so much less room than it has bytes is looked at for holes.
const SPARSE: u64 = 1 << 20;
/// Clocks differ; so many seconds are not the future.
const LATER: i64 = 86_400;
/// Directories in which containers/storage keeps its list of layers (its `layers.go`), by driver.
const LAYER_LISTS: [&str; 3] = ["overlay-layers", "vfs-layers", "btrfs-layers"];

/// What was seen.
#[derive(Debug, Default)]
pub struct Oddities {
    now: i64,
    hole_bytes: u64,
    sparse: Example<u64>,
    future: Example<i64>,
    stores: Vec<Utf8PathBuf>,
}

/// How many there are, and the one that counts most.
#[derive(Debug, Default)]
struct Example<T> {
    count: u64,
    most: Option<(T, Utf8PathBuf)>,
}

impl<T: PartialOrd> Example<T> {
    fn see(&mut self, value: T, path: &Utf8Path) {
        self.append(Self {
            count: 1,
            most: Some((value, path.to_owned())),
        });
    }

    fn append(&mut self, other: Self) {
        self.count += other.count;
        if let Some((value, path)) = other.most {
            if self.most.as_ref().is_none_or(|(most, _)| *most < value) {
                self.most = Some((value, path));
            }
        }
    }
}

impl Oddities {
    /// Nothing yet.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.ok().and_then(|now| i64::try_from(now.as_secs()).ok());
        Self {
            now: now.unwrap_or(i64::MAX - LATER),
            ..Self::default()
        }
    }

    /// Nothing yet, at the same time as these were begun.
    pub fn begin_as(&self) -> Self {
        Self {
            now: self.now,
            ..Self::default()
        }
    }

    /// Adds those of another directory.
    pub fn append(&mut self, other: Self) {
        self.hole_bytes = self.hole_bytes.saturating_add(other.hole_bytes);
        self.sparse.append(other.sparse);
        self.future.append(other.future);
        self.stores.extend(other.stores);
    }

    /// Looks at the regular file `path`, which is `name` in `dir`.
    pub fn see_file(&mut self, dir: &Dir, name: &str, path: &Utf8Path, stat: &Stat) {
        self.see_name(name, path, stat.st_mtime);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let room = u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512);
        // What lacks room may also be compressed by the file system: the holes themselves are
        // counted.
        if room.saturating_add(SPARSE) < size {
            let holes = holes(dir, name, size);
            if holes > 0 {
                self.hole_bytes = self.hole_bytes.saturating_add(holes);
                self.sparse.see(holes, path);
            }
        }
    }

    /// Looks at what tells the regular file `path` without its content.
    pub fn see_name(&mut self, name: &str, path: &Utf8Path, mtime: i64) {
        if mtime > self.now.saturating_add(LATER) {
            self.future.see(mtime, path);
        }
        let parent = path.parent().and_then(Utf8Path::file_name);
        if name == "layers.json" && parent.is_some_and(|parent| LAYER_LISTS.contains(&parent)) {
            let store = path.parent().and_then(Utf8Path::parent);
            self.stores.extend(store.map(Utf8Path::to_owned));
        }
    }

    /// The stores of containers, each with what to do, for the list of faults: an overlay's
    /// whiteouts are devices.
    pub fn stores(&self) -> impl Iterator<Item = String> + '_ {
        self.stores.iter().map(|path| {
            format!(
                "/{path} is a store of containers and images: leave it out, unless it is meant to be part of the image"
            )
        })
    }

    /// Tells all of it.
    pub fn tell(&self) {
        if let (Some((most, path)), true) = (&self.sparse.most, self.hole_bytes >= MANY_BYTES) {
            tracing::warn!(
                "sparse files ({}) have {} bytes of holes, which become zeros in the image; /{path} has the most ({most})",
                self.sparse.count,
                self.hole_bytes,
            );
        }
        if let Some((most, path)) = &self.future.most {
            let date = jiff::Timestamp::from_second(*most);
            let date = date.map_or_else(|_| most.to_string(), |date| date.to_string());
            tracing::warn!(
                "files ({}) have dates in the future, the latest of them /{path} ({date}); where no date is given, the image gets the latest",
                self.future.count
            );
        }
        for store in self.stores() {
            tracing::warn!("{store}");
        }
    }
}

/// The bytes of a file that are in holes (lseek(2), `SEEK_HOLE`); 0 where that cannot be told.
fn holes(dir: &Dir, name: &str, size: u64) -> u64 {
    let Ok(file) = open_file(dir, Utf8Path::new(name)) else {
        return 0;
    };
    let (mut at, mut found) = (0, 0);
    while at < size {
        let Ok(hole) = seek(&file, SeekFrom::Hole(at)) else {
            return found;
        };
        if hole >= size {
            return found;
        }
        // Behind the last data there is none (ENXIO).
        let data = seek(&file, SeekFrom::Data(hole)).unwrap_or(size).min(size);
        found += data.saturating_sub(hole);
        at = data.max(hole + 1);
    }
    found
}
