//! What is in an image: its layers, its packages, its files, read from its layers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::image_components::{FileOwners, ImageComponent};
use super::image_files::{DatabaseFiles, Files, Reader, seen_files};
use super::labels::{self, encapsulated_layers};
use super::previous::told_layers;
use super::read_ahead::Layers;
use super::write::PLAIN_COMMIT;
use crate::dpkg::{Database, Package};
use crate::progress::Silent;
use crate::registry::{Access, Image, Reference};

pub use super::image_files::ImageFile;

/// What an image tells of itself.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// The digest of the manifest.
    pub digest: String,
    /// When it was made.
    pub created: Option<String>,
    /// What machine it is for.
    pub architecture: String,
    /// The commit that it carries, or of a plain image of ours would be.
    pub commit: Option<String>,
    /// Whether it is an encapsulated commit.
    pub encapsulated: bool,
    /// Its layers, the lowest first.
    pub layers: Vec<InspectedLayer>,
    /// Its components as its files and dpkg's database tell them, by layer, then the largest first.
    pub components: Vec<ImageComponent>,
    /// Its packages, by name.
    pub packages: Vec<InspectedPackage>,
}

/// A layer of an image.
#[derive(Debug, Clone, Serialize)]
pub struct InspectedLayer {
    /// Its digest.
    pub digest: String,
    /// Bytes as stored.
    pub size: u64,
    /// Its components, as far as the image tells.
    pub components: Vec<String>,
    /// The chance that it changes until the next pull, as far as the image tells.
    pub chance: Option<f64>,
    /// Bytes of files and links in it, before compression, that layers above it replace or hide, as
    /// far as the image tells.
    pub dead_size: Option<u64>,
    /// How many files are seen from it.
    pub files: usize,
    /// Bytes of those.
    pub file_bytes: u64,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InspectedPackage {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// Its source.
    pub source: String,
    /// The version of that.
    pub source_version: String,
}

/// An image with its files.
pub struct InspectedImage {
    /// What it tells of itself.
    pub summary: Inspected,
    /// Its files and links by path, as the system sees them (`etc`, not `usr/etc`, where there is
    /// only one).
    pub files: BTreeMap<String, ImageFile>,
    /// Which component and which package has each of them.
    pub owners: FileOwners,
}

/// Reads an image whole.
///
/// # Errors
/// When it cannot be opened, or a layer is damaged.
pub fn inspect(reference: &Reference, access: &Access) -> Result<InspectedImage> {
    let image = Image::open(reference, access)?;
    read(&image).with_context(|| format!("reading the image {reference}"))
}

fn read(image: &Image) -> Result<InspectedImage> {
    let (mut merged, mut reader) = (Files::default(), Reader::default());
    let all = 0..image.layers().len();
    std::thread::scope(|scope| {
        let open = |at, next| image.open_layer_before(at, next);
        let layers = Layers::start(scope, all, open, &Silent)?;
        for (at, (descriptor, _)) in image.layers().iter().enumerate() {
            let name = descriptor.digest.to_digest();
            let mut read = || merged.apply(layers.next(at, &name)?, &mut reader)?.finish();
            read().with_context(|| format!("reading layer {at}, {name}"))?;
        }
        anyhow::Ok(())
    })?;
    merged.keep_links(&mut reader)?;
    merged.move_etc();
    let files = seen_files(&merged)?;
    let encapsulated = encapsulated_layers(image)?.is_some();
    let labels = &image.config.labels;
    let commit = labels.get(labels::COMMIT).filter(|_| encapsulated);
    let read = DatabaseFiles(&merged);
    let database = Database::load(&read, None).context("reading dpkg's database")?;
    let layers = layers(image, &files);
    let owners = FileOwners::find(&files, database.as_ref(), &read, &layers)?;
    let summary = Inspected {
        digest: image.manifest.digest.to_digest(),
        created: image.config.created.clone(),
        architecture: image.config.architecture.clone(),
        encapsulated,
        commit: commit
            .or_else(|| image.manifest.annotations.get(PLAIN_COMMIT))
            .cloned(),
        components: owners.components(&files, &layers),
        layers,
        packages: database.map_or_else(Vec::new, |database| packages(&database.packages)),
    };
    Ok(InspectedImage {
        summary,
        owners,
        files,
    })
}

/// The layers with what the label of the plan, or the annotations, tell of them.
fn layers(image: &Image, files: &BTreeMap<String, ImageFile>) -> Vec<InspectedLayer> {
    let told = image.layers().iter().zip(told_layers(image));
    let told = told.map(|((descriptor, _), planned)| InspectedLayer {
        digest: descriptor.digest.to_digest(),
        size: descriptor.size,
        components: planned.components,
        chance: planned.chance,
        dead_size: planned.dead_size,
        files: 0,
        file_bytes: 0,
    });
    let mut layers: Vec<InspectedLayer> = told.collect();
    for file in files.values() {
        if let Some(layer) = layers.get_mut(file.layer) {
            layer.files += 1;
            layer.file_bytes += file.size;
        }
    }
    layers
}

/// What is told of installed packages, by name.
pub(super) fn packages(installed: &[Package]) -> Vec<InspectedPackage> {
    let packages = installed.iter().map(|package| InspectedPackage {
        name: package.name().to_owned(),
        architecture: package.architecture().to_owned(),
        version: package.version().to_owned(),
        source: package.source().to_owned(),
        source_version: package.source_version().to_owned(),
    });
    let mut packages: Vec<InspectedPackage> = packages.collect();
    packages.sort();
    packages
}
