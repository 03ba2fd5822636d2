//! Images from one place to another: pushed to a registry, pulled from one, or gathered in an
//! index. Manifests stay byte for byte; only for a registry are layers compressed that are not.

use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroUsize;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::Output;
use crate::checksum::Checksum;
use crate::oci::read::{self, Descriptor};
use crate::oci::{BaseConfig, Compression, MediaType, OlderBlob, Platform, Stage, spec};
use crate::parallel;
use crate::progress::{Part, Progress};
use crate::registry::{self, Access, Destination, Document, Reference, Stored, StoredImage};

/// Bytes that are copied at once.
const BUFFER: usize = 256 * 1024;
/// How layers are compressed for a registry where they are not: gzip, which every client reads.
const FOR_REGISTRIES: Compression = Compression::Gzip(6);

/// What to copy, and where.
#[derive(Debug)]
pub struct TransferOptions {
    /// The image.
    pub source: Reference,
    /// Where it goes.
    pub destination: Destination,
    /// How registries are reached.
    pub access: Access,
    /// Whether all images of an index are copied.
    pub all: bool,
    /// How many threads compress.
    pub threads: NonZeroUsize,
}

/// What was copied.
#[derive(Debug, Serialize)]
pub struct Transferred {
    /// The digest of the manifest, or of the index, at the destination.
    pub digest: String,
    /// How many images it has.
    pub images: usize,
    /// The layers of the images, each once.
    pub layers: Vec<TransferredLayer>,
}

/// A layer that was copied, or was there.
#[derive(Debug, Serialize)]
pub struct TransferredLayer {
    /// Its digest at the destination.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Whether it was sent or fetched; else the destination had it.
    pub transferred: bool,
}

/// Copies an image, or all of an index.
///
/// # Errors
/// When it cannot be read or written; what was at the destination is untouched then, but for blobs
/// in a registry.
pub fn transfer(options: &TransferOptions, progress: &dyn Progress) -> Result<Transferred> {
    let (source, access) = (&options.source, &options.access);
    let output = Output::prepare(&options.destination, access)?;
    if let (Reference::Registry(from), Destination::Registry(to)) = (source, &options.destination) {
        return between_registries(from, to, options);
    }
    let stored = Stored::open(source, access, options.all)?;
    let mut gathered = Gathered::new(&output, &options.destination, options.threads)?;
    gathered.announce([&stored].into_iter(), progress);
    for image in &stored.images {
        gathered.add(&stored, source, image, progress)?;
    }
    progress.end();
    let descriptor = match &stored.index {
        Some(index) => gathered.add_index(index)?,
        None => gathered.only_descriptor()?,
    };
    gathered.publish(&output, descriptor, progress)
}

/// skopeo asks the second registry before it fetches from the first.
fn between_registries(
    from: &registry::RegistryName,
    to: &registry::RegistryName,
    options: &TransferOptions,
) -> Result<Transferred> {
    let digest = registry::copy(from, to, &options.access, options.all)?;
    let at = Reference::Registry(to.at(digest));
    let images = Stored::open(&at, &options.access, options.all)?.images;
    let mut seen = HashSet::new();
    let layers = images.iter().flat_map(|image| &image.layers);
    let layers = layers.filter(|layer| seen.insert(layer.digest));
    Ok(Transferred {
        digest: digest.to_digest(),
        images: images.len(),
        layers: layers.map(|layer| of_layer(layer, true)).collect(),
    })
}

/// The images to put into one index.
#[derive(Debug)]
pub struct IndexOptions {
    /// The images, or indexes of which all images are taken.
    pub parts: Vec<Reference>,
    /// Where the index goes.
    pub destination: Destination,
    /// How registries are reached.
    pub access: Access,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// How many threads compress.
    pub threads: NonZeroUsize,
}

