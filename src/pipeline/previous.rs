//! An earlier image: its plan, which the next one follows, and its layers, which the next one takes
//! over where nothing about them has changed.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::PlanFile;
use super::layer_plan::{LABEL, LayerPlan, PlannedLayer};
use crate::oci::read::{ImageConfig, Manifest};
use crate::oci::{Blob, OlderBlob, Platform, Stage};
use crate::registry::{
    self, Access, Destination, Failure, FailureKind, Image, Reference, RegistryName,
};

/// The annotation with the components of a layer (ostree-ext, `CONTENT_ANNOTATION`).
const COMPONENTS: &str = "ostree.components";

/// What an earlier image, or a file, tells of a plan.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    /// The components of each layer.
    pub plan: Vec<Vec<String>>,
    /// The layers by their keys.
    layers: HashMap<String, Blob>,
    /// Where they are; none where they cannot be had without being fetched.
    place: Option<Place>,
    /// The image itself, where there is one.
    image: Option<EarlierImage>,
    /// Whether the content of layers is looked at before they are taken over.
    is_verified: bool,
}

/// Where the layers of an earlier image are.
#[derive(Debug, Clone)]
enum Place {
    /// In this layout.
    Layout(Utf8PathBuf),
    /// In this repository of a registry.
    Repository(RegistryName),
    /// In the repository that the new image goes to: they are left there, and the image refers to
    /// them.
    Destination,
}

/// An image that was read for its plan.
#[derive(Debug, Clone)]
struct EarlierImage {
    /// Its name, for messages.
    name: String,
    /// The machine that it is for, as OCI names it.
    platform: (String, Option<String>),
    /// Whether it must be usable.
    is_required: bool,
}

impl Previous {
    /// Reads the plan of the image at `reference`. Gives none, and warns, where the image is
    /// missing, has no plan, or is for another architecture; when it `is_required`, that is an
    /// error.
    ///
    /// # Errors
    /// When it is required and cannot be used; when it cannot be read for any other reason: a
    /// registry that is out of reach must not cost every client a full download.
    pub fn of_image(
        reference: &Reference,
        access: &Access,
        is_required: bool,
    ) -> Result<Option<Self>> {
        let unusable = match Self::read(reference, access) {
            Ok(Some(mut previous)) => {
                if let Some(image) = &mut previous.image {
                    image.is_required = is_required;
                }
                return Ok(Some(previous));
            }
            Ok(None) => anyhow!(
                "it is not chunked: its layers name no components, so that there is no plan to follow"
            ),
            Err(error) => match Failure::of(&error).map(|failure| failure.kind) {
                Some(FailureKind::Missing | FailureKind::OtherArchitecture) => error,
                _ => {
                    return Err(error.context(format!("reading the previous image {reference}")));
                }
            },
        };
        if is_required {
            let context = format!("the previous image {reference} is required");
            return Err(unusable.context(context));
        }
        tracing::warn!(
            "no previous image is followed; all layers are made anew ({reference}: {unusable:#})"
        );
        Ok(None)
    }

    /// What there is at a destination; none when that is no chunked image, or nothing.
    ///
    /// # Errors
    /// When it is in a registry that cannot be read.
    pub fn of_destination(reference: &Reference, access: &Access) -> Result<Option<Self>> {
        let previous = match Self::read(reference, access) {
            Ok(previous) => previous,
            Err(error) => match (reference, Failure::of(&error).map(|failure| failure.kind)) {
                (_, Some(FailureKind::Missing | FailureKind::OtherArchitecture)) => None,
                (Reference::Registry(_), _) => {
                    return Err(error.context(format!("reading what is at {reference} already")));
                }
                _ => {
                    tracing::warn!("what is at {reference} is not followed: {error:#}");
                    None
                }
            },
        };
        if previous.is_some() {
            tracing::info!("{reference} is there already; its plan is kept");
        }
        Ok(previous)
    }

    fn read(reference: &Reference, access: &Access) -> Result<Option<Self>> {
        let image = registry::describe(reference, access)?;
        let (manifest, config) = (image.manifest, ImageConfig::parse(&image.config)?);
        let earlier = Self {
            image: Some(EarlierImage {
                name: reference.to_string(),
                platform: (config.architecture.clone(), config.variant.clone()),
                is_required: false,
            }),
            ..Self::default()
        };
        let by_annotations = |earlier: Self| {
            let plan = of_annotations(&manifest);
            plan.map(|plan| Self { plan, ..earlier })
        };
        let Some(label) = config.labels.get(LABEL) else {
            return Ok(by_annotations(earlier));
        };
        let plan = match LayerPlan::from_label(label) {
            Ok(plan) => plan,
            Err(e) => {
                tracing::warn!("the label {LABEL} of {reference} is left alone: {e:#}");
                return Ok(by_annotations(earlier));
            }
        };
        Ok(Some(Self {
            layers: layers(&plan, &manifest, &config),
            plan: plan.components(),
            place: match reference {
                Reference::Layout { path, .. } => Some(Place::Layout(path.clone())),
                Reference::Registry(name) => Some(Place::Repository(name.clone())),
                _ => None,
            },
            ..earlier
        }))
    }

