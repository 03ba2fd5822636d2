//! Records of mounts. A backend only counts mounts, so ours cannot carry a name; instead a file
//! records each of them, from before it is made until after it is undone, and what a killed process
//! left is found there. The backend prints the path of a mount once it is made, into a file beside
//! the record. So it is known whether the mount was made, whichever of the two processes is killed
//! when; where it is not known, the mount is left alone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::backend::{last_line, storage_environment};
use super::description::Kind;
use super::is_in_user_namespace;
use super::mount::next_number;
use crate::process::{Owner, ProcessState};

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountTarget {
    /// The image with that id.
    Image(String),
    /// A container.
    Container(String),
    /// A container that was made to be mounted, and goes with its mount.
    Made(String),
}

impl fmt::Display for MountTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(id) => write!(f, "the image {id}"),
            Self::Container(name) | Self::Made(name) => write!(f, "the container {name}"),
        }
    }
}

/// Whether a mount on record came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountState {
    /// The backend has said so.
    Mounted,
    /// It was never asked.
    Never,
    /// It has said nothing, and may have been ended halfway.
    Unknown,
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
    mounted: MountTarget,
    /// The variables that choose the storage.
    environment: BTreeMap<String, String>,
}

impl Record {
    /// A record for this process, not written yet.
    pub fn new(backend: Kind, mounted: MountTarget) -> Self {
        let name = format!("{}.{}", Owner::this_process(), next_number());
        let path = directory().map(|dir| dir.join(name));
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

    /// Writes it, and gives the file that is to have what the backend prints. Where that cannot be
    /// done, only what a SIGKILL leaves behind is not found again.
    pub fn write(&self) -> Option<Utf8PathBuf> {
        let write = || -> Result<Utf8PathBuf> {
            let path = self.path.as_ref().context("there is no directory for it")?;
            let text = serde_json::to_vec(&self.content)?;
            fs::write(path, text).with_context(|| format!("writing {path}"))?;
            Ok(output_beside(path))
        };
        let written = write();
        let told = written.inspect_err(|e| tracing::debug!("the mount is not on record: {e:#}"));
        told.ok()
    }

    /// Whether what is on record has been made, by what the backend has printed: the path, at its
    /// very end.
    pub fn made(&self) -> MountState {
        let Some(path) = &self.path else {
            return MountState::Unknown;
        };
        match fs::read_to_string(undoing_beside(path)) {
            Ok(printed) if printed.trim().is_empty() => return MountState::Unknown,
            // It was undone: what is mounted now is somebody else's.
            Ok(_) => return MountState::Never,
            Err(_) => {}
        }
        match fs::read_to_string(output_beside(path)) {
            Ok(printed) if last_line(&printed).starts_with('/') => MountState::Mounted,
            // The file is made before the backend is started.
            Err(e) if e.kind() == io::ErrorKind::NotFound => MountState::Never,
            _ => MountState::Unknown,
        }
    }

    /// Removes it.
    pub fn remove(&self) {
        if let Some(path) = &self.path {
            remove_files(path);
        }
    }

    /// The file that is to have what the backend prints when it undoes the mount (the name or id of
    /// what it was).
    pub fn undoing_output(&self) -> Option<Utf8PathBuf> {
        let path = self.path.as_ref().filter(|path| path.is_file())?;
        Some(undoing_beside(path))
    }

    /// The backend has said that it has not undone the mount.
    pub fn is_not_undone(&self) {
        if let Some(path) = &self.path {
            // It was not written.
            let _ = fs::remove_file(undoing_beside(path));
        }
    }

    /// The records of all processes with their owners. One that is empty tells of no mount: its
    /// owner was about to write it, before it mounted anything. Damaged ones are told.
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
            if [Some(OUTPUT), Some(UNDOING)].contains(&path.extension()) {
                let record = path.with_extension("");
                // What cannot be looked at stays.
                if matches!(record.try_exists(), Ok(false)) {
                    // Its record went when it was being removed.
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            let name = path.file_name().unwrap_or_default();
            let owner = name
                .rsplit_once('.')
                .and_then(|(owner, _)| owner.parse::<Owner>().ok());
            let content = fs::read(&path).ok();
            if let (Some(owner), Some([])) = (&owner, content.as_deref()) {
                if owner.state() == ProcessState::Ended {
                    remove_files(&path);
                }
                continue;
            }
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
    pub fn mounted(&self) -> &MountTarget {
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

/// How the name of the file goes on that has what the backend printed.
const OUTPUT: &str = "out";

/// The same of the file that has what it printed when it undid the mount.
const UNDOING: &str = "undo";

fn remove_files(record: &Utf8Path) {
    for path in [record, &output_beside(record), &undoing_beside(record)] {
        // It was not written, or somebody cleaned up.
        let _ = fs::remove_file(path);
    }
}

fn undoing_beside(record: &Utf8Path) -> Utf8PathBuf {
    format!("{record}.{UNDOING}").into()
}

fn output_beside(record: &Utf8Path) -> Utf8PathBuf {
    format!("{record}.{OUTPUT}").into()
}

/// The variable that names another directory for the records.
const RUN_DIRECTORY: &str = "APT_OSTREE_HELPER_RUN";

/// Where the records of this user are: gone with the mounts when the machine starts anew.
fn directory() -> Result<Utf8PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let rootless = uid != 0 || is_in_user_namespace();
    let set = std::env::var("XDG_RUNTIME_DIR")
        .ok()
        .filter(|dir| Utf8Path::new(dir).is_dir());
    let named = std::env::var(RUN_DIRECTORY).ok().filter(|d| !d.is_empty());
    let directory = match (rootless, set) {
        _ if named.is_some() => named.unwrap_or_default().into(),
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
