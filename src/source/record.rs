//! Mounts that a backend only counts cannot carry a name, so that each of ours is on record in a
//! file, from before it is made until after it is undone: what a killed process left is found there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::backend::storage_environment;
use super::description::Kind;
use super::is_in_user_namespace;
use crate::process::Owner;

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// The image with that id.
    Image(String),
    /// A container.
    Container(String),
}

/// The record of one mount.
#[derive(Debug, Clone)]
pub struct Record {
    path: Option<Utf8PathBuf>,
    content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    backend: String,
    mounted: Counted,
    /// The variables that choose the storage.
    environment: BTreeMap<String, String>,
}

impl Record {
    /// A record for this process, not written yet.
    pub fn new(backend: Kind, mounted: Counted) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory().map(|dir| dir.join(format!("{}.{number}", Owner::this_process())));
        let content = Content {
            backend: backend.program().to_owned(),
            mounted,
            environment: storage_environment(),
        };
        Self {
            path: path.ok(),
            content,
        }
    }

    /// Writes it. Where that cannot be done, only what a SIGKILL leaves behind is not found again.
    pub fn write(&self) {
        let write = || -> Result<()> {
            let path = self.path.as_ref().context("there is no directory for it")?;
            let text = serde_json::to_vec(&self.content)?;
            fs::write(path, text).with_context(|| format!("writing {path}"))
        };
        if let Err(e) = write() {
            tracing::debug!("the mount is not on record: {e:#}");
        }
    }

    /// Removes it.
    pub fn remove(&self) {
        if let Some(path) = &self.path {
            // It was not written, or somebody cleaned up.
            let _ = fs::remove_file(path);
        }
    }

    /// The records of all processes with their owners; damaged ones are removed with a warning.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all() -> Result<Vec<(Owner, Self)>> {
        let directory = directory()?;
        let mut found = Vec::new();
        for entry in directory
            .read_dir_utf8()
            .with_context(|| format!("reading {directory}"))?
        {
            let path = entry?.path().to_owned();
            let name = path.file_name().unwrap_or_default();
            let owner = name
                .rsplit_once('.')
                .and_then(|(owner, _)| owner.parse::<Owner>().ok());
            let content = fs::read(&path).ok();
            let content = content.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match (owner, content) {
                (Some(owner), Some(content)) => {
                    found.push((
                        owner,
                        Self {
                            path: Some(path),
                            content,
                        },
                    ));
                }
                _ => tracing::warn!("{path} is not the record of a mount, or damaged"),
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// What is mounted.
    pub fn mounted(&self) -> &Counted {
        &self.content.mounted
    }

    /// The backend that mounted it.
    pub fn backend(&self) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.program() == self.content.backend)
    }

    /// The variables that chose its storage.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.content.environment
    }
}

/// Where the records of this user are: gone with the mounts when the machine starts anew.
fn directory() -> Result<Utf8PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let rootless = uid != 0 || is_in_user_namespace();
    let set = std::env::var("XDG_RUNTIME_DIR")
        .ok()
        .filter(|dir| Utf8Path::new(dir).is_dir());
    let directory = match (rootless, set) {
        (true, Some(runtime)) => Utf8PathBuf::from(runtime).join("apt-ostree-helper"),
        (true, None) => {
            // In the user namespace of podman or buildah everybody is root; they tell who it is.
            let user =
                std::env::var("_CONTAINERS_ROOTLESS_UID").unwrap_or_else(|_| uid.to_string());
            Utf8PathBuf::from(format!("/tmp/apt-ostree-helper-{user}"))
        }
        (false, _) => "/run/apt-ostree-helper".into(),
    };
    let made = fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&directory);
    made.with_context(|| format!("creating {directory}"))?;
    let found = fs::symlink_metadata(&directory)?;
    ensure!(
        found.is_dir() && found.uid() == uid,
        "{directory} belongs to somebody else: remove it"
    );
    Ok(directory)
}
