//! The image that a root filesystem was built from: its layers stay below those of the new image,
//! byte for byte, so that all images of one base share its blobs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

use anyhow::{Context, Result, bail, ensure};

use super::labels::encapsulated_layers;
use super::layer_plan::{PlannedLayer, Role};
use super::previous::told_layers;
use super::system::{Packages, System};
use super::times::Times;
use super::watched::WatchedLayer;
use super::{Format, ImageOptions, write};
use crate::layers::{Compared, LowerLayers, Overlay};
use crate::oci::read::{Descriptor, LayerReader};
use crate::oci::{Blob, Compression, Layer, Stage};
use crate::progress::Progress;
use crate::registry::{Access, Destination, Image, Reference};

/// An image whose layers stay.
pub struct BaseImage {
    reference: Reference,
    image: Image,
}

impl fmt::Debug for BaseImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

/// The layers of the base image, and what is to be put over them.
pub struct Below {
    /// Those that stay, the lowest first.
    pub kept: Vec<KeptLayer>,
    /// What they lack, and what they have that is no more.
    pub overlay: Overlay,
}

/// A layer that stays.
#[derive(Debug)]
pub struct KeptLayer {
    /// The layer as the new image has it.
    pub layer: Layer,
    /// What the base image tells of it.
    pub planned: PlannedLayer,
}

impl BaseImage {
    /// Opens the image at `reference`.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let image = Image::open(reference, access).context("opening the base image")?;
        Ok(Self {
            reference: reference.clone(),
            image,
        })
    }

    /// The layers that stay in an image of `format`: those of an ordinary image all, those of an
    /// encapsulated one without the commit and what was put over layers of an earlier base.
    fn kept(&self, format: Format) -> Result<Vec<(usize, PlannedLayer)>> {
        let mut told = told_layers(&self.image);
        if format == Format::Plain {
            return Ok(told.into_iter().enumerate().collect());
        }
        let name = &self.reference;
        let count = self.image.layers().len();
        let of_commit = encapsulated_layers(&self.image)?;
        ensure!(
            of_commit == Some(count),
            "the base image {name} {}, so that its layers cannot stay in one; name an image that was built with --format ostree, or build with --format plain",
            match of_commit {
                None => "is no encapsulated commit",
                Some(_) => "has layers on top of its encapsulated commit",
            }
        );
        ensure!(
            count > 1,
            "the base image {name} has only one layer, that of its commit, which cannot stay; build it with --max-layers 2 or more"
        );
        let content = told.drain(1..).enumerate();
        let content = content.map(|(at, planned)| (at + 1, planned));
        Ok(content
            .filter(|(_, planned)| planned.role != Some(Role::Mending))
            .collect())
    }

    /// Brings the blob of a layer to where the new image is made, unless it stays in the repository
    /// that this goes to. Whether it is there now.
    fn take(&self, at: usize, stage: &Stage, destination: &Destination) -> Result<bool> {
        let (descriptor, _) = &self.image.layers()[at];
        let (digest, size) = (descriptor.digest, descriptor.size);
        match (&self.reference, destination) {
            (Reference::Registry(from), Destination::Registry(to))
                if from.is_in_repository_of(to) =>
            {
                return Ok(false);
            }
            (Reference::Layout { path, .. }, _) => {
                ensure!(
                    stage.take(path, digest, size)?,
                    "its blob {} is missing or damaged; copy the image again",
                    digest.to_digest()
                );
            }
            _ => stage
                .add_stream(self.image.open_blob(at)?, digest, size)
                .with_context(|| format!("copying its blob {}", digest.to_digest()))?,
        }
        Ok(true)
    }

    fn open_layer<'a>(&'a self, at: usize, taken: Option<&Stage>) -> Result<LayerReader<'a>> {
        let Some(stage) = taken else {
            return self.image.open_layer(at);
        };
        let (descriptor, diff_id) = &self.image.layers()[at];
        let path = stage.blob_path(descriptor.digest);
        let blob = File::open(&path).with_context(|| format!("opening {path}"))?;
        LayerReader::new(Box::new(blob), descriptor, *diff_id)
    }

    fn layer(&self, at: usize, uncompressed_size: u64) -> Result<Layer> {
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
            comment: "layer of the base image".to_owned(),
        })
    }
}

fn media_type(descriptor: &Descriptor) -> Result<&'static str> {
    let media_type = &descriptor.media_type;
    Compression::media_type_like(media_type).with_context(|| {
        format!(
            "its layer {} has the media type '{}', which cannot stay",
            descriptor.digest.to_digest(),
            media_type.escape_debug()
        )
    })
}