    /// The same, with a look at the content of each layer before it is taken over: an image that
    /// others can write to may have anything behind an honest key.
    pub fn verified(self) -> Self {
        Self {
            is_verified: true,
            ..self
        }
    }

    /// Whether the content of layers is to be looked at.
    pub fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Tells where the new image goes: layers that are in that repository already stay there, and
    /// are neither fetched nor sent, unless they are to be looked at.
    pub fn goes_to(&mut self, destination: &Destination) {
        if self.is_verified {
            return;
        }
        if let (Some(Place::Repository(from)), Destination::Registry(to)) =
            (&self.place, destination)
        {
            if from.is_in_repository_of(to) {
                self.place = Some(Place::Destination);
            }
        }
    }

    /// Whether this may be followed by an image for `platform`.
    ///
    /// # Errors
    /// When it may not, and is required.
    pub fn is_for(&self, platform: &Platform) -> Result<bool> {
        let Some(image) = &self.image else {
            return Ok(true);
        };
        let (architecture, variant) = &image.platform;
        // Who says no variant means any.
        let is_same = architecture == &platform.architecture
            && (variant == &platform.variant || variant.is_none() || platform.variant.is_none());
        if is_same {
            return Ok(true);
        }
        let why = format!(
            "the previous image {} is for {architecture}, and this one for {}",
            image.name, platform.architecture
        );
        ensure!(!image.is_required, "{why}; it is required to be usable");
        tracing::warn!("{why}: it is not followed, and all layers are made anew");
        Ok(false)
    }

    /// What a manifest in a file tells, by its annotations; none, with a warning, when it does not.
    ///
    /// # Errors
    /// When it is not a manifest, or tells nothing and is required to.
    pub fn of_manifest_file(file: &Utf8Path, is_required: bool) -> Result<Option<Self>> {
        let manifest = std::fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Manifest::parse(&bytes))
            .with_context(|| format!("reading the manifest of the previous build, {file}"))?;
        let plan = of_annotations(&manifest);
        if plan.is_none() {
            const WHY: &str = "has no plan: its layers name no components";
            ensure!(!is_required, "{file} {WHY}");
            tracing::warn!("{file} {WHY}");
        }
        Ok(plan.map(|plan| Self {
            plan,
            ..Self::default()
        }))
    }

    /// The plan in a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not a plan.
    pub fn of_plan_file(file: &Utf8Path) -> Result<Self> {
        let plan = std::fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| PlanFile::parse(&bytes))
            .with_context(|| format!("reading the plan in {file}"))?;
        Ok(Self {
            plan: plan.layers,
            ..Self::default()
        })
    }

    /// Takes the layer with that key into `stage`, if there is one; not where it stays in the
    /// repository that the image goes to.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn take(&self, key: &str, stage: &Stage) -> Result<Option<Blob>> {
        let (Some(blob), Some(place)) = (self.layers.get(key), &self.place) else {
            return Ok(None);
        };
        let taken = match place {
            Place::Layout(layout) => {
                stage.take(layout, blob.digest, blob.size, OlderBlob::Believed)?
            }
            Place::Destination => true,
            Place::Repository(_) => false,
        };
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

/// What an image tells of each of its layers: by the label of its plan where that speaks of the
/// same bytes, else by annotations.
pub fn told_layers(image: &Image) -> Vec<PlannedLayer> {
    let label = image.config.labels.get(LABEL);
    let plan = label.and_then(|label| LayerPlan::from_label(label).ok());
    let planned = plan.map(|plan| plan.layers).unwrap_or_default();
    let annotated = of_annotations(&image.manifest).unwrap_or_default();
    let layers = image.layers();
    let first = layers.len().saturating_sub(annotated.len());
    let told = layers.iter().enumerate().map(|(at, (_, diff_id))| {
        let is_it = |layer: &&PlannedLayer| layer.diff_id == Some(diff_id.to_digest());
        let annotated = || PlannedLayer {
            components: (at.checked_sub(first).and_then(|at| annotated.get(at)))
                .cloned()
                .unwrap_or_default(),
            ..PlannedLayer::default()
        };
        (planned.get(at).filter(is_it).cloned()).unwrap_or_else(annotated)
    });
    told.collect()
}

/// The components of each layer, without the one that has the commit; none when one does not say.
fn of_annotations(manifest: &Manifest) -> Option<Vec<Vec<String>>> {
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
