//! Earlier images, for what is compared with them or follows their plan.

use anyhow::{Context, Result};
use camino::Utf8Path;

use crate::oci::read::Manifest;
use crate::registry::{self, Access, Destination, Reference};

/// The annotation with the components of a layer (ostree-ext, `CONTENT_ANNOTATION`).
const COMPONENTS: &str = "ostree.components";

/// The plan that a manifest in a file tells.
pub fn of_manifest_file(file: &Utf8Path) -> Result<Option<Vec<Vec<String>>>> {
    let manifest = std::fs::read(file)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Manifest::parse(&bytes))
        .with_context(|| format!("reading the manifest of the previous build, {file}"))?;
    let plan = plan_of(&manifest);
    if plan.is_none() {
        tracing::warn!("{file} tells of no plan: its layers name no components");
    }
    Ok(plan)
}

/// The plan of an image.
pub fn of_image(reference: &Reference) -> Result<Option<Vec<Vec<String>>>> {
    let manifest = registry::read_manifest(reference, &Access::default())
        .with_context(|| format!("reading the previous build {reference}"))?;
    let plan = plan_of(&manifest);
    if plan.is_none() {
        tracing::warn!("{reference} is not chunked: its layers name no components");
    }
    Ok(plan)
}

/// The plan of what is at a destination already, if that is a chunked image.
pub fn of_destination(destination: &Destination) -> Option<Vec<Vec<String>>> {
    let reference = Reference::of_destination(destination)?;
    let manifest = registry::read_manifest(&reference, &Access::default()).ok()?;
    let plan = plan_of(&manifest);
    if plan.is_some() {
        tracing::info!("{reference} is there already; its plan is kept");
    }
    plan
}

/// The digests and sizes of an image's layers.
pub fn layer_sizes(reference: &Reference) -> Result<Vec<(String, u64)>> {
    let manifest = registry::read_manifest(reference, &Access::default())
        .with_context(|| format!("reading {reference} to compare with"))?;
    let layers = manifest.layers.iter();
    Ok(layers
        .map(|layer| (layer.digest.to_digest(), layer.size))
        .collect())
}

/// The components of each layer, without the one that has the commit; none when one does not say.
fn plan_of(manifest: &Manifest) -> Option<Vec<Vec<String>>> {
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
