//! What a job reports about its result.

use serde::Serialize;
use serde_json::Value;

use super::{Bill, PlanFile};

/// What was built.
#[derive(Debug, Serialize)]
pub struct Built {
    /// The digest of the manifest.
    pub digest: String,
    /// The digest of the config.
    pub image_id: String,
    /// The commit; of a plain image, the commit that its tree would be, unless it was not to be
    /// told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Seconds since the epoch: the date of image and commit.
    pub timestamp: u64,
    /// Entries of the rootfs in the image.
    pub entries: usize,
    /// Packages found.
    pub packages: usize,
    /// The layers, bottom first.
    pub layers: Vec<LayerSummary>,
    /// The plan, for a file.
    #[serde(skip)]
    pub plan: PlanFile,
    /// The descriptor of the manifest, which names the image in an index or an artifact.
    #[serde(skip)]
    pub descriptor: Value,
    /// The bill of materials, where one is asked for.
    #[serde(skip)]
    pub bill: Option<Bill>,
    /// What each component weighs and how often it changes.
    #[serde(skip)]
    pub content_metadata: Vec<ContentMetadata>,
}

/// A layer of what was built.
#[derive(Debug, Serialize)]
pub struct LayerSummary {
    /// Its digest.
    pub digest: String,
    /// Its diff id.
    pub diff_id: String,
    /// Bytes as stored.
    pub size: u64,
    /// Bytes before compression.
    pub uncompressed_size: u64,
    /// The chance that it changes until the next pull; 0 where a base does not tell.
    pub chance: f64,
    /// Its components, sorted; empty for the commit layer, for what hides and mends what the base
    /// has, and where a base does not tell.
    pub components: Vec<String>,
    /// Bytes of it, before compression, that the image does not use: files of the previous image
    /// that layers above it replace or hide.
    pub dead_size: u64,
    /// Whether its bytes are those of the previous image's, or of the base's, taken over as they
    /// are.
    pub taken_over: bool,
    /// Whether it is a layer of the base image.
    pub base: bool,
}

/// A component as rpm-ostree's `--write-contentmeta-json` describes one (ostree-ext,
/// `ObjectSourceMetaSized`).
#[derive(Debug, Serialize)]
pub struct ContentMetadata {
    /// Its name.
    pub identifier: String,
    /// Its name again: with us a component has one.
    pub name: String,
    /// The source package.
    pub srcid: String,
    /// When it changed last, in hours after whatever changed first; not known here: 0.
    pub change_time_offset: u32,
    /// How many changes are expected in a year.
    pub change_frequency: u32,
    /// Bytes of tar.
    pub size: u64,
}

impl Built {
    /// Bytes of all layers as stored.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}
