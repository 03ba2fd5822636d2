//! Images opened for reading, wherever they are. Manifests and configs are those that are stored,
//! byte for byte; reading them fetches no layer.

use std::fs;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use serde_json::Value;

use super::copied::Copied;
use super::failure::{Failure, FailureKind};
use super::proxy::Proxy;
use super::skopeo;
use super::{Access, Reference, RegistryName};
use crate::checksum::Checksum;
use crate::oci::read::{
    self, Archive, Blobs, Descriptor, ImageConfig, JSON_LIMIT, LayerReader, Layout, Manifest,
};
use crate::oci::{Platform, REF_NAME};

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
    /// When there is none, it cannot be reached, or its manifest or config is damaged. What is
    /// worth telling apart is a [`Failure`].
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let context = || format!("opening the image {reference}");
        Self::open_inner(reference, access).with_context(context)
    }

    fn open_inner(reference: &Reference, access: &Access) -> Result<Self> {
        let found = Found::open(reference, access)?;
        let config = found.parsed_config()?;
        let (layers, blobs) = match found.blobs {
            Some(blobs) => {
                let layers = layers(&found.manifest, &config)?;
                (layers, blobs)
            }
            // Only the storage of containers and what skopeo reads of itself.
            None => {
                let Reference::Skopeo(name) = reference else {
                    bail!("there is nothing to read the layers from");
                };
                blobs_elsewhere(name, &found.manifest, &config)?
            }
        };
        Ok(Self {
            manifest: found.manifest,
            config,
            layers,
            blobs,
        })
    }

    /// The layers, bottom first, with their diff ids.
    pub fn layers(&self) -> &[(Descriptor, Checksum)] {
        &self.layers
    }

    /// Opens the blob of layer `at` as it is stored; it is not verified.
    ///
    /// # Errors
    /// When it is missing.
    pub fn open_blob(&self, at: usize) -> Result<Box<dyn Read + Send + '_>> {
        self.blobs.open(self.layers[at].0.digest)
    }

    /// Opens layer `at` for reading: uncompressed, and verified as it passes.
    ///
    /// # Errors
    /// When its blob is missing or of an unknown kind.
    pub fn open_layer(&self, at: usize) -> Result<LayerReader<'_>> {
        let (layer, diff_id) = &self.layers[at];
        read::open_layer(self.blobs.as_ref(), layer, *diff_id)
    }

    /// Opens layer `at` and says which one is opened after it, so that fetching that may begin
    /// before this one has been read.
    ///
    /// # Errors
    /// As of [`Image::open_layer`].
    pub fn open_layer_before(&self, at: usize, next: Option<usize>) -> Result<LayerReader<'_>> {
        let reader = self.open_layer(at)?;
        if let Some((next, _)) = next.and_then(|next| self.layers.get(next)) {
            self.blobs.prefetch(next.digest);
        }
        Ok(reader)
    }
}

/// The manifest and the config of an image, without anything that leads to its layers.
#[derive(Debug)]
pub struct Description {
    /// What it consists of.
    pub manifest: Manifest,
    /// The config as it is stored.
    pub config: Vec<u8>,
}

/// Reads the manifest and the config of an image and nothing of its layers.
///
/// # Errors
/// With a [`Failure`] that says why, when it is missing, out of reach or damaged.
pub fn describe(reference: &Reference, access: &Access) -> Result<Description> {
    let found = Found::open(reference, access);
    let found = found.with_context(|| format!("opening the image {reference}"))?;
    Ok(Description {
        manifest: found.manifest,
        config: found.config,
    })
}

/// Reads the config of an image and nothing of its layers.
///
/// # Errors
/// As [`Image::open`].
pub fn read_config(reference: &Reference, access: &Access) -> Result<Vec<u8>> {
    Ok(describe(reference, access)?.config)
}

/// Reads the manifest of an image and nothing of its layers.
///
/// # Errors
/// As [`Image::open`].
pub fn read_manifest(reference: &Reference, access: &Access) -> Result<Manifest> {
    Ok(describe(reference, access)?.manifest)
}

