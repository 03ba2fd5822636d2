//! Images read back: where blobs come from, what manifest and config say of them, and layers that
//! are verified as they pass. All of it may be hostile: sizes and digests are checked before
//! anything is believed, and memory does not grow with what an image claims.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

mod archive;
mod config;
mod header;
mod index;
mod json;
mod layer;
mod layout;
mod manifest;
mod path;
mod pax;
mod tar;
#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use config::{ImageConfig, layers_with_diff_ids};
pub use index::{NoImageForPlatform, choose_platform, find_manifest, is_alone};
pub use layer::LayerReader;
pub use layout::Layout;
pub(super) use manifest::is_index;
pub use manifest::{Descriptor, Manifest};
pub use path::clean_path;
pub use tar::{Entry, EntryKind, TarReader};

use crate::checksum::Checksum;

/// The largest JSON document that is read, in bytes: an index, a manifest or a config.
pub const JSON_LIMIT: u64 = crate::limits::JSON_BYTES;
/// How many indexes may lead to a manifest one after another.
const INDEX_DEPTH: usize = 4;

/// Where the blobs of images are.
pub trait Blobs: Sync {
    /// The bytes of a blob as they are stored, not verified.
    ///
    /// # Errors
    /// When the blob is missing or cannot be opened.
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>>;

    /// Says which blob is opened next, so that where fetching it takes time that may begin.
    fn prefetch(&self, _digest: Checksum) {}

    /// The index that names the images (image-spec, image-layout.md, "index.json file").
    ///
    /// # Errors
    /// When it is missing, larger than [`JSON_LIMIT`], or no JSON object.
    fn index_json(&self) -> Result<Value>;
}

/// Reads the manifest of the image that is called `tag` (or is the only one), for `architecture`
/// (or the running machine's) where there are several: through nested indexes, verified.
///
/// # Errors
/// When there is no such image, or what names it is damaged. See [`find_manifest`].
pub fn read_manifest(
    blobs: &dyn Blobs,
    tag: Option<&str>,
    architecture: Option<&str>,
) -> Result<Manifest> {
    let mut descriptor = find_manifest(&blobs.index_json()?, tag, architecture)?;
    for _ in 0..INDEX_DEPTH {
        let bytes = read_small_blob(blobs, &descriptor, JSON_LIMIT)?;
        let context = || format!("reading {}", descriptor.digest.to_digest());
        if !descriptor.is_index() {
            return Manifest::parse(&bytes).with_context(context);
        }
        let index = Value::Object(json::object(&bytes).with_context(context)?);
        descriptor = choose_platform(&index, architecture).with_context(context)?;
    }
    bail!(
        "there are more than {INDEX_DEPTH} indexes on the way to the image's manifest; the last names {}",
        descriptor.digest.to_digest()
    )
}

/// Reads a whole blob of at most `limit` bytes and verifies it.
///
/// # Errors
/// When it is missing, larger than `limit`, or not what the descriptor says.
pub fn read_small_blob(blobs: &dyn Blobs, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    let (name, size) = (descriptor.digest.to_digest(), descriptor.size);
    ensure!(
        size <= limit,
        "the blob {name} has {size} bytes, and only up to {limit} are read of a {}",
        descriptor.media_type
    );
    let blob = blobs.open(descriptor.digest)?;
    let bytes = up_to(blob, size).with_context(|| format!("reading the blob {name}"))?;
    ensure!(
        bytes.len() as u64 == size,
        "the blob {name} has {}, not {size} bytes as its descriptor says; copy the image again",
        match bytes.len() as u64 {
            more if more > size => "more".to_owned(),
            fewer => format!("{fewer}"),
        }
    );
    let found = Checksum::of(&bytes);
    ensure!(
        found == descriptor.digest,
        "the blob {name} is damaged, its bytes have the digest {}; copy the image again",
        found.to_digest()
    );
    Ok(bytes)
}

/// Opens a layer for reading, verified as it passes.
///
/// # Errors
/// When its blob is missing, or of a kind that [`LayerReader::new`] refuses.
pub fn open_layer<'a>(
    blobs: &'a dyn Blobs,
    descriptor: &Descriptor,
    diff_id: Checksum,
) -> Result<LayerReader<'a>> {
    let raw = blobs.open(descriptor.digest);
    let raw = if descriptor.is_foreign() {
        raw.with_context(|| {
            format!(
                "the layer {} is foreign ({}): it is not part of the image and must be fetched from where its vendor has it",
                descriptor.digest.to_digest(),
                descriptor.media_type
            )
        })?
    } else {
        raw?
    };
    LayerReader::new(raw, descriptor, diff_id)
}

/// All of `from`, but no more than `limit` and one byte, by which a larger one is known.
fn up_to(from: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
