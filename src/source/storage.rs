//! Images into the storage of podman and buildah.

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::choice::{Backends, Choice, USUAL_LIMIT};
use crate::process::Call;

/// Takes the image of the layout at `path` into the storage, under a whole name:
/// through skopeo where it is there, else through podman or buildah.
///
/// # Errors
/// When none of them is there, or it fails.
pub fn store_layout(path: &Utf8Path, name: &str) -> Result<()> {
    let layout = format!("oci:{path}");
    let store = || -> Result<()> {
        // What we have made needs no signature; a machine without a policy has none to ask for one.
        let destination = format!("containers-storage:{name}");
        let arguments = [
            "--insecure-policy",
            "copy",
            "--quiet",
            &layout,
            &destination,
        ];
        match Call::new("skopeo", arguments).run() {
            Ok(_) => Ok(()),
            Err(e) if e.is::<crate::process::NotThere>() => {
                let backends = Backends::detect(Choice::Auto, USUAL_LIMIT)
                    .context("writing to the storage needs skopeo, podman or buildah")?;
                backends.first().pull_layout(&layout, name)
            }
            Err(e) => Err(e),
        }
    };
    store().with_context(|| format!("storing the image as {name}"))
}
