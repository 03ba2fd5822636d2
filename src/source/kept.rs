//! Mounts that outlive the process, for scripts: `mount` makes them, `umount` undoes them.

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use super::backend::Backend;
use super::choice::Backends;
use super::mount::{TEMPORARY, path_in, remove, unmount};
use super::record::Counted;
use super::{find_container, find_image};
use crate::undo::Undo;

/// How the names of containers go on in which an image stays mounted; its id and a number follow.
const KEPT: &str = "kept-";

/// Mounts an image until it is released, and returns where.
///
/// # Errors
/// When there is no such image, or the backend fails; nothing is left mounted then.
pub fn keep_image(backends: &Backends, name: &str) -> Result<Utf8PathBuf> {
    let backend = &backends.first();
    let keep = || -> Result<Utf8PathBuf> {
        let id = find_image(backend, name)?.id;
        match backend.mount_image(&id) {
            Some(call) => mounted(call, backend, &Counted::Image(id)),
            None => mounted_container(backend, &id),
        }
    };
    keep().with_context(|| format!("mounting the image {name} with {}", backend.kind()))
}

/// Mounts a container until it is released, and returns where.
///
/// # Errors
/// As [`keep_image`].
pub fn keep_container(backends: &Backends, name: &str) -> Result<Utf8PathBuf> {
    let (backend, _) = find_container(backends, name)?;
    mounted(
        backend.mount(name),
        &backend,
        &Counted::Container(name.to_owned()),
    )
    .with_context(|| format!("mounting the container {name} with {}", backend.kind()))
}

fn mounted(call: crate::process::Call, backend: &Backend, what: &Counted) -> Result<Utf8PathBuf> {
    let name = call.name();
    let printed = call.run()?;
    path_in(&printed, &name).inspect_err(|_| {
        if let Err(e) = unmount(backend, what) {
            tracing::warn!("could not unmount: {e:#}");
        }
    })
}

fn mounted_container(backend: &Backend, id: &str) -> Result<Utf8PathBuf> {
    let begin = name_begin(id);
    let others = backend.containers()?;
    let free = (0..).map(|number| format!("{begin}{number}"));
    let mut free = free.filter(|name| !others.contains(name));
    let name = free.next().unwrap_or(begin);
    let undo = {
        let (backend, name) = (backend.clone(), name.clone());
        Undo::later(move || {
            if let Err(e) = remove(&backend, &name) {
                tracing::warn!("could not remove the container {name}: {e:#}");
            }
        })
    };
    backend.create(&name, id)?.run()?;
    let call = backend.mount(&name);
    let what = call.name();
    let printed = call.run()?;
    undo.disarm_with(|| path_in(&printed, &what))
}

fn name_begin(id: &str) -> String {
    let short: String = id.chars().take(12).collect();
    format!("{TEMPORARY}{KEPT}{short}-")
}

/// Undoes one [`keep_image`] or [`keep_container`], named by the image, the container, or the
/// path at which it is mounted.
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
            return unmount(backend, &Counted::Image(id)).map(|()| true);
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
        return unmount(backend, &Counted::Image(image.id)).map(|()| true);
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
        false => unmount(backend, &Counted::Container(name)),
    }
}
