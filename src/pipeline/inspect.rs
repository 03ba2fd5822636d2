//! What is in an image: its layers, its packages, its files, read from its layers.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::byte_code;
use super::image_components::{FileOwners, ImageComponent};
use super::labels;
use super::layer_plan::{LABEL, LayerPlan};
use super::previous::of_annotations;
use super::write::PLAIN_COMMIT;
use crate::checksum::Checksum;
use crate::dpkg::{Database, Files};
use crate::oci::read::{Entry, EntryKind, TarReader, clean_path};
use crate::registry::{Access, Image, Reference};

/// Where an encapsulated image has its objects.
const OBJECTS: &str = "sysroot/ostree/repo/objects/";
/// Files of dpkg's database that are read: where they are, and how their names may go on.
const DATABASES: [&str; 2] = ["var/lib/dpkg/", "usr/lib/sysimage/dpkg/"];

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

/// A file or link of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// The layer that it is seen from.
    pub layer: usize,
    /// Bytes of its content.
    pub size: u64,
    /// What tells it apart by all but its time.
    pub identity: Checksum,
    /// Of Python's byte code, what tells it apart by all but that and the time that it records of its source.
    pub timeless: Option<Checksum>,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// An image with its files.
pub struct InspectedImage {
    /// What it tells of itself.
    pub summary: Inspected,
    /// Its files and links by path, as the system sees them (`etc`, not `usr/etc`, where there is only one).
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
    let mut reader = ImageReader::default();
    for (at, (descriptor, _)) in image.layers().iter().enumerate() {
        reader.layer = at;
        let mut read = || -> Result<()> {
            let mut layer = image.open_layer(at)?;
            reader.read(&mut TarReader::new(&mut layer))?;
            layer.finish()
        };
        read().with_context(|| format!("reading layer {at}, {}", descriptor.digest.to_digest()))?;
    }
    let labels = &image.config.labels;
    let commit = labels.get(labels::COMMIT);
    let files = DatabaseFiles(&reader.database);
    let database = Database::load(&files, None).context("reading dpkg's database")?;
    let layers = layers(image, &reader);
    let owners = FileOwners::find(&reader.files, database.as_ref(), &files, &layers)?;
    let summary = Inspected {
        digest: image.manifest.digest.to_digest(),
        created: image.config.created.clone(),
        architecture: image.config.architecture.clone(),
        encapsulated: commit.is_some(),
        commit: commit
            .or_else(|| image.manifest.annotations.get(PLAIN_COMMIT))
            .cloned(),
        components: owners.components(&reader.files, &layers),
        layers,
        packages: database.map(packages).unwrap_or_default(),
    };
    Ok(InspectedImage {
        summary,
        owners,
        files: reader.files,
    })
}

/// The layers with what the label of the plan, or the annotations, tell of them.
fn layers(image: &Image, reader: &ImageReader) -> Vec<InspectedLayer> {
    let label = image.config.labels.get(LABEL);
    let plan = label.and_then(|label| LayerPlan::from_label(label).ok());
    let annotated = of_annotations(&image.manifest).unwrap_or_default();
    let first = image.layers().len().saturating_sub(annotated.len());
    let mut layers: Vec<InspectedLayer> = Vec::new();
    for (at, (descriptor, diff_id)) in image.layers().iter().enumerate() {
        let planned = plan.as_ref().and_then(|plan| plan.layers.get(at));
        let planned =
            planned.filter(|layer| layer.diff_id.as_deref() == Some(&diff_id.to_digest()));
        let components = match planned {
            Some(planned) => planned.components.clone(),
            None => at
                .checked_sub(first)
                .and_then(|at| annotated.get(at))
                .cloned()
                .unwrap_or_default(),
        };
        layers.push(InspectedLayer {
            digest: descriptor.digest.to_digest(),
            size: descriptor.size,
            components,
            chance: planned.and_then(|layer| layer.chance),
            files: 0,
            file_bytes: 0,
        });
    }
    for file in reader.files.values() {
        if let Some(layer) = layers.get_mut(file.layer) {
            layer.files += 1;
            layer.file_bytes += file.size;
        }
    }
    layers
}

/// Applies layers, as far as what is seen is concerned.
#[derive(Default)]
struct ImageReader {
    layer: usize,
    files: BTreeMap<String, ImageFile>,
    /// The database of dpkg, by path: small files, kept whole.
    database: BTreeMap<String, Vec<u8>>,
    /// Members of the layer that hard links may name.
    members: BTreeMap<String, (ImageFile, Vec<u8>)>,
}

impl ImageReader {
    fn read<R: Read>(&mut self, tar: &mut TarReader<R>) -> Result<()> {
        self.members.clear();
        while let Some(entry) = tar.next_entry()? {
            let path = clean_path(&entry.path)?.trim_end_matches('/').to_owned();
            if let Some((directory, name)) = split(&path) {
                if self.whiteout(directory, name) {
                    continue;
                }
            }
            self.member(path, &entry, tar)?;
        }
        Ok(())
    }

    /// Takes away what a whiteout (image-spec, layer.md) hides; whether it was one.
    fn whiteout(&mut self, directory: &str, name: &str) -> bool {
        let Some(hidden) = name.strip_prefix(".wh.") else {
            return false;
        };
        let below = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        if hidden == ".wh..opq" {
            let layer = self.layer;
            self.files
                .retain(|path, file| file.layer == layer || !path.starts_with(&below));
        } else {
            self.remove(&format!("{below}{hidden}"));
        }
        true
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.files
            .retain(|other, _| other != path && !other.starts_with(&below));
        self.database
            .retain(|other, _| other != path && !other.starts_with(&below));
    }

