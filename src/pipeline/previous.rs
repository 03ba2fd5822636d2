//! An earlier image: its plan, which the next one follows, and its layers, which the next one takes over
//! where nothing about them has changed.

use std::collections::HashMap;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::layer_plan::{LABEL, LayerPlan};
use crate::oci::read::{ImageConfig, Manifest};
use crate::oci::{Blob, Stage};
use crate::registry::{self, Access, Reference};

/// The annotation with the components of a layer (ostree-ext, `CONTENT_ANNOTATION`).
const COMPONENTS: &str = "ostree.components";

/// What an earlier image, or a file, tells of a plan.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    /// The components of each layer.
    pub plan: Vec<Vec<String>>,
    /// The layers by their keys.
    layers: HashMap<String, Blob>,
    /// The layout that has them.
    layout: Option<Utf8PathBuf>,
}

impl Previous {
    /// What the image at `reference` tells; none, with a warning, when it tells of no plan.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of_image(reference: &Reference, access: &Access) -> Result<Option<Self>> {
        let previous = Self::read(reference, access)
            .with_context(|| format!("reading the previous image {reference}"))?;
        if previous.is_none() {
            tracing::warn!(
                "the previous image {reference} is not chunked: its layers name no components, so that there is no plan to follow"
            );
        }
        Ok(previous)
    }

    /// What there is at a destination; none when that is no chunked image.
    pub fn of_destination(reference: &Reference) -> Option<Self> {
        let previous = Self::read(reference, &Access::default()).ok()?;
        if previous.is_some() {
            tracing::info!("{reference} is there already; its plan is kept");
        }
        previous
    }

    fn read(reference: &Reference, access: &Access) -> Result<Option<Self>> {
        let manifest = registry::read_manifest(reference, access)?;
        let config = registry::read_config(reference, access)?;
        let config = ImageConfig::parse(&config)?;
        let Some(label) = config.labels.get(LABEL) else {
            let plan = of_annotations(&manifest);
            return Ok(plan.map(|plan| Self {
                plan,
                ..Self::default()
            }));
        };
        let plan = match LayerPlan::from_label(label) {
            Ok(plan) => plan,
            Err(e) => {
                tracing::warn!("the label {LABEL} of {reference} is left alone: {e:#}");
                let plan = of_annotations(&manifest);
                return Ok(plan.map(|plan| Self {
                    plan,
                    ..Self::default()
                }));
            }
        };
        Ok(Some(Self {
            layers: layers(&plan, &manifest, &config),
            plan: plan.components(),
            layout: match reference {
                Reference::Layout { path, .. } => Some(path.clone()),
                _ => None,
            },
        }))
    }

    /// What a manifest in a file tells, by its annotations; none, with a warning, when it does not.
    ///
    /// # Errors
    /// When it is no manifest.
    pub fn of_manifest_file(file: &Utf8Path) -> Result<Option<Self>> {
        let manifest = std::fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Manifest::parse(&bytes))
            .with_context(|| format!("reading the manifest of the previous build, {file}"))?;
        let plan = of_annotations(&manifest);
        if plan.is_none() {
            tracing::warn!("{file} tells of no plan: its layers name no components");
        }
        Ok(plan.map(|plan| Self {
            plan,
            ..Self::default()
        }))
    }

    /// The plan in a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no plan.
    pub fn of_plan_file(file: &Utf8Path) -> Result<Self> {
        let plan = std::fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| LayerPlan::parse(&bytes))
            .with_context(|| format!("reading the plan in {file}"))?;
        Ok(Self {
            plan: plan.components(),
            ..Self::default()
        })
    }

    /// Takes the layer with that key into `stage`, if there is one.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn take(&self, key: &str, stage: &Stage) -> Result<Option<Blob>> {
        let (Some(blob), Some(layout)) = (self.layers.get(key), &self.layout) else {
            return Ok(None);
        };
        let taken = stage.take(layout, blob.digest, blob.size)?;
        Ok(taken.then(|| blob.clone()))
    }
}

/// The layers that are still the ones that the plan speaks of.
fn layers(plan: &LayerPlan, manifest: &Manifest, config: &ImageConfig) -> HashMap<String, Blob> {
    let stored = manifest.layers.iter().zip(&config.diff_ids);
    let planned = plan.layers.iter().zip(stored);
    let same = planned.filter_map(|(layer, (descriptor, diff_id))| {
        let is_it = layer.diff_id.as_deref() == Some(&diff_id.to_digest());
        let blob = Blob {
            digest: descriptor.digest,
            diff_id: *diff_id,
            size: descriptor.size,
            uncompressed_size: layer.uncompressed_size?,
        };
        is_it.then_some((layer.key.clone()?, blob))
    });
    same.collect()
}

/// The components of each layer, without the one that has the commit; none when one does not say.
pub fn of_annotations(manifest: &Manifest) -> Option<Vec<Vec<String>>> {
    let layers = match manifest.layers.split_first() {
        Some((first, rest)) if !first.annotations.contains_key(COMPONENTS) => rest,
        _ => &manifest.layers,
    };
    let names = layers.iter().map(|layer| {
        let names = layer.annotations.get(COMPONENTS)?;
        let names = names.split(',').filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    });
    let plan: Vec<Vec<String>> = names.collect::<Option<_>>()?;
    (!plan.is_empty()).then_some(plan)
}
