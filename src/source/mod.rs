//! Finds the root filesystem of an image or a container of podman or buildah. Whatever is mounted
//! or started for a job is undone with it.

mod backend;
mod build_container;
mod choice;
mod containerfile;
mod description;
mod leftovers;
mod mount;
mod persistent;
mod record;
mod storage;
mod unshare;
mod view;

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use camino::Utf8Path;

pub use choice::{Backends, Choice};
pub use containerfile::{BuildOptions, build};
pub use leftovers::remove_leftovers;
pub use mount::Mounted;
pub use persistent::{mount_container, mount_image, release};
pub use storage::store_layout;
pub use unshare::{Unshared, enter};
pub use view::View;

use backend::{Backend, Inspected};

use crate::oci::BaseConfig;

/// A root filesystem that is mounted for as long as this value lives, with the config of its image.
pub struct Source {
    mounted: Mounted,
    config: BaseConfig,
    annotations: BTreeMap<String, String>,
}

impl Source {
    /// Where it is mounted.
    pub fn path(&self) -> &Utf8Path {
        self.mounted.path()
    }

    /// The config of the image, or the one that the container would give to its image.
    pub fn config(&self) -> &BaseConfig {
        &self.config
    }

    /// The annotations of the image; none of a container's.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Mounts an image of the preferred backend, which fetches it where it is not in its storage.
    ///
    /// # Errors
    /// When there is no such image, or the backend fails.
    pub fn image(backends: &Backends, name: &str) -> Result<Self> {
        let backend = &backends.first();
        let open = || -> Result<Self> {
            let Inspected {
                id,
                config,
                annotations,
            } = find_image(backend, name)?;
            Ok(Self {
                annotations,
                config: parse(&config)?,
                mounted: Mounted::image(backend, &id)?,
            })
        };
        open().with_context(|| format!("mounting the image {name} with {}", backend.kind()))
    }

    /// Mounts a container of whichever backend knows it.
    ///
    /// # Errors
    /// When none does, or it fails.
    pub fn container(backends: &Backends, name: &str) -> Result<Self> {
        let (backend, Inspected { config, .. }) = find_container(backends, name)?;
        let open = || -> Result<Self> {
            Ok(Self {
                config: parse(&config)?,
                mounted: Mounted::container(&backend, name)?,
                annotations: BTreeMap::new(),
            })
        };
        open().with_context(|| format!("mounting the container {name} with {}", backend.kind()))
    }
}

/// The config of an image of the preferred backend.
///
/// # Errors
/// When there is no such image, or the backend fails.
pub fn image_config(backends: &Backends, name: &str) -> Result<BaseConfig> {
    let backend = &backends.first();
    let inspect = || parse(&find_image(backend, name)?.config);
    inspect().with_context(|| {
        format!(
            "reading the config of the image {name} with {}",
            backend.kind()
        )
    })
}

fn parse(config: &str) -> Result<BaseConfig> {
    BaseConfig::parse(config.as_bytes()).context("reading its config")
}

/// Describes an image, after fetching it if need be. The name may have the transport of the storage
/// or of a registry.
fn find_image(backend: &Backend, name: &str) -> Result<Inspected> {
    let name = ["containers-storage:", "docker://"]
        .iter()
        .find_map(|transport| name.strip_prefix(transport))
        .unwrap_or(name);
    match backend.inspect_image(name) {
        Ok(found) => Ok(found),
        Err(unknown) => {
            backend.pull(name).map_err(|e| {
                anyhow!("it is not in the storage ({unknown:#}), and fetching it failed: {e:#}")
            })?;
            backend.inspect_image(name)
        }
    }
}

/// The backend that knows a container, and what it says of it.
fn find_container(backends: &Backends, name: &str) -> Result<(Backend, Inspected)> {
    let mut reasons = Vec::new();
    for backend in backends.all() {
        match backend.inspect_container(name) {
            Ok(found) => return Ok((backend, found)),
            Err(e) => reasons.push(format!("{e:#}")),
        }
    }
    Err(anyhow!(
        "no container {name} can be used: {}",
        reasons.join("; ")
    ))
}

/// Whether this process is in a user namespace that maps users (user_namespaces(7)): root there is
/// an ordinary user outside.
fn is_in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    let identity = ["0", "0", "4294967295"].map(Some);
    let first = [fields.next(), fields.next(), fields.next()];
    !map.is_empty() && first != identity
}