    fn member<R: Read>(
        &mut self,
        path: String,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        let is_object = path.starts_with(OBJECTS);
        let (file, content) = match &entry.kind {
            EntryKind::HardLink(target) => {
                let target = clean_path(target)?;
                match self.members.get(target.as_str()) {
                    Some((file, content)) => (file.clone(), content.clone()),
                    None => match self.files.get(target.as_str()) {
                        Some(file) => (file.clone(), Vec::new()),
                        None => return Ok(()),
                    },
                }
            }
            EntryKind::Regular | EntryKind::Symlink(_) => {
                self.content(&path, entry, tar, is_object)?
            }
            _ => return Ok(()),
        };
        if is_object {
            self.members.insert(path, (file, content));
            return Ok(());
        }
        if path.starts_with("sysroot/ostree/") {
            return Ok(());
        }
        // A commit has the configuration in usr/etc.
        let seen = match path.strip_prefix("usr/etc/") {
            Some(rest) => format!("etc/{rest}"),
            None => path.clone(),
        };
        if is_database(&seen) {
            self.database.insert(seen.clone(), content.clone());
        }
        self.members.insert(path, (file.clone(), content));
        self.files.insert(
            seen,
            ImageFile {
                layer: self.layer,
                ..file
            },
        );
        Ok(())
    }

    /// A file, and its content where that may be dpkg's database: an object does not tell.
    fn content<R: Read>(
        &self,
        path: &str,
        entry: &Entry,
        tar: &mut TarReader<R>,
        is_object: bool,
    ) -> Result<(ImageFile, Vec<u8>)> {
        /// A `status` of 100,000 packages is smaller; so are most files that are not.
        const SMALL: u64 = 64 << 20;
        let mut file = ImageFile {
            layer: self.layer,
            size: entry.size,
            identity: Checksum::default(),
            timeless: None,
            mtime: entry.mtime,
            target: match &entry.kind {
                EntryKind::Symlink(target) => String::from_utf8(target.clone()).ok(),
                _ => None,
            },
        };
        if is_object {
            let name: String = path[OBJECTS.len()..]
                .chars()
                .filter(|c| *c != '/')
                .collect();
            if let Some(Ok(object)) = name.strip_suffix(".file").map(Checksum::from_hex) {
                file.identity = object;
            }
        }
        let mut hasher = Sha256::new();
        write!(
            hasher,
            "{:?} {:o} {} {} {:?} ",
            entry.kind, entry.permissions, entry.uid, entry.gid, entry.xattrs
        )?;
        let mut timeless = None;
        let mut content = Vec::new();
        if entry.kind == EntryKind::Regular {
            let mut begin = [0; byte_code::HEADER];
            let got = read_up_to(tar, &mut begin)?;
            let begin = &begin[..got];
            timeless =
                byte_code::without_time(begin).map(|header| hasher.clone().chain_update(header));
            hasher.update(begin);
            let may_be_database = is_object
                && entry.size <= SMALL
                && path.ends_with(".file")
                && begins_as_database(begin);
            if is_database(path) || may_be_database {
                content.extend_from_slice(begin);
                tar.take(SMALL).read_to_end(&mut content)?;
                hasher.update(&content[got..]);
            }
        }
        if let Some(timeless) = &mut timeless {
            std::io::copy(tar, &mut Both(&mut hasher, timeless))?;
        } else if !is_object {
            std::io::copy(tar, &mut hasher)?;
        }
        file.timeless = timeless.map(Checksum::finish);
        if !is_object {
            file.identity = Checksum::finish(hasher);
        }
        Ok((file, content))
    }
}

fn packages(database: Database) -> Vec<InspectedPackage> {
    let packages = database
        .packages
        .into_iter()
        .map(|package| InspectedPackage {
            name: package.name,
            architecture: package.architecture,
            version: package.version,
            source: package.source,
            source_version: package.source_version,
        });
    let mut packages: Vec<InspectedPackage> = packages.collect();
    packages.sort();
    packages
}

/// Writes to both hashers.
struct Both<'a>(&'a mut Sha256, &'a mut Sha256);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        self.1.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(pair) => Some(pair),
        None if !path.is_empty() => Some(("", path)),
        None => None,
    }
}

fn is_database(path: &str) -> bool {
    let rest = DATABASES
        .iter()
        .find_map(|directory| path.strip_prefix(directory));
    rest.is_some_and(|rest| {
        let is_list = rest.ends_with(".list") || rest.ends_with(".md5sums");
        ["status", "arch", "diversions"].contains(&rest)
            || rest.starts_with("status.d/")
            || rest.starts_with("info/") && is_list
    })
}

/// Whether an object may be a file of dpkg's database, whose name is told only later: stanzas, lists of paths, and
/// checksums begin so.
fn begins_as_database(begin: &[u8]) -> bool {
    let is_sum = begin.len() == byte_code::HEADER && begin.iter().all(u8::is_ascii_hexdigit);
    begin.starts_with(b"Package: ") || begin.starts_with(b"/") || is_sum
}

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// dpkg's files as they were in the layers.
struct DatabaseFiles<'a>(&'a BTreeMap<String, Vec<u8>>);

impl Files for DatabaseFiles<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(path.trim_start_matches('/')).cloned())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let below = format!("{}/", path.trim_matches('/'));
        let names = self.0.keys().filter_map(|path| path.strip_prefix(&below));
        let mut names: Vec<String> = names
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect();
        names.dedup();
        Ok((!names.is_empty()).then_some(names))
    }
}