/// A manifest and a config, and where layers come from, where that is open already.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    config: Vec<u8>,
    pub(super) blobs: Option<Box<dyn Blobs>>,
}

impl Found {
    pub(super) fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let found = match reference {
            Reference::Layout { .. } | Reference::Archive { .. } => Self::here(reference, access)?,
            Reference::Registry(name) => Self::in_registry(name, access)?,
            Reference::Skopeo(name) => Self::elsewhere(name)?,
        };
        found.check_architecture(access)?;
        Ok(found)
    }

    fn here(reference: &Reference, access: &Access) -> Result<Self> {
        let (blobs, tag) = open_here(reference)?;
        let mut architecture = access.architecture.as_deref();
        if access.takes_any_alone && read::is_alone(&blobs.index_json()?, tag)? {
            architecture = None;
        }
        let manifest = read::read_manifest(blobs.as_ref(), tag, architecture);
        let manifest = manifest.map_err(|error| match error.is::<read::NoImageForPlatform>() {
            true => Failure::new(FailureKind::OtherArchitecture, format!("{error:#}")).into(),
            false => error,
        })?;
        let config = read::read_small_blob(blobs.as_ref(), &manifest.config, JSON_LIMIT)?;
        Ok(Self {
            manifest,
            config,
            blobs: Some(blobs),
        })
    }

    /// By one skopeo, unless the manifest is not what that says: it makes OCI's of docker's.
    fn in_registry(name: &RegistryName, access: &Access) -> Result<Self> {
        let name = match &access.architecture {
            Some(architecture) => &chosen(name, architecture, access)?,
            None => name,
        };
        let proxy = Proxy::open_registry(name, access)?;
        let digest = Checksum::from_digest(proxy.digest())?;
        let manifest = match Checksum::of(proxy.manifest()) == digest {
            true => Manifest::parse(proxy.manifest())?,
            false => Manifest::parse(&raw_manifest(&name.at(digest), access)?)?,
        };
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            proxy.know(blob);
        }
        let config = read::read_small_blob(&proxy, &manifest.config, JSON_LIMIT)?;
        Ok(Self {
            manifest,
            config,
            blobs: Some(Box::new(proxy)),
        })
    }

    fn elsewhere(name: &str) -> Result<Self> {
        let manifest = skopeo::inspect_elsewhere(name, &["--raw"])?;
        let config = skopeo::inspect_elsewhere(name, &["--raw", "--config"])?;
        Ok(Self {
            manifest: Manifest::parse(manifest.as_bytes())?,
            config: config.into_bytes(),
            blobs: None,
        })
    }

    fn parsed_config(&self) -> Result<ImageConfig> {
        ImageConfig::parse(&self.config).with_context(|| {
            let digest = self.manifest.config.digest.to_digest();
            format!("reading the config {digest}")
        })
    }

    /// An image alone is for one architecture; an index has been asked for the right one.
    fn check_architecture(&self, access: &Access) -> Result<()> {
        let Some(wanted) = &access.architecture else {
            return Ok(());
        };
        if access.takes_any_alone {
            return Ok(());
        }
        let wanted = Platform::from_name(wanted)?.architecture;
        let config = self.parsed_config()?;
        if config.architecture == wanted {
            return Ok(());
        }
        let message = format!("the image is for {}, not for {wanted}", config.architecture);
        Err(Failure::new(FailureKind::OtherArchitecture, message).into())
    }
}

/// Opens a layout or an archive; with the image's name in it.
pub(super) fn open_here(reference: &Reference) -> Result<(Box<dyn Blobs>, Option<&str>)> {
    let (blobs, tag): (Box<dyn Blobs>, _) = match reference {
        Reference::Layout { path, tag } => {
            require_there(path)?;
            (Box::new(Layout::new(path)?), tag.as_deref())
        }
        Reference::Archive { path, tag } => {
            require_there(path)?;
            (Box::new(Archive::new(path)?), tag.as_deref())
        }
        Reference::Registry(_) | Reference::Skopeo(_) => {
            bail!("{reference} is neither a layout nor an archive")
        }
    };
    require_named(&blobs.index_json()?, tag)?;
    Ok((blobs, tag))
}

