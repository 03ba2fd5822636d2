//! Images opened for reading, wherever they are.

use anyhow::{Context, Result};
use camino::Utf8PathBuf;

use super::Reference;
use super::copied::Copied;
use super::proxy::Proxy;
use crate::checksum::Checksum;
use crate::oci::read::{
    self, Archive, Blobs, Descriptor, ImageConfig, JSON_LIMIT, LayerReader, Layout, Manifest,
};

/// What a registry asks for.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// File with credentials (containers-auth.json(5)).
    pub authfile: Option<Utf8PathBuf>,
    /// Directory with certificates (containers-certs.d(5)).
    pub cert_dir: Option<Utf8PathBuf>,
    /// Whether certificates are checked; none: as the configuration of containers says.
    pub tls_verify: Option<bool>,
}

/// An image whose manifest and config have been read.
pub struct Image {
    /// What it consists of.
    pub manifest: Manifest,
    /// What it says of itself.
    pub config: ImageConfig,
    layers: Vec<(Descriptor, Checksum)>,
    blobs: Box<dyn Blobs>,
}

impl Image {
    /// Opens the image that `reference` names.
    ///
    /// # Errors
    /// When there is none, it cannot be reached, or its manifest or config is damaged.
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let context = || format!("opening the image {reference}");
        Self::open_inner(reference, access).with_context(context)
    }

    fn open_inner(reference: &Reference, access: &Access) -> Result<Self> {
        let (blobs, tag) = match Stored::open(reference)? {
            Stored::Here(blobs, tag) => (blobs, tag),
            Stored::Elsewhere(name) if Copied::is_for(name) => {
                (Box::new(Copied::new(name)?) as Box<dyn Blobs>, None)
            }
            Stored::Elsewhere(name) => {
                let proxy = Proxy::open(name, access)?;
                let manifest = Manifest::parse(proxy.manifest())?;
                let config = ImageConfig::parse(proxy.config())?;
                proxy.know(&manifest);
                return Self::new(manifest, config, Box::new(proxy));
            }
        };
        let manifest = read::read_manifest(blobs.as_ref(), tag, None)?;
        let config = read::read_small_blob(blobs.as_ref(), &manifest.config, JSON_LIMIT)?;
        let config = ImageConfig::parse(&config).with_context(|| {
            format!("reading the config {}", manifest.config.digest.to_digest())
        })?;
        Self::new(manifest, config, blobs)
    }

    fn new(manifest: Manifest, config: ImageConfig, blobs: Box<dyn Blobs>) -> Result<Self> {
        let layers = read::layers_with_diff_ids(&manifest, &config)?;
        let layers = layers.into_iter().map(|(layer, id)| (layer.clone(), id));
        Ok(Self {
            layers: layers.collect(),
            manifest,
            config,
            blobs,
        })
    }

    /// The layers, bottom first, with their diff ids.
    pub fn layers(&self) -> &[(Descriptor, Checksum)] {
        &self.layers
    }

    /// Opens layer `at` for reading: uncompressed, and verified as it passes.
    ///
    /// # Errors
    /// When its blob is missing or of an unknown kind.
    pub fn open_layer(&self, at: usize) -> Result<LayerReader<'_>> {
        let (layer, diff_id) = &self.layers[at];
        read::open_layer(self.blobs.as_ref(), layer, *diff_id)
    }
}

/// Where an image is.
enum Stored<'a> {
    /// In a layout or an archive, under that name.
    Here(Box<dyn Blobs>, Option<&'a str>),
    /// Where skopeo finds it by that name.
    Elsewhere(&'a str),
}

impl<'a> Stored<'a> {
    fn open(reference: &'a Reference) -> Result<Self> {
        Ok(match reference {
            Reference::Layout { path, tag } => {
                Self::Here(Box::new(Layout::new(path)?), tag.as_deref())
            }
            Reference::Archive { path, tag } => {
                Self::Here(Box::new(Archive::new(path)?), tag.as_deref())
            }
            Reference::Skopeo(name) => Self::Elsewhere(name),
        })
    }
}

/// Reads the config of an image and nothing of its layers.
///
/// # Errors
/// As [`Image::open`].
pub fn read_config(reference: &Reference, access: &Access) -> Result<Vec<u8>> {
    let read = || match Stored::open(reference)? {
        Stored::Here(blobs, tag) => {
            let manifest = read::read_manifest(blobs.as_ref(), tag, None)?;
            read::read_small_blob(blobs.as_ref(), &manifest.config, JSON_LIMIT)
        }
        Stored::Elsewhere(name) => Ok(Proxy::open(name, access)?.config().to_vec()),
    };
    read().with_context(|| format!("opening the image {reference}"))
}

/// Reads the manifest of an image and nothing else.
///
/// # Errors
/// As [`Image::open`].
pub fn read_manifest(reference: &Reference, access: &Access) -> Result<Manifest> {
    let read = || match Stored::open(reference)? {
        Stored::Here(blobs, tag) => read::read_manifest(blobs.as_ref(), tag, None),
        Stored::Elsewhere(name) => Manifest::parse(Proxy::open(name, access)?.manifest()),
    };
    read().with_context(|| format!("opening the image {reference}"))
}
