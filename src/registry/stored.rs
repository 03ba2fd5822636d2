//! Whole images as they are stored: manifests byte for byte, with all that an index names, to be
//! copied.

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::copied::Copied;
use super::open::{Found, as_index, open_here, raw_manifest};
use super::proxy::Proxy;
use super::{Access, Reference, RegistryName};
use crate::checksum::Checksum;
use crate::oci::MediaType;
use crate::oci::read::{self, Blobs, Descriptor, JSON_LIMIT};

/// An image, or an index with its images, and where their blobs are.
pub struct Stored {
    /// The index, where there is one and all of it is asked for.
    pub index: Option<Document>,
    /// The images.
    pub images: Vec<StoredImage>,
    blobs: Box<dyn Blobs>,
}

/// A JSON document as it is stored.
#[derive(Debug, Clone)]
pub struct Document {
    /// What names it.
    pub descriptor: Value,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An image (or another artifact that an index names) as it is stored.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// Its manifest.
    pub manifest: Document,
    /// What names its config.
    pub config: Descriptor,
    /// What names its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Stored {
    /// Opens what `reference` names: one image, or `all` that an index names.
    ///
    /// # Errors
    /// As [`super::Image::open`].
    pub fn open(reference: &Reference, access: &Access, all: bool) -> Result<Self> {
        let open = || match reference {
            Reference::Layout { .. } | Reference::Archive { .. } => {
                let (blobs, tag) = open_here(reference)?;
                Self::of_layout(blobs, tag, access, all)
            }
            Reference::Registry(name) => Self::in_registry(name, access, all),
            Reference::Skopeo(name) => {
                Self::of_layout(Box::new(Copied::new(name)?), None, access, false)
            }
        };
        open().with_context(|| format!("opening the image {reference}"))
    }

    fn of_layout(
        blobs: Box<dyn Blobs>,
        tag: Option<&str>,
        access: &Access,
        all: bool,
    ) -> Result<Self> {
        let architecture = access.architecture.as_deref();
        let mut index = None;
        let mut images = Vec::new();
        let top = read::find_manifest(&blobs.index_json()?, tag, architecture)?;
        if all && top.is_index() {
            let bytes = read::read_small_blob(blobs.as_ref(), &top, JSON_LIMIT)?;
            for child in children(&bytes)? {
                let manifest = read::read_small_blob(blobs.as_ref(), &child, JSON_LIMIT)?;
                images.push(StoredImage::parse(manifest, Some(&child))?);
            }
            index = Some(Document::new(bytes, Some(&top)));
        } else {
            let manifest = read::read_manifest(blobs.as_ref(), tag, architecture)?;
            images.push(StoredImage::parse(manifest.raw, None)?);
        }
        Ok(Self {
            index,
            images,
            blobs,
        })
    }

    fn in_registry(name: &RegistryName, access: &Access, all: bool) -> Result<Self> {
        if !all {
            let found = Found::open(&Reference::Registry(name.clone()), access)?;
            return Ok(Self {
                index: None,
                images: vec![StoredImage::parse(found.manifest.raw, None)?],
                blobs: found.blobs.context("there is nothing to read blobs from")?,
            });
        }
        let raw = raw_manifest(name, access)?;
        let (mut index, mut images) = (None, Vec::new());
        if as_index(&raw).is_none() {
            images.push(StoredImage::parse(raw, None)?);
        } else {
            for child in children(&raw)? {
                let manifest = raw_manifest(&name.at(child.digest), access)?;
                images.push(StoredImage::parse(manifest, Some(&child))?);
            }
            index = Some(Document::new(raw, None));
        }
        let Some(first) = images.first() else {
            bail!("{name} is an index of no image");
        };
        // Blobs are a repository's, whatever image they are asked for with.
        let proxy = Proxy::open_registry(&name.at(first.digest()), access)?;
        for blob in images.iter().flat_map(StoredImage::blobs) {
            proxy.know(blob);
        }
        Ok(Self {
            index,
            images,
            blobs: Box::new(proxy),
        })
    }

    /// Reads a small blob, such as a config, verified.
    ///
    /// # Errors
    /// When it is missing, too large or damaged.
    pub fn read_small(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        read::read_small_blob(self.blobs.as_ref(), blob, JSON_LIMIT)
    }

    /// Opens a blob; it is not verified.
    ///
    /// # Errors
    /// When it is missing.
    pub fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        self.blobs.open(blob.digest)
    }
}

impl Document {
    /// With what names it; where nothing does, with what it says of itself.
    pub fn new(bytes: Vec<u8>, named_by: Option<&Descriptor>) -> Self {
        // A manifest that does not say what it is is an image's.
        let mut descriptor = match named_by {
            Some(descriptor) => descriptor.raw.clone(),
            None => {
                let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let media_type = value["mediaType"]
                    .as_str()
                    .unwrap_or(MediaType::ImageManifest.as_ref());
                json!({"mediaType": media_type})
            }
        };
        descriptor["digest"] = Checksum::of(&bytes).to_digest().into();
        descriptor["size"] = bytes.len().into();
        Self { descriptor, bytes }
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Checksum {
        Checksum::of(&self.bytes)
    }
}

impl StoredImage {
    /// Reads a manifest, of an image or of another artifact.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: Vec<u8>, named_by: Option<&Descriptor>) -> Result<Self> {
        let read = || -> Result<(Descriptor, Vec<Descriptor>)> {
            let value: Value = serde_json::from_slice(&bytes)?;
            let layers = value["layers"].as_array().context("it has no 'layers'")?;
            let layers = layers.iter().map(Descriptor::parse);
            Ok((
                Descriptor::parse(&value["config"])?,
                layers.collect::<Result<_>>()?,
            ))
        };
        let (config, layers) = read().context("the manifest cannot be read")?;
        Ok(Self {
            manifest: Document::new(bytes, named_by),
            config,
            layers,
        })
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Checksum {
        self.manifest.digest()
    }

    /// What names the config and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.config].into_iter().chain(&self.layers)
    }
}

/// What an index names.
fn children(index: &[u8]) -> Result<Vec<Descriptor>> {
    let value: Value = serde_json::from_slice(index).context("the index cannot be read")?;
    let manifests = value["manifests"].as_array();
    let manifests = manifests.context("the index has no list of manifests")?;
    let children = manifests.iter().map(Descriptor::parse);
    let children: Vec<Descriptor> = children.collect::<Result<_>>()?;
    if let Some(nested) = children.iter().find(|child| child.is_index()) {
        bail!(
            "the index names another index, {}; name that one",
            nested.digest.to_digest()
        );
    }
    Ok(children)
}
