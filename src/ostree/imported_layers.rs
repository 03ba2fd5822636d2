//! Which layers of encapsulated images a repository has taken over, so that the import of an update
//! reads, and fetches, only those that it has not.
//!
//! Each is an empty file in the repository's directory for programs other than libostree
//! (`extensions/`, as rpm-ostree has `extensions/rpmostree`), named by the layer's diff id. It is a
//! hint and is never believed: `ostree prune` removes objects and knows nothing of it, and of a
//! layer only those objects were taken that a commit named. Whoever leaves a layer out looks for
//! every object that the commit reaches, and reads the layer after all where one is missing.

use std::fs::{self, FileTimes, OpenOptions};
use std::io;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};

use crate::checksum::Checksum;

/// Below the repository.
const DIRECTORY: &str = "extensions/apt-ostree-helper/imported-layers";
/// Layers that are kept in mind: those of some sixty images without a layer in common.
const MOST: usize = 4096;

/// The layers that a repository has taken over.
#[derive(Debug)]
pub struct ImportedLayers {
    directory: Utf8PathBuf,
}

impl ImportedLayers {
    /// Those of the repository at `path`.
    pub fn of(path: &Utf8Path) -> Self {
        Self {
            directory: path.join(DIRECTORY),
        }
    }

    /// Whether the objects of the layer with that diff id were taken over.
    pub fn has(&self, diff_id: Checksum) -> bool {
        let path = self.directory.join(diff_id.to_string());
        path.symlink_metadata().is_ok_and(|found| found.is_file())
    }

    /// Remembers layers whose objects are in the repository now. That they cannot be remembered is
    /// no failure: the next import reads more.
    pub fn add(&self, diff_ids: &[Checksum]) {
        if let Err(e) = self.add_files(diff_ids).and_then(|()| self.forget_oldest()) {
            tracing::debug!("layers are not remembered in {}: {e}", self.directory);
        }
    }

    fn add_files(&self, diff_ids: &[Checksum]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        for diff_id in diff_ids {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.directory.join(diff_id.to_string()))?;
            file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
        }
        Ok(())
    }

    /// Of too many, those go that no import has had for the longest time.
    fn forget_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        let surplus = files.len().saturating_sub(MOST);
        files.sort_unstable();
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    fn diff_id(number: usize) -> Checksum {
        Checksum::of(&number.to_le_bytes())
    }

    #[test]
    fn what_was_added_is_there_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let layers = ImportedLayers::of(path);
        let all: Vec<Checksum> = (0..MOST).map(diff_id).collect();
        assert!(!layers.has(all[0]));
        layers.add(&all);
        assert!(all.iter().all(|diff_id| layers.has(*diff_id)));

        let old = layers.directory.join(all[7].to_string());
        let file = OpenOptions::new().write(true).open(old).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_times(FileTimes::new().set_modified(hour_ago))
            .unwrap();
        layers.add(&[diff_id(MOST)]);
        assert!(layers.has(diff_id(MOST)));
        assert!(!layers.has(all[7]));
        assert!(layers.has(all[8]));
    }

    #[test]
    fn where_nothing_can_be_remembered_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        fs::write(path.join("extensions"), "").unwrap();
        let layers = ImportedLayers::of(path);
        layers.add(&[diff_id(1)]);
        assert!(!layers.has(diff_id(1)));
    }
}
