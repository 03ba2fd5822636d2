//! Which entries of a rootfs are left out of the image.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use camino::Utf8PathBuf;

/// Directories at the top that the running system fills: kept, always empty. `sysroot` holds
/// the repository of a deployed system; a commit has it as a mount point only.
const EMPTIED: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "tmp"];

/// What to do with sockets, fifos and device nodes, which no commit can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialFiles {
    /// An error that names them.
    #[default]
    Refuse,
    /// They are left out.
    Skip,
}

#[derive(Debug)]
struct Prune {
    path: Utf8PathBuf,
    contents_only: bool,
    matched: AtomicBool,
}

/// Says which entries of a rootfs are left out.
#[derive(Debug, Default)]
pub struct Filter {
    prunes: Vec<Prune>,
    /// What to do with special files.
    pub special_files: SpecialFiles,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    KeepEmpty,
    Drop,
}

impl Filter {
    /// Leaves out `path` (from the root, leading slash optional) and all below it; with a
    /// trailing slash only what is below it.
    ///
    /// # Errors
    /// When the path names the root itself or has `..` in it.
    pub fn prune(&mut self, path: &str) -> Result<()> {
        let mut clean = Utf8PathBuf::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => bail!("'..' is not allowed; name the path from the root"),
                name => clean.push(name),
            }
        }
        let contents_only = path.ends_with('/');
        if clean.as_str().is_empty() {
            bail!("this would leave out the whole rootfs");
        }
        self.prunes.push(Prune {
            path: clean,
            contents_only,
            matched: AtomicBool::new(false),
        });
        Ok(())
    }

    /// What becomes of the entry at `path` (from the root, no leading slash).
    pub(super) fn verdict(&self, path: &str) -> Verdict {
        let mut verdict = if EMPTIED.contains(&path) {
            Verdict::KeepEmpty
        } else {
            Verdict::Keep
        };
        for prune in self.prunes.iter().filter(|p| p.path == path) {
            prune.matched.store(true, Ordering::Relaxed);
            verdict = match (prune.contents_only, verdict) {
                (true, Verdict::Keep | Verdict::KeepEmpty) => Verdict::KeepEmpty,
                _ => Verdict::Drop,
            };
        }
        verdict
    }

    /// Whether nothing below `path` (from the root, no leading slash) can get into the tree.
    pub fn excludes(&self, path: &str) -> bool {
        let mut at = 0;
        while let Some(slash) = path[at..].find('/') {
            if self.verdict(&path[..at + slash]) != Verdict::Keep {
                return true;
            }
            at += slash + 1;
        }
        self.verdict(path) == Verdict::Drop
    }

    /// Tells of pruned paths that met nothing in the rootfs.
    pub(super) fn warn_of_unmatched(&self) {
        for unmatched in self.unmatched() {
            tracing::warn!("/{unmatched} cannot be left out: there is no such path in the rootfs");
        }
    }

    fn unmatched(&self) -> impl Iterator<Item = &str> {
        let unmatched = self
            .prunes
            .iter()
            .filter(|p| !p.matched.load(Ordering::Relaxed));
        unmatched.map(|p| p.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn empties_what_the_system_fills_and_prunes_what_is_named() {
        let mut filter = Filter::default();
        filter.prune("/boot").unwrap();
        filter.prune("usr/share//doc/").unwrap();
        filter.prune("/missing").unwrap();
        for (path, verdict) in [
            ("proc", Verdict::KeepEmpty),
            ("usr/proc", Verdict::Keep),
            ("boot", Verdict::Drop),
            ("usr/share/doc", Verdict::KeepEmpty),
            ("usr/share", Verdict::Keep),
        ] {
            assert_eq!(filter.verdict(path), verdict, "{path}");
        }
        assert_eq!(filter.unmatched().collect::<Vec<_>>(), ["missing"]);
        assert!(filter.excludes("boot") && filter.excludes("boot/x") && filter.excludes("tmp/x/y"));
        assert!(!filter.excludes("usr/share") && !filter.excludes("tmp"));
    }

    #[test]
    fn refuses_paths_that_cannot_be_meant() {
        for path in ["/", "", ".", "usr/../etc"] {
            assert!(Filter::default().prune(path).is_err(), "{path}");
        }
    }
}
