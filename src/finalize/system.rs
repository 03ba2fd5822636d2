//! The system that is being finalized, with what dpkg knows about it.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};

use super::Options;
use super::root::{Kind, Root};
use crate::dpkg::Database;

/// Where kernels have their modules, and where bootc and OSTree look for them.
pub const MODULES: &str = "usr/lib/modules";

/// A system that is to be finalized.
pub struct System<'a> {
    /// Its files.
    pub root: &'a Root,
    /// What is asked for.
    pub options: &'a Options,
    /// The package of each path that dpkg knows, diversions applied, without a leading slash.
    owners: HashMap<String, String>,
    /// Where dpkg's database is, without a leading slash; none where there is none.
    admin_dir: Option<String>,
}

impl<'a> System<'a> {
    /// Reads what dpkg knows.
    ///
    /// # Errors
    /// When its database cannot be read.
    pub fn read(root: &'a Root, options: &'a Options) -> Result<Self> {
        let database = Database::load(root, None)
            .with_context(|| format!("reading dpkg's database in {}", root.path()))?;
        let mut owners = HashMap::new();
        for package in database.iter().flat_map(|database| &database.packages) {
            let paths = database.iter().map(|d| d.paths(root, package));
            for path in paths.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                owners.insert(
                    path.trim_start_matches('/').to_owned(),
                    package.name().to_owned(),
                );
            }
        }
        Ok(Self {
            root,
            options,
            owners,
            admin_dir: database.map(|d| d.admin_dir().trim_matches('/').to_owned()),
        })
    }

    /// The package that dpkg says a path is of.
    pub fn owner(&self, path: &str) -> Option<&str> {
        self.owners.get(path).map(String::as_str)
    }

    /// Where dpkg's database is, with links followed; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn admin_dir(&self) -> Result<Option<String>> {
        match &self.admin_dir {
            Some(dir) => self.root.resolve(dir),
            None => Ok(None),
        }
    }

    /// The versions of the kernels that can be booted.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let mut kernels = BTreeSet::new();
        for version in self.root.list(MODULES)? {
            let image = format!("{MODULES}/{version}/vmlinuz");
            if self.root.kind(&format!("{MODULES}/{version}"))? == Kind::Directory
                && self.root.kind(&image)? == Kind::File
            {
                kernels.insert(version);
            }
        }
        for file in self.root.list("boot")? {
            if let Some(version) = file.strip_prefix("vmlinuz-") {
                if self.root.kind(&format!("boot/{file}"))? == Kind::File {
                    kernels.insert(version.to_owned());
                }
            }
        }
        Ok(kernels.into_iter().collect())
    }

    /// The kernel, where there is exactly one.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn kernel(&self) -> Result<Option<String>> {
        let mut kernels = self.kernels()?;
        match kernels.len() {
            1 => Ok(kernels.pop()),
            _ => Ok(None),
        }
    }
}