/// Makes an index of images for several platforms.
///
/// # Errors
/// When a part cannot be read, two are for one platform, or the output cannot be written.
pub fn index(options: &IndexOptions, progress: &dyn Progress) -> Result<Transferred> {
    let output = Output::prepare(&options.destination, &options.access)?;
    let mut gathered = Gathered::new(&output, &options.destination, options.threads)?;
    let parts = options.parts.iter();
    let parts = parts.map(|part| Ok((part, Stored::open(part, &options.access, true)?)));
    let parts: Vec<(&Reference, Stored)> = parts.collect::<Result<_>>()?;
    let mut platforms: Vec<(String, &Reference)> = Vec::new();
    let mut described = Vec::new();
    for (reference, stored) in &parts {
        for image in &stored.images {
            let platform = platform_of(stored, image)
                .with_context(|| format!("reading what machine {reference} is for"))?;
            let name = name_of(&platform);
            if let Some((_, other)) = platforms.iter().find(|(known, _)| *known == name) {
                bail!("two parts are for {name}: {other} and {reference}; name each platform once");
            }
            platforms.push((name, reference));
            described.push((reference, stored, image, platform));
        }
    }
    ensure!(!described.is_empty(), "the index has no parts");
    gathered.announce(parts.iter().map(|(_, stored)| stored), progress);
    let mut manifests = Vec::new();
    for (reference, stored, image, platform) in described {
        gathered.add(stored, reference, image, progress)?;
        let mut descriptor = gathered.last_descriptor()?;
        descriptor["platform"] = platform;
        manifests.push(descriptor);
    }
    progress.end();
    let mut index =
        json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests});
    if !options.annotations.is_empty() {
        index["annotations"] = json!(options.annotations);
    }
    let index = Document::new(index.to_string().into_bytes(), None);
    gathered.stage.add_bytes(&index.bytes)?;
    gathered.documents.insert(0, index.digest());
    gathered.publish(&output, index.descriptor, progress)
}

/// The platform of an image, as an index has it (image-spec, image-index.md, "platform").
fn platform_of(stored: &Stored, image: &StoredImage) -> Result<Value> {
    let config: Value = serde_json::from_slice(&stored.read_small(&image.config)?)?;
    let architecture = config["architecture"].as_str().unwrap_or_default();
    ensure!(!architecture.is_empty(), "its config names no architecture");
    let known = Platform::from_name(architecture).unwrap_or(Platform {
        architecture: architecture.to_owned(),
        variant: None,
    });
    let variant = config["variant"]
        .as_str()
        .filter(|variant| !variant.is_empty());
    let variant = match (variant, known.variant, known.architecture.as_str()) {
        (Some(said), _, _) => Some(said.to_owned()),
        (None, Some(meant), _) => Some(meant),
        // As podman and Debian's own images write it.
        (None, None, "arm64") => Some("v8".to_owned()),
        (None, None, _) => None,
    };
    let os = config["os"].as_str().filter(|os| !os.is_empty());
    let platform = Platform { variant, ..known };
    spec::to_json(&platform.to_spec(os.unwrap_or("linux"))?)
}

fn name_of(platform: &Value) -> String {
    let words = ["os", "architecture", "variant"].iter();
    let words = words.filter_map(|word| platform[word].as_str());
    words.collect::<Vec<_>>().join("/")
}

/// Images on their way to an output: what it lacks of them, in a stage.
struct Gathered<'a> {
    stage: Stage,
    destination: &'a Destination,
    threads: NonZeroUsize,
    /// Manifests and indexes, then configs and layers.
    documents: Vec<Checksum>,
    blobs: Vec<Checksum>,
    /// The images as they are at the destination.
    images: Vec<StoredImage>,
    layers: Vec<TransferredLayer>,
}

impl<'a> Gathered<'a> {
    fn new(output: &Output, destination: &'a Destination, threads: NonZeroUsize) -> Result<Self> {
        Ok(Self {
            stage: output.stage()?,
            destination,
            threads,
            documents: Vec::new(),
            blobs: Vec::new(),
            images: Vec::new(),
            layers: Vec::new(),
        })
    }

