//! Images in the storage of podman and buildah. The storage keeps layers uncompressed, under other
//! digests than those in manifests, which the proxy of skopeo 1.9 cannot handle. So skopeo copies
//! the image to a temporary layout first.

use std::io::Read;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checksum::Checksum;
use crate::oci::Stage;
use crate::oci::read::{Blobs, Layout};
use crate::process::Call;

/// A copy of an image that goes with this value.
pub struct Copied {
    layout: Layout,
    _stage: Stage,
}

impl Copied {
    /// Whether an image that skopeo calls `name` has to be copied.
    pub fn is_for(name: &str) -> bool {
        name.starts_with("containers-storage:")
    }

    /// Copies the image.
    ///
    /// # Errors
    /// When skopeo is missing or fails: what it says is in the error.
    pub fn new(name: &str) -> Result<Self> {
        let stage = Stage::new_temporary()?;
        let path = stage.path().join("image");
        let to = format!("oci:{path}");
        let arguments = [
            "copy",
            "--quiet",
            "--dest-oci-accept-uncompressed-layers",
            name,
            &to,
        ];
        let copied = Call::new("skopeo", arguments).run();
        copied.with_context(|| format!("copying {name} with skopeo"))?;
        Ok(Self {
            layout: Layout::new(&path)?,
            _stage: stage,
        })
    }
}

impl Blobs for Copied {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        self.layout.open(digest)
    }

    fn index_json(&self) -> Result<Value> {
        self.layout.index_json()
    }
}
