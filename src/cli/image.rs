//! The options that every command shares that makes an image.

use anyhow::Result;

use super::args::{ConfigArgs, LayerArgs};
use super::result::ResultArgs;
use crate::oci::BaseConfig;
use crate::pipeline::{Format, ImageOptions};
use crate::registry::{Access, Destination};

/// The options of a job; `command` is the one that is given, for the image's history. What a
/// command has of its own is to be added.
pub fn image_options(
    command: &str,
    destination: Destination,
    format: Format,
    layers: &LayerArgs,
    config: &ConfigArgs,
    result: &ResultArgs,
) -> Result<ImageOptions> {
    Ok(ImageOptions {
        compression: layers.compression(&destination)?,
        destination,
        access: Access::default(),
        format,
        max_layers: layers.max_layers,
        times: layers.mtime,
        previous: None,
        lower: None,
        base: BaseConfig::default(),
        labels: config.labels.clone(),
        copied_metadata: Vec::new(),
        optional_metadata: Vec::new(),
        annotations: config.annotations(),
        cmd: config.cmd(),
        platform: config.arch.clone(),
        bootc: false,
        admin_dir: layers.admindir.clone(),
        components: layers.component_table()?,
        intervals: layers.intervals()?,
        created_by: format!("apt-ostree-helper {command}"),
        bill: result.sbom.is_some(),
        threads: layers.threads(),
    })
}