    /// Tells how much there is to do.
    fn announce<'s>(&self, stored: impl Iterator<Item = &'s Stored>, progress: &dyn Progress) {
        let images = stored.flat_map(|stored| &stored.images);
        let sizes = images
            .flat_map(|image| &image.layers)
            .map(|layer| layer.size);
        let total = sizes.fold(0, u64::saturating_add);
        progress.begin("reading layers", total);
    }

    /// Adds an image; its layers are compressed where the destination wants that.
    fn add(
        &mut self,
        stored: &Stored,
        reference: &Reference,
        image: &StoredImage,
        progress: &dyn Progress,
    ) -> Result<()> {
        let image = match self.destination {
            Destination::Registry(_) => self.compressed(stored, image)?,
            _ => image.clone(),
        };
        let place = Place::of(reference, self.destination);
        for blob in image.blobs() {
            let is_layer = blob.digest != image.config.digest;
            let _part = Part::begin(progress, &blob.digest.to_digest(), blob.size);
            if !self.blobs.contains(&blob.digest) {
                self.blobs.push(blob.digest);
                let fetched = self.bring(stored, &place, blob, is_layer)?;
                if is_layer {
                    self.layers.push(of_layer(blob, fetched));
                }
            }
            if is_layer {
                progress.done(blob.size)?;
            }
        }
        self.documents
            .push(self.stage.add_bytes(&image.manifest.bytes)?);
        self.images.push(image);
        Ok(())
    }

    /// Brings a blob into the stage, unless the destination has it. Tells whether it was fetched.
    fn bring(
        &self,
        stored: &Stored,
        place: &Place,
        blob: &Descriptor,
        is_layer: bool,
    ) -> Result<bool> {
        let path = self.stage.blob_path(blob.digest);
        // One that was compressed is in place.
        if path.is_file() {
            return Ok(true);
        }
        match place {
            Place::Destination if is_layer => return Ok(false),
            Place::Layout(blobs) if is_layer => {
                let from = blobs.join(blob.digest.to_string());
                std::os::unix::fs::symlink(&from, &path)
                    .with_context(|| format!("linking {path} to {from}"))?;
                return Ok(true);
            }
            _ => {}
        }
        if let Destination::Layout { path, .. } = self.destination {
            let older = OlderBlob::Hashed;
            if self.stage.take(path, blob.digest, blob.size, older)? {
                return Ok(false);
            }
        }
        let copy = || -> Result<()> {
            let mut from = stored.open_blob(blob)?.take(blob.size.saturating_add(1));
            let mut out = self
                .stage
                .blob_writer(&blob.digest.to_string(), Compression::None)?;
            copy(&mut from, &mut out)?;
            let found = self.stage.add(out)?;
            ensure!(
                found.digest == blob.digest && found.size == blob.size,
                "it is damaged: it has {} bytes with the digest {}",
                found.size,
                found.digest.to_digest()
            );
            Ok(())
        };
        copy().with_context(|| format!("copying the blob {}", blob.digest.to_digest()))?;
        Ok(true)
    }

    /// The image with each layer compressed; those that were not are in the stage then.
    fn compressed(&self, stored: &Stored, image: &StoredImage) -> Result<StoredImage> {
        let plain: Vec<usize> = (0..image.layers.len())
            .filter(|at| image.layers[*at].media_type.as_ref().ends_with(".tar"))
            .collect();
        if plain.is_empty() {
            return Ok(image.clone());
        }
        let made = parallel::map_with(
            self.stage.idle(),
            self.threads,
            &plain,
            || (),
            |(), at| {
                let layer = &image.layers[*at];
                // Uncompressed, its digest is its diff id.
                let raw = stored.open_blob(layer)?;
                let mut reader = read::LayerReader::new(raw, layer, layer.digest)?;
                let name = format!("compressed-{}", layer.digest);
                let mut out = self.stage.blob_writer(&name, FOR_REGISTRIES)?;
                copy(&mut reader, &mut out)?;
                reader.finish()?;
                self.stage.add(out)
            },
        )?;
        let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes)?;
        for (at, blob) in plain.iter().zip(&made) {
            let layer = &mut manifest["layers"][*at];
            let media_type = image.layers[*at].media_type.as_ref();
            layer["mediaType"] = match media_type.starts_with("application/vnd.docker.") {
                true => format!("{media_type}.gzip").into(),
                false => format!("{media_type}+gzip").into(),
            };
            layer["digest"] = blob.digest.to_digest().into();
            layer["size"] = blob.size.into();
        }
        let named_by = Descriptor::parse(&image.manifest.descriptor)?;
        StoredImage::parse(manifest.to_string().into_bytes(), Some(&named_by))
    }

    /// The index, which names the images as they are now.
    fn add_index(&mut self, index: &Document) -> Result<Value> {
        let mut value: Value = serde_json::from_slice(&index.bytes)?;
        let mut is_changed = false;
        for (image, entry) in self
            .images
            .iter()
            .zip(value["manifests"].as_array_mut().into_iter().flatten())
        {
            for field in ["digest", "size"] {
                let is = &image.manifest.descriptor[field];
                if entry[field] != *is {
                    entry[field] = is.clone();
                    is_changed = true;
                }
            }
        }
        let index = match is_changed {
            true => {
                let named_by = Descriptor::parse(&index.descriptor)?;
                Document::new(value.to_string().into_bytes(), Some(&named_by))
            }
            false => index.clone(),
        };
        self.stage.add_bytes(&index.bytes)?;
        self.documents.insert(0, index.digest());
        Ok(index.descriptor)
    }

    fn last_descriptor(&self) -> Result<Value> {
        let image = self.images.last().context("there is no image")?;
        let mut descriptor = image.manifest.descriptor.clone();
        // Names are the layout's that it comes from.
        if let Some(fields) = descriptor.as_object_mut() {
            fields.remove("annotations");
        }
        Ok(descriptor)
    }

    /// What names the image where there is no index: with its platform, as a build writes it.
    fn only_descriptor(&self) -> Result<Value> {
        let mut descriptor = self.last_descriptor()?;
        let config = self.images.last().map(|image| image.config.digest);
        let config = config.map(|digest| std::fs::read(self.stage.blob_path(digest)));
        let config = config
            .and_then(Result::ok)
            .and_then(|bytes| BaseConfig::parse(&bytes).ok());
        if let Some(platform) = config.and_then(|config| config.platform()) {
            descriptor["platform"] = spec::to_json(&platform.to_spec("linux")?)?;
        }
        Ok(descriptor)
    }

    fn publish(
        mut self,
        output: &Output,
        descriptor: Value,
        progress: &dyn Progress,
    ) -> Result<Transferred> {
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let blobs = [self.documents, self.blobs].concat();
        let mut seen = HashSet::new();
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let layers = layers.filter(|layer| seen.insert(layer.digest));
        let layers: Vec<_> = layers.map(|layer| (layer.digest, layer.size)).collect();
        let sent = output.publish(self.stage, descriptor, &blobs, &layers, progress)?;
        if let Some(sent) = sent {
            let sent: HashSet<String> = sent.iter().map(|digest| digest.to_digest()).collect();
            for layer in &mut self.layers {
                layer.transferred = sent.contains(&layer.digest);
            }
        }
        Ok(Transferred {
            digest,
            images: self.images.len(),
            layers: self.layers,
        })
    }
}

/// Where the blobs of a source are, for a destination.
enum Place {
    /// In the repository that is the destination.
    Destination,
    /// In files of this directory, which a registry can be sent as they are.
    Layout(Utf8PathBuf),
    /// Somewhere to be read from.
    Elsewhere,
}

impl Place {
    fn of(source: &Reference, destination: &Destination) -> Self {
        match (source, destination) {
            (Reference::Registry(from), Destination::Registry(to))
                if from.is_in_repository_of(to) =>
            {
                Self::Destination
            }
            (Reference::Layout { path, .. }, Destination::Registry(_)) => blobs_of(path),
            _ => Self::Elsewhere,
        }
    }
}

fn blobs_of(layout: &Utf8Path) -> Place {
    match layout.join("blobs/sha256").canonicalize_utf8() {
        Ok(blobs) => Place::Layout(blobs),
        Err(_) => Place::Elsewhere,
    }
}

fn of_layer(layer: &Descriptor, transferred: bool) -> TransferredLayer {
    TransferredLayer {
        digest: layer.digest.to_digest(),
        size: layer.size,
        transferred,
    }
}

fn copy(from: &mut impl Read, out: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write_all(&buffer[..count])?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}