/// A layout (or an archive) that is not there, or an empty directory for one, has no image: that is
/// a failure of a kind of its own.
fn require_there(path: &Utf8Path) -> Result<()> {
    let missing = |what| Failure::new(FailureKind::Missing, format!("{path} {what}")).into();
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(missing("is not there: No such file or directory"))
        }
        Ok(found) if found.is_dir() => match fs::read_dir(path).map(|mut d| d.next().is_none()) {
            Ok(true) => Err(missing(
                "is an empty directory: it is not an OCI layout yet",
            )),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The same for a name that no image of an index has.
fn require_named(index: &Value, tag: Option<&str>) -> Result<()> {
    let Some(images) = index["manifests"].as_array() else {
        return Ok(());
    };
    let name = |image: &Value| image["annotations"][REF_NAME].as_str() == tag;
    if tag.is_none() && !images.is_empty() || images.iter().any(name) {
        return Ok(());
    }
    match read::find_manifest(index, tag, None) {
        Err(e) => Err(Failure::new(FailureKind::Missing, format!("{e:#}")).into()),
        Ok(_) => Ok(()),
    }
}

/// The manifest, or index, of that name, as the registry has it.
pub(super) fn raw_manifest(name: &RegistryName, access: &Access) -> Result<Vec<u8>> {
    let raw = skopeo::inspect(name, access, &["--raw"])?.into_bytes();
    if let Some(wanted) = name.digest() {
        let found = Checksum::of(&raw);
        if found != wanted {
            let message = format!(
                "the registry {} gives a manifest with the digest {} for {name}",
                name.host(),
                found.to_digest()
            );
            return Err(Failure::new(FailureKind::Damaged, message).into());
        }
    }
    Ok(raw)
}

/// The name of the image for that architecture, where `name` is an index; else `name`.
fn chosen(name: &RegistryName, architecture: &str, access: &Access) -> Result<RegistryName> {
    let mut name = name.clone();
    // An index may name indexes.
    for _ in 0..4 {
        let raw = raw_manifest(&name, access)?;
        let Some(index) = as_index(&raw) else {
            return Ok(name.at(Checksum::of(&raw)));
        };
        let image = read::choose_platform(&index, Some(architecture))
            .map_err(|e| Failure::new(FailureKind::OtherArchitecture, format!("{name}: {e:#}")))?;
        name = name.at(image.digest);
    }
    bail!("there are too many indexes on the way to the image's manifest")
}

/// What these bytes are as an index (or docker's manifest list); none when they are something else.
pub(super) fn as_index(raw: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(raw).ok()?;
    value["manifests"].is_array().then_some(value)
}

fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<(Descriptor, Checksum)>> {
    let layers = read::layers_with_diff_ids(manifest, config)?.into_iter();
    Ok(layers.map(|(layer, id)| (layer.clone(), id)).collect())
}

type Opened = (Vec<(Descriptor, Checksum)>, Box<dyn Blobs>);

/// The layers of what skopeo calls `name`. The storage of containers has them in another form than
/// its manifests say: those of a copy are read then.
fn blobs_elsewhere(name: &str, manifest: &Manifest, config: &ImageConfig) -> Result<Opened> {
    if Copied::is_for(name) {
        let copied = Copied::new(name)?;
        let manifest = read::read_manifest(&copied, None, None)?;
        return Ok((layers(&manifest, config)?, Box::new(copied)));
    }
    let proxy = Proxy::open(name)?;
    // Its own manifest, if need be: some transports make one that has other names for layers.
    let manifest = match manifest.layers.is_empty() {
        true => &Manifest::parse(proxy.manifest())?,
        false => manifest,
    };
    for layer in &manifest.layers {
        proxy.know(layer);
    }
    Ok((layers(manifest, config)?, Box::new(proxy)))
}
