//! Verifies layers of an earlier image before they are taken over. That a layer has the wanted key
//! is only what that image claims; here its bytes are read and hashed.

use anyhow::{Context, Result};

use crate::checksum::Checksum;
use crate::oci::read::LayerReader;
use crate::oci::{Blob, Image, RegularFile, Stage};

/// Whether a blob that was taken into `stage` holds, uncompressed, what has the checksum `wanted`;
/// a warning says where it does not.
///
/// # Errors
/// When it cannot be opened.
pub fn holds(stage: &Stage, blob: &Blob, wanted: Checksum) -> Result<bool> {
    let path = stage.blob_path(blob.digest);
    let opened = RegularFile::open(&path).with_context(|| format!("opening {path}"))?;
    let raw = Box::new(opened.into_file());
    let read = LayerReader::of_blob(raw, blob.digest, blob.size, wanted);
    let read = read.and_then(LayerReader::finish);
    if let Err(e) = &read {
        tracing::warn!(
            "a layer of the previous image is made anew: its key is that of a layer of this rootfs, and its content is another: {e:#}"
        );
    }
    Ok(read.is_ok())
}

/// Removes from `stage` what was taken over and then found to be something else.
///
/// # Errors
/// When that cannot be removed.
pub fn remove_others(stage: &Stage, image: &Image, taken: &[Checksum]) -> Result<()> {
    for digest in taken.iter().filter(|digest| !image.blobs.contains(digest)) {
        stage.remove_blob(*digest)?;
    }
    Ok(())
}
