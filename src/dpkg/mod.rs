//! What the package database of a Debian root filesystem says: which packages are installed, of
//! which source each is, and which paths each owns.
//!
//! The database is the administrative directory of dpkg(1): a `status` file of deb822(5) stanzas
//! with one list of paths per package under `info/`. Images without dpkg ("distroless") have a
//! directory `status.d` in its place, with a file of stanzas and a file of checksums per package;
//! both may be there. Nothing here touches a file system: the files are read through [`Files`].
//!
//! [`change_chance`] is the other half: how likely a source package is to change until the next
//! pull.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use anyhow::{Context, Result, bail};

mod chance;
mod diversions;
mod owned;
mod package;
mod stanza;
mod status;
mod version;

#[cfg(test)]
mod tests;

pub use chance::{change_chance, is_replaced_whole, update_of};
use diversions::Diversions;
pub use package::Package;
use status::Packages;
pub use version::compare_versions;

/// Where dpkg keeps its database, and where image builders move it so that it is not under `/var`.
const ADMIN_DIRS: [&str; 2] = ["/var/lib/dpkg", "/usr/lib/sysimage/dpkg"];

/// Where the database's files are read from: a root filesystem.
pub trait Files {
    /// The content of the regular file at `path`, which is absolute inside the rootfs
    /// (`/var/lib/dpkg/status`); links are followed inside the rootfs. `None` when there is no
    /// regular file.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// The same, to be read piece by piece.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>> {
        let bytes = self.read(path)?;
        Ok(bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read>))
    }

    /// The names in the directory at `path`, sorted; `None` when there is no such directory.
    ///
    /// # Errors
    ///
    /// When the directory is there and cannot be read.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>>;
}

/// The package database of a rootfs.
#[derive(Debug, Clone)]
pub struct Database {
    admin_dir: String,
    diversions: Diversions,
    /// The packages whose files are in the rootfs, sorted by name, then architecture; each pair
    /// once.
    ///
    /// Packages that are removed but for their configuration are not among them; those that are
    /// half installed or wait for their configuration are.
    pub packages: Vec<Package>,
}

impl Database {
    /// Reads the database in `admin_dir` (absolute inside the rootfs), or without one in
    /// `/var/lib/dpkg` or `/usr/lib/sysimage/dpkg`: the first of them that has packages, else the
    /// first that has a database at all.
    ///
    /// A database is a file `status`, with the journal `updates/` that an interrupted dpkg leaves
    /// beside it, or a directory `status.d`, or both; a package that both know is taken from
    /// `status`. `None` when there is none and `admin_dir` was not given.
    ///
    /// # Errors
    ///
    /// When `admin_dir` is given and has no database; when a file cannot be read; and when one is
    /// not what dpkg writes. The last names the file, the line and how to repair it.
    pub fn load(files: &dyn Files, admin_dir: Option<&str>) -> Result<Option<Self>> {
        if let Some(given) = admin_dir {
            let dir = format!("/{}", given.trim_matches('/'));
            let Some(database) = Self::load_from(files, &dir)? else {
                bail!(
                    "no package database in {dir}: there is neither {dir}/status nor {dir}/status.d; \
                     give the directory inside the root filesystem that has one of them"
                );
            };
            return Ok(Some(database));
        }
        let mut empty = None;
        for dir in ADMIN_DIRS {
            match Self::load_from(files, dir)? {
                Some(database) if database.packages.is_empty() => empty = empty.or(Some(database)),
                Some(database) => return Ok(Some(database)),
                None => {}
            }
        }
        Ok(empty)
    }

    fn load_from(files: &dyn Files, dir: &str) -> Result<Option<Self>> {
        let mut packages = Packages::default();
        let has_directory = packages.read_status_d(files, dir)?;
        let has_file = packages.read_status(files, dir)?;
        if !has_directory && !has_file {
            return Ok(None);
        }
        Ok(Some(Self {
            admin_dir: dir.to_owned(),
            diversions: Diversions::load(files, dir)?,
            packages: packages.into_sorted(),
        }))
    }

    /// The directory of the database, absolute inside the rootfs, without a slash at its end: the
    /// one that has `status` or `status.d`.
    #[must_use]
    pub fn admin_dir(&self) -> &str {
        &self.admin_dir
    }

    /// The paths that `package` owns: absolute inside the rootfs, in the order of its list, the
    /// root directory left out. A path that another package diverts (dpkg-divert(1)) is given as
    /// what it was diverted to.
    ///
    /// The paths are as recorded: links on the way, such as those of a merged `/usr`, are the
    /// caller's to follow, and a path need not exist. Lines that are not UTF-8 or climb with `..`
    /// are skipped. A package without a list owns nothing. Without a `.list`, as in `status.d`,
    /// `.md5sums` is read, which has neither directories nor links nor configuration files
    /// (deb-md5sums(5)).
    ///
    /// # Errors
    ///
    /// When the list is there and cannot be read.
    pub fn paths(&self, files: &dyn Files, package: &Package) -> Result<Vec<String>> {
        let mut paths = owned::read(files, &self.admin_dir, package)?;
        for path in &mut paths {
            if let Some(target) = self.diversions.target(path, package.name()) {
                target.clone_into(path);
            }
        }
        Ok(paths)
    }

    /// The architecture of the system: that of the package `dpkg`, else the one that most packages
    /// have, `all` not counted (of equals the first by name). `None` when no package tells.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        let of_a_machine = |package: &&Package| !matches!(package.architecture(), "" | "all");
        let candidates = self.packages.iter().filter(of_a_machine);
        if let Some(dpkg) = candidates.clone().find(|package| package.name() == "dpkg") {
            return Some(dpkg.architecture());
        }
        let mut counts = BTreeMap::<&str, usize>::new();
        for package in candidates {
            *counts.entry(package.architecture()).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        counts
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(architecture, _)| architecture)
    }
}

/// Opens a file of the database; its path is in the error.
fn open<'a>(files: &'a dyn Files, path: &str) -> Result<Option<Box<dyn Read + 'a>>> {
    files
        .open(path)
        .with_context(|| format!("reading {path} of the package database"))
}

/// Reads a file of the database; its path is in the error.
fn read(files: &dyn Files, path: &str) -> Result<Option<Vec<u8>>> {
    files
        .read(path)
        .with_context(|| format!("reading {path} of the package database"))
}

/// Lists a directory of the database; its path is in the error.
fn list(files: &dyn Files, path: &str) -> Result<Option<Vec<String>>> {
    files
        .list(path)
        .with_context(|| format!("listing {path} of the package database"))
}