impl Below {
    /// Reads the layers of the base image that `options` names, if it names one, and compares them
    /// with `system`. Their blobs are brought to `stage`, where there is one.
    ///
    /// # Errors
    /// When the base image is for another machine, its layers cannot stay in an image of that
    /// format, or one cannot be read.
    pub fn of(
        system: &System,
        packages: &Packages,
        options: &ImageOptions,
        stage: Option<&Stage>,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(base) = &options.base_image else {
            return Ok(None);
        };
        let (of_base, platform) = (
            &base.image.config.architecture,
            write::platform(options, packages)?,
        );
        if *of_base != platform.architecture {
            bail!(
                "the base image {} is for {of_base}, and this one for {}; name one for the same architecture",
                base.reference,
                platform.architecture
            );
        }
        progress.begin("reading the base image", 0);
        let (kept, lower) = read(base, options, stage, progress)
            .with_context(|| format!("keeping the layers of the base image {}", base.reference))?;
        progress.end();
        let ownership = &packages.ownership;
        let times = Times::new(&system.tree, ownership, options.times, system.timestamp());
        let overlay = lower.overlay(&Compared {
            tree: &system.tree,
            objects: &system.objects,
            sharing: options.format.sharing(),
            mtime: &|id| times.of(id),
        })?;
        let tree = &system.tree;
        let below = tree.ids().filter(|id| overlay.is_below(*id)).count();
        tracing::info!(
            "{} layers of the base image stay; they have {below} of {} entries as they are, and {} paths that are hidden",
            kept.len(),
            tree.len(),
            overlay.hidden()
        );
        Ok(Some(Self { kept, overlay }))
    }

    /// How many layers of the image are not planned because of this.
    pub fn layers(&self) -> usize {
        self.kept.len() + usize::from(self.overlay.needs_mending())
    }
}

fn read(
    base: &BaseImage,
    options: &ImageOptions,
    stage: Option<&Stage>,
    progress: &dyn Progress,
) -> Result<(Vec<KeptLayer>, LowerLayers)> {
    let mut lower = LowerLayers::default();
    let mut kept = Vec::new();
    for (at, planned) in base.kept(options.format)? {
        let name = base.image.layers()[at].0.digest.to_digest();
        let taken = match stage {
            Some(stage) => base.take(at, stage, &options.destination)?.then_some(stage),
            None => None,
        };
        let mut apply = || {
            let layer = WatchedLayer::new(base.open_layer(at, taken)?, at, &name, progress);
            lower.apply(layer)?.finish()
        };
        let size = apply().with_context(|| format!("reading layer {at} ({name})"))?;
        kept.push(KeptLayer {
            layer: base.layer(at, size)?,
            planned: PlannedLayer {
                role: Some(Role::Base),
                diff_id: Some(base.image.layers()[at].1.to_digest()),
                uncompressed_size: Some(size),
                ..planned
            },
        });
    }
    Ok((kept, lower))
}

/// What an image says of the one that it was built from (image-spec, annotations.md): its name and
/// the digest of its manifest.
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The image that an image with these annotations was built from; none where they do not tell.
///
/// One without a registry of its own is in the storage of podman and buildah.
///
/// # Errors
/// When they name what cannot be an image.
pub fn base_of(annotations: &BTreeMap<String, String>) -> Result<Option<Reference>> {
    let Some(name) = annotations.get(BASE_NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let context = || format!("the annotation {BASE_NAME} is '{}'", name.escape_debug());
    if crate::registry::has_transport(name) {
        return name.parse().map(Some).with_context(context);
    }
    let reference = match (name.starts_with("localhost/"), annotations.get(BASE_DIGEST)) {
        (true, _) => format!("containers-storage:{name}"),
        (false, None) => format!("docker://{name}"),
        (false, Some(digest)) => {
            let (last, tag) = (name.rfind('/'), name.rfind(':'));
            let end = tag.filter(|tag| last.is_none_or(|last| *tag > last));
            format!("docker://{}@{digest}", &name[..end.unwrap_or(name.len())])
        }
    };
    reference.parse().map(Some).with_context(context)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base(name: &str, digest: Option<&str>) -> Option<String> {
        let mut annotations = BTreeMap::from([(BASE_NAME.to_owned(), name.to_owned())]);
        annotations.extend(digest.map(|digest| (BASE_DIGEST.to_owned(), digest.to_owned())));
        base_of(&annotations).unwrap().map(|base| base.to_string())
    }

    #[test]
    fn annotations_name_the_base() {
        let digest = crate::checksum::Checksum::of(b"").to_digest();
        let pinned = |name: &str| base(name, Some(&digest)).unwrap();
        assert_eq!(
            pinned("docker.io/library/debian:trixie"),
            format!("docker://docker.io/library/debian@{digest}")
        );
        assert_eq!(
            pinned("host:5000/a"),
            format!("docker://host:5000/a@{digest}")
        );
        assert_eq!(pinned("localhost/a:b"), "containers-storage:localhost/a:b");
        assert_eq!(base("quay.io/a:b", None).unwrap(), "docker://quay.io/a:b");
        assert_eq!(base("", None), None);
        assert_eq!(base_of(&BTreeMap::new()).unwrap(), None);
        let bad = BTreeMap::from([(BASE_NAME.to_owned(), "A/B C".to_owned())]);
        assert!(base_of(&bad).is_err());
    }
}
