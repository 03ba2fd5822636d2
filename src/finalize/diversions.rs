//! dpkg's diversions, changed file by file: `dpkg-divert` need not run, which asks for a chroot, a
//! lock and programs of the system, and does no more than to write these lines (dpkg-divert(1),
//! `lib/dpkg/db-fsys-divert.c`).

use anyhow::{Result, ensure};

use super::change::Plan;
use super::root::Root;
use super::system::{MODULES, System};

/// Who diverts: the administrator, from all packages.
const LOCAL: &str = ":";

/// The diversions of a system.
pub struct Diversions {
    /// The file, without a leading slash; none where there is no database.
    path: Option<String>,
    /// Path, where it is diverted to, by whom: as they stand in the file.
    entries: Vec<[String; 3]>,
    is_changed: bool,
}

impl Diversions {
    /// Reads them.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(system: &System<'_>) -> Result<Self> {
        let Some(dir) = system.admin_dir()? else {
            return Ok(Self {
                path: None,
                entries: Vec::new(),
                is_changed: false,
            });
        };
        let path = format!("{dir}/diversions");
        Ok(Self {
            entries: entries(system.root, &path)?,
            path: Some(path),
            is_changed: false,
        })
    }

    /// Diverts a path from all packages, unless it is diverted already. Both are without a leading
    /// slash.
    pub fn add(&mut self, from: &str, to: &str) {
        let from = format!("/{from}");
        if !self.entries.iter().any(|[path, ..]| *path == from) {
            self.entries.push([from, format!("/{to}"), LOCAL.into()]);
            self.is_changed = true;
        }
    }

    /// Forgets those of kernels that are gone.
    pub fn drop_kernels_but(&mut self, kernel: &str) {
        let before = self.entries.len();
        let below = format!("/{MODULES}/");
        self.entries.retain(|[from, to, by]| {
            let version = to
                .strip_prefix(&below)
                .and_then(|rest| rest.split_once('/'));
            match version {
                Some((version, file)) => {
                    let ours = by == LOCAL && *from == format!("/boot/{file}-{version}");
                    !ours || version == kernel
                }
                None => true,
            }
        });
        self.is_changed |= self.entries.len() != before;
    }

    /// Writes them where they changed.
    pub fn plan(&self, plan: &mut Plan<'_>, why: &str) -> Result<()> {
        match &self.path {
            Some(path) if self.is_changed => {
                let lines = self.entries.iter().flatten();
                let text: String = lines.map(|line| format!("{line}\n")).collect();
                plan.write(path, text, why)
            }
            _ => Ok(()),
        }
    }
}

fn entries(root: &Root, path: &str) -> Result<Vec<[String; 3]>> {
    let bytes = root.read(path)?.unwrap_or_default();
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| {
        anyhow::anyhow!(
            "{} is not UTF-8 and cannot be changed here",
            root.name(path)
        )
    })?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(
        lines.len() % 3 == 0,
        "{} has {} lines, where each diversion has three; restore it from diversions-old beside it",
        root.name(path),
        lines.len()
    );
    let triples = lines.chunks_exact(3);
    Ok(triples
        .map(|triple| {
            [
                triple[0].to_owned(),
                triple[1].to_owned(),
                triple[2].to_owned(),
            ]
        })
        .collect())
}
