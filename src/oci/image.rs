//! From layers to an image: config, manifest and the descriptor that names it.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use oci_spec::image::{ANNOTATION_CREATED, HistoryBuilder, ImageManifestBuilder, SCHEMA_VERSION};
use serde_json::Value;

use super::blob::Blob;
use super::config::BaseConfig;
use super::spec::{self, MediaType};
use super::stage::Stage;
use crate::checksum::Checksum;

/// One finished layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its bytes.
    pub blob: Blob,
    /// What kind of bytes they are (image-spec, layer.md).
    pub media_type: MediaType,
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
        let history = layers.iter().map(|layer| {
            let entry = HistoryBuilder::default()
                .created(&*details.created)
                .created_by(&*details.created_by)
                .comment(&*layer.comment);
            spec::to_json(&entry.build()?)
        });
        let history = history.collect::<Result<_>>()?;
        let diff_ids: Vec<String> = layers.iter().map(|l| l.blob.diff_id.to_digest()).collect();
        let (platform, os) = (details.config.platform(), details.config.os().to_owned());
        let config = details.config.finish(&details.created, &diff_ids, history);
        let config = config.to_string();
        let config_checksum = stage.add_bytes(config.as_bytes())?;

        let described = layers.iter().map(|layer| {
            let Blob { digest, size, .. } = layer.blob;
            let mut descriptor = spec::descriptor(layer.media_type.clone(), digest, size)?;
            if !layer.annotations.is_empty() {
                descriptor.set_annotations(Some(layer.annotations.clone().into_iter().collect()));
            }
            Ok(descriptor)
        });
        let mut annotations = details.annotations;
        annotations
            .entry(ANNOTATION_CREATED.into())
            .or_insert(details.created);
        let config_size = config.len() as u64;
        let config = spec::descriptor(MediaType::ImageConfig, config_checksum, config_size)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(described.collect::<Result<Vec<_>>>()?)
            .annotations(annotations.into_iter().collect::<HashMap<_, _>>())
            .build()?;
        let manifest = spec::to_json(&manifest)?.to_string();
        let manifest_checksum = stage.add_bytes(manifest.as_bytes())?;
        let size = manifest.len() as u64;
        let mut descriptor = spec::descriptor(MediaType::ImageManifest, manifest_checksum, size)?;
        if let Some(platform) = platform {
            descriptor.set_platform(Some(platform.to_spec(&os)?));
        }
        let descriptor = spec::to_json(&descriptor)?;
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
