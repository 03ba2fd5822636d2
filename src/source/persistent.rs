//! Mounts that outlive the process, for scripts: `mount` makes them, `umount` undoes them.

use anyhow::{Context, Result, bail};
use camino::Utf8Path;

use super::backend::Backend;
use super::choice::Backends;
use super::mount::{Mounted, TEMPORARY, next_number, remove, unmount};
use super::record::MountTarget;
use super::{find_container, find_image};
use crate::process::Owner;

/// How the names of containers go on in which an image stays mounted; its id, who made it and a
/// number follow.
const KEPT: &str = "kept-";

/// Mounts an image. [`Mounted::keep`] makes it stay until it is released; else it goes with the
/// value.
///
/// # Errors
/// When there is no such image, or the backend fails; nothing is left mounted then.
pub fn mount_image(backends: &Backends, name: &str) -> Result<Mounted> {
    let backend = &backends.first();
    let mount = || -> Result<Mounted> {
        let id = find_image(backend, name)?.id;
        let own = format!(
            "{}{}-{}",
            name_begin(&id),
            Owner::this_process(),
            next_number()
        );
        Mounted::image_or_container(backend, &id, &own)
    };
    mount().with_context(|| format!("mounting the image {name} with {}", backend.kind()))
}

/// Mounts a container. [`Mounted::keep`] makes it stay until it is released; else it goes with the
/// value.
///
/// # Errors
/// As [`mount_image`].
pub fn mount_container(backends: &Backends, name: &str) -> Result<Mounted> {
    let (backend, _) = find_container(backends, name)?;
    Mounted::container(&backend, name)
        .with_context(|| format!("mounting the container {name} with {}", backend.kind()))
}

fn name_begin(id: &str) -> String {
    let short: String = id.chars().take(12).collect();
    format!("{TEMPORARY}{KEPT}{short}-")
}

/// Undoes one [`mount_image`] or [`mount_container`] that was kept, named by the image, the
/// container, or the path at which it is mounted.
///
/// # Errors
/// When nothing of that name is mounted, or the backend fails.
pub fn release(backends: &Backends, what: &str) -> Result<()> {
    for backend in backends.all() {
        let released = match Utf8Path::new(what).is_absolute() {
            true => release_path(&backend, what),
            false => release_name(&backend, what),
        };
        if released.with_context(|| format!("unmounting {what} with {}", backend.kind()))? {
            return Ok(());
        }
    }
    bail!("{what} is not mounted: name an image, a container, or the path that 'mount' printed")
}

fn release_path(backend: &Backend, path: &str) -> Result<bool> {
    for (id, mountpoint) in backend.mounted_images()? {
        if mountpoint == path {
            return unmount(backend, &MountTarget::Image(id)).map(|()| true);
        }
    }
    for (name, mountpoint) in backend.mounted_containers()? {
        if mountpoint == path {
            return release_container(backend, name).map(|()| true);
        }
    }
    Ok(false)
}

fn release_name(backend: &Backend, name: &str) -> Result<bool> {
    let containers = backend.containers()?;
    if containers.iter().any(|container| container == name) {
        return release_container(backend, name.to_owned()).map(|()| true);
    }
    let Ok(image) = backend.inspect_image(name) else {
        return Ok(false);
    };
    if backend.is_image_mounted(&image.id)? {
        return unmount(backend, &MountTarget::Image(image.id)).map(|()| true);
    }
    let begin = name_begin(&image.id);
    match containers
        .into_iter()
        .find(|container| container.starts_with(&begin))
    {
        Some(container) => release_container(backend, container).map(|()| true),
        None => Ok(false),
    }
}

fn release_container(backend: &Backend, name: String) -> Result<()> {
    match name.starts_with(&format!("{TEMPORARY}{KEPT}")) {
        true => remove(backend, &name),
        false => unmount(backend, &MountTarget::Container(name)),
    }
}
