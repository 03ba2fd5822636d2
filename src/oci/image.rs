//! From layers to an image: config, manifest and the descriptor that names it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::blob::Blob;
use super::config::BaseConfig;
use super::stage::Stage;
use crate::checksum::Checksum;

/// The media type of an image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an image config.
pub(super) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const CREATED: &str = "org.opencontainers.image.created";

/// One finished layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its bytes.
    pub blob: Blob,
    /// What kind of bytes they are (image-spec, layer.md).
    pub media_type: &'static str,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// What the image's history says of it.
    pub comment: String,
}

/// What an image is, apart from its layers.
#[derive(Debug)]
pub struct ImageDetails {
    /// The config, labels included.
    pub config: BaseConfig,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in RFC 3339.
    pub created: String,
    /// Who made it, for the history: a command.
    pub created_by: String,
}

/// A finished image in a stage.
#[derive(Debug)]
pub struct Image {
    /// The checksum of the manifest: the image's digest.
    pub manifest: Checksum,
    /// The checksum of the config: the image's id.
    pub config: Checksum,
    /// The descriptor of the manifest.
    pub descriptor: Value,
    /// Every blob, the layers last.
    pub blobs: Vec<Checksum>,
}

impl Image {
    /// Writes config and manifest to the stage that holds the layers.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(stage: &Stage, layers: &[Layer], details: ImageDetails) -> Result<Self> {
        let history = layers
            .iter()
            .map(|layer| {
                json!({"created": details.created, "created_by": details.created_by, "comment": layer.comment})
            })
            .collect();
        let diff_ids: Vec<String> = layers.iter().map(|l| l.blob.diff_id.to_digest()).collect();
        let (platform, os) = (details.config.platform(), details.config.os().to_owned());
        let config = details.config.finish(&details.created, &diff_ids, history);
        let config = config.to_string();
        let config_checksum = stage.add_bytes(config.as_bytes())?;

        let layer_descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let mut descriptor = json!({
                    "mediaType": layer.media_type,
                    "digest": layer.blob.digest.to_digest(),
                    "size": layer.blob.size,
                });
                if !layer.annotations.is_empty() {
                    descriptor["annotations"] = json!(layer.annotations);
                }
                descriptor
            })
            .collect();
        let mut annotations = details.annotations;
        annotations.entry(CREATED.into()).or_insert(details.created);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": CONFIG_TYPE,
                "digest": config_checksum.to_digest(),
                "size": config.len(),
            },
            "layers": layer_descriptors,
            "annotations": annotations,
        })
        .to_string();
        let manifest_checksum = stage.add_bytes(manifest.as_bytes())?;
        let mut descriptor = json!({
            "mediaType": MANIFEST_TYPE,
            "digest": manifest_checksum.to_digest(),
            "size": manifest.len(),
        });
        if let Some(platform) = platform {
            descriptor["platform"] = json!({"architecture": platform.architecture, "os": os});
            if let Some(variant) = platform.variant {
                descriptor["platform"]["variant"] = variant.into();
            }
        }
        let mut blobs = vec![manifest_checksum, config_checksum];
        blobs.extend(layers.iter().map(|l| l.blob.digest));
        Ok(Self {
            manifest: manifest_checksum,
            config: config_checksum,
            descriptor,
            blobs,
        })
    }
}
