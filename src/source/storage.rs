//! Puts images into the storage of podman and buildah.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::backend::Backend;
use super::choice::{Backends, Choice, USUAL_LIMIT};
use crate::process::{Call, NotInstalled, Owner};

/// Takes the image of the layout at `path` into the storage, under a whole name:
/// through skopeo where it is there, else through podman or buildah.
///
/// # Errors
/// When none of them is there, or it fails.
pub fn store_layout(path: &Utf8Path, name: &str) -> Result<()> {
    // Named as seen from its parent: in a transport's reference a colon in the path would begin the
    // tag.
    let (parent, name_of_layout) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => (path, "."),
    };
    let store = || -> Result<()> {
        // What we have made needs no signature; a machine without a policy has none to ask for one.
        let copy = ["--insecure-policy", "copy", "--quiet"];
        let call = Call::new("skopeo", copy)
            .word(format!("oci:{name_of_layout}"))
            .word(format!("containers-storage:{name}"));
        match call.directory(parent).run() {
            Ok(_) => Ok(()),
            Err(e) if e.is::<NotInstalled>() => {
                let backends = Backends::detect(Choice::Auto, USUAL_LIMIT)
                    .context("writing to the storage needs skopeo, podman or buildah")?;
                pull_layout(&backends.first(), parent, name_of_layout, name)
            }
            Err(e) => Err(e),
        }
    };
    store().with_context(|| format!("storing the image as {name}"))
}

/// The backend names what it pulls after the layout's path, in place of what had that name; so it
/// is shown the layout at a path that only this process has, which can be a name (lower case, no
/// dot at the beginning).
fn pull_layout(backend: &Backend, parent: &Utf8Path, layout: &str, name: &str) -> Result<()> {
    let own = format!("apt-ostree-helper-{}", Owner::this_process());
    let link = parent.join(&own);
    symlink(layout, &link).with_context(|| format!("creating the link {link}"))?;
    let pulled = backend.pull_layout(parent, &own, name);
    let _ = std::fs::remove_file(&link);
    pulled
}
