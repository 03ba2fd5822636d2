//! An image whose layers stay in the new one: the base image that the root filesystem was built
//! from, or an earlier image of the same system.

use std::fmt;
use std::fs::File;

use anyhow::{Context, Result, ensure};

use super::Format;
use super::labels::encapsulated_layers;
use super::layer_plan::{PlannedLayer, Role};
use super::previous::told_layers;
use crate::oci::read::{Descriptor, LayerReader};
use crate::oci::{Blob, Compression, Layer, MediaType, OlderBlob, Platform, Stage};
use crate::registry::{Access, Destination, Image, Reference};
use crate::remedy::{Advised, Remedy};

/// An image whose layers may stay.
pub struct LowerImage {
    reference: Reference,
    pub(super) image: Image,
}

impl fmt::Debug for LowerImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl fmt::Display for LowerImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl LowerImage {
    /// Opens the image at `reference`.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        Ok(Self::of(reference, Image::open(reference, access)?))
    }

    /// The image that `reference` names, which is open already.
    pub(super) fn of(reference: &Reference, image: Image) -> Self {
        Self {
            reference: reference.clone(),
            image,
        }
    }

    /// Looks whether it is for the same machine.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn check_platform(&self, platform: &Platform) -> Result<()> {
        let architecture = &self.image.config.architecture;
        ensure!(
            *architecture == platform.architecture,
            "it is for {architecture}, and this one for {}; name one for the same architecture",
            platform.architecture
        );
        Ok(())
    }

    /// Whether it is an encapsulated commit.
    ///
    /// # Errors
    /// When what it says of that makes no sense.
    pub(super) fn is_encapsulated(&self) -> Result<bool> {
        Ok(encapsulated_layers(&self.image)?.is_some())
    }

    /// The layers that may stay in an image of `format`, with their places and what the image tells
    /// of them: those of an ordinary image all, those of an encapsulated one without the commit and
    /// what was put over layers of an earlier image.
    ///
    /// # Errors
    /// When none may.
    pub(super) fn content_layers(&self, format: Format) -> Result<Vec<(usize, PlannedLayer)>> {
        let told = told_layers(&self.image).into_iter().enumerate();
        if format == Format::Plain {
            return Ok(told.collect());
        }
        let count = self.image.layers().len();
        let of_commit = encapsulated_layers(&self.image)?;
        ensure!(
            of_commit == Some(count),
            Advised::new(
                Remedy::MatchFormat,
                format!(
                    "it {}, so that its layers cannot stay in one",
                    match of_commit {
                        None => "is not an encapsulated commit",
                        Some(_) => "has layers on top of its encapsulated commit",
                    }
                )
            )
        );
        ensure!(
            count > 1,
            Advised::new(
                Remedy::SplitKeptImage,
                "it has only one layer, that of its commit, which cannot stay"
            )
        );
        let content = told.skip(1);
        Ok(content
            .filter(|(_, planned)| planned.role != Some(Role::Mending))
            .collect())
    }

    /// The digest of a layer.
    pub(super) fn digest(&self, at: usize) -> String {
        self.image.layers()[at].0.digest.to_digest()
    }

    /// The diff id of a layer.
    pub(super) fn diff_id(&self, at: usize) -> String {
        self.image.layers()[at].1.to_digest()
    }

    /// Whether its blobs are where those of an image at `destination` are.
    pub(super) fn is_at(&self, destination: &Destination) -> bool {
        match (&self.reference, destination) {
            (Reference::Registry(from), Destination::Registry(to)) => from.is_in_repository_of(to),
            _ => false,
        }
    }

    /// Brings the blob of a layer to where the new image is made.
    ///
    /// # Errors
    /// When it is missing or damaged, or cannot be written.
    pub(super) fn take(&self, at: usize, stage: &Stage) -> Result<()> {
        let (descriptor, _) = &self.image.layers()[at];
        let (digest, size) = (descriptor.digest, descriptor.size);
        match &self.reference {
            Reference::Layout { path, .. } => {
                ensure!(
                    stage.take(path, digest, size, OlderBlob::Hashed)?,
                    "its blob {} is missing or damaged; copy the image again",
                    digest.to_digest()
                );
            }
            _ => stage
                .add_stream(self.image.open_blob(at)?, digest, size)
                .with_context(|| format!("copying its blob {}", digest.to_digest()))?,
        }
        Ok(())
    }

    /// Takes a blob out of where the new image is made.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn leave(&self, at: usize, stage: &Stage) -> Result<()> {
        stage.remove_blob(self.image.layers()[at].0.digest)
    }

    /// Opens a layer for reading where it is, and says which one is opened after it.
    ///
    /// # Errors
    /// When its blob is missing or of an unknown kind.
    pub(super) fn open_layer_before(
        &self,
        at: usize,
        next: Option<usize>,
    ) -> Result<LayerReader<'_>> {
        self.image.open_layer_before(at, next)
    }

    /// Opens a layer for reading where [`LowerImage::take`] has brought it.
    ///
    /// # Errors
    /// As of [`LowerImage::open_layer_before`].
    pub(super) fn open_taken(&self, at: usize, stage: &Stage) -> Result<LayerReader<'_>> {
        let (descriptor, diff_id) = &self.image.layers()[at];
        let path = stage.blob_path(descriptor.digest);
        let blob = File::open(&path).with_context(|| format!("opening {path}"))?;
        LayerReader::new(Box::new(blob), descriptor, *diff_id)
    }

    /// A layer as the new image has it, with a comment for the image's history.
    ///
    /// # Errors
    /// When its media type is none that an image of OCI can have.
    pub(super) fn layer(
        &self,
        at: usize,
        uncompressed_size: u64,
        comment: String,
    ) -> Result<Layer> {
        let (descriptor, diff_id) = &self.image.layers()[at];
        Ok(Layer {
            blob: Blob {
                digest: descriptor.digest,
                diff_id: *diff_id,
                size: descriptor.size,
                uncompressed_size,
            },
            media_type: media_type(descriptor)?,
            annotations: descriptor.annotations.clone(),
            comment,
        })
    }
}

fn media_type(descriptor: &Descriptor) -> Result<MediaType> {
    let media_type = &descriptor.media_type;
    Compression::media_type_like(media_type).with_context(|| {
        format!(
            "its layer {} has the media type '{}', which cannot stay",
            descriptor.digest.to_digest(),
            media_type.as_ref().escape_debug()
        )
    })
}
