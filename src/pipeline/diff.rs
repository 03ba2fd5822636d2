//! Two images: what is new in the second, and what a client that has the first fetches for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::changelog::ChangedSource;
use super::component_changes::{ComponentChange, ComponentChanges, Cost};
use super::image_components::source;
use super::inspect::{InspectedImage, InspectedPackage};
use crate::dpkg::compare_versions;

/// How many files are named of a layer that changed without a package.
const NAMED_FILES: usize = 5;

/// The difference of two images.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The digest of the first.
    pub old: String,
    /// The digest of the second.
    pub new: String,
    /// Packages that only the second has.
    pub added: Vec<InspectedPackage>,
    /// Packages that only the first has.
    pub removed: Vec<InspectedPackage>,
    /// Packages of another version.
    pub changed: Vec<ChangedPackage>,
    /// The sources of those; with what their changelogs say, where these were read.
    pub sources: Vec<ChangedSource>,
    /// What could not be told as of an image that this program has made, in sentences.
    pub notes: Vec<String>,
    /// Layers of the second that the first has.
    pub layers_kept: usize,
    /// Bytes of those, as stored.
    pub bytes_kept: u64,
    /// Bytes of the others, as stored: what a client fetches that has the first.
    pub bytes_fetched: u64,
    /// Of those, bytes of files that the first image has nowhere: with any layers at all, a client
    /// that fetches whole files fetches that much.
    pub floor_bytes: u64,
    /// The sources, and what no package owns, that cost the most of the bytes to fetch.
    pub costs: Vec<Cost>,
    /// The others.
    pub fetched: Vec<FetchedLayer>,
    /// The components of the second image and those that only the first has, and what became of
    /// them.
    pub components: Vec<ComponentChange>,
}

/// A package of another version.
#[derive(Debug, Serialize)]
pub struct ChangedPackage {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version in the first image.
    pub from: String,
    /// Its version in the second.
    pub to: String,
    /// Its source in the second.
    pub source: String,
    /// Whether the version in the second is lower.
    pub downgraded: bool,
}

/// A layer of the second image that the first does not have.
#[derive(Debug, Serialize)]
pub struct FetchedLayer {
    /// Its place in the second image, 0 for the lowest.
    pub layer: usize,
    /// Its digest.
    pub digest: String,
    /// Bytes as stored.
    pub size: u64,
    /// Its components.
    pub components: Vec<String>,
    /// Its components whose source has another version, is new, or has a package less.
    pub updated: Vec<String>,
    /// Bytes of its files that the first image has too, just so: they come along.
    pub unchanged_bytes: u64,
    /// Bytes of its files that differ from those of the first image in a time only.
    pub time_bytes: u64,
    /// The largest of its files that differ in a time only or, where no component of it was
    /// updated, are new or different.
    pub files: Vec<ChangedFile>,
}

/// A file that is new or different.
#[derive(Debug, Serialize)]
pub struct ChangedFile {
    /// Its path.
    pub path: String,
    /// Bytes of its content.
    pub size: u64,
    /// Whether nothing is different but its time or, of Python's byte code, the time recorded of
    /// its source.
    pub only_time: bool,
}

impl Difference {
    /// Compares two images.
    pub fn of(old: &InspectedImage, new: &InspectedImage) -> Self {
        let (before, after) = (
            by_name(&old.summary.packages),
            by_name(&new.summary.packages),
        );
        let only = |ours: &Packages<'_>, others: &Packages<'_>| -> Vec<InspectedPackage> {
            let only = ours.iter().filter(|(key, _)| !others.contains_key(*key));
            only.map(|(_, package)| (*package).clone()).collect()
        };
        let (added, removed) = (only(&after, &before), only(&before, &after));
        let both = after
            .iter()
            .filter_map(|(key, new)| Some((*new, *before.get(key)?)));
        let other: Vec<(&InspectedPackage, &InspectedPackage)> = both
            .filter(|(new, old)| new.version != old.version)
            .collect();
        let mut sources: BTreeSet<&str> =
            other.iter().map(|(new, _)| new.source.as_str()).collect();
        sources.extend(
            added
                .iter()
                .chain(&removed)
                .map(|package| package.source.as_str()),
        );
        let known: BTreeSet<&str> = old
            .summary
            .layers
            .iter()
            .map(|layer| layer.digest.as_str())
            .collect();
        let layers = || new.summary.layers.iter().enumerate();
        let kept = || layers().filter(|(_, layer)| known.contains(layer.digest.as_str()));
        let fetched: Vec<FetchedLayer> = layers()
            .filter(|(_, layer)| !known.contains(layer.digest.as_str()))
            .map(|(at, _)| fetched_layer(at, old, new, &sources))
            .collect();
        let changed_sources = changed_sources(&other);
        let component_changes = ComponentChanges::of(old, new, &known);
        Self {
            old: old.summary.digest.clone(),
            new: new.summary.digest.clone(),
            layers_kept: kept().count(),
            bytes_kept: kept().map(|(_, layer)| layer.size).sum(),
            bytes_fetched: fetched.iter().map(|layer| layer.size).sum(),
            changed: other
                .iter()
                .map(|(new, old)| ChangedPackage {
                    name: new.name.clone(),
                    architecture: new.architecture.clone(),
                    from: old.version.clone(),
                    to: new.version.clone(),
                    source: new.source.clone(),
                    downgraded: compare_versions(&new.version, &old.version).is_lt(),
                })
                .collect(),
            sources: changed_sources,
            notes: notes(old, new),
            added,
            removed,
            floor_bytes: component_changes.floor_bytes,
            costs: component_changes.costs,
            fetched,
            components: component_changes.components,
        }
    }

    /// Whether the images are the same.
    pub fn is_none(&self) -> bool {
        self.old == self.new
    }
}

/// The sources of packages of another version, given as (new, old).
fn changed_sources(changed: &[(&InspectedPackage, &InspectedPackage)]) -> Vec<ChangedSource> {
    let mut sources: BTreeMap<&str, ChangedSource> = BTreeMap::new();
    for (new, old) in changed {
        let source = sources.entry(&new.source).or_insert_with(|| ChangedSource {
            name: new.source.clone(),
            from: old.source_version.clone(),
            to: new.source_version.clone(),
            packages: Vec::new(),
            security: false,
            cves: Vec::new(),
            urgency: None,
            entries: Vec::new(),
        });
        source.packages.push(new.name.clone());
    }
    sources.into_values().collect()
}

/// What is told by other means than of an image of ours.
fn notes(old: &InspectedImage, new: &InspectedImage) -> Vec<String> {
    let mut notes = Vec::new();
    for (which, image) in [("old", old), ("new", new)] {
        if image.summary.packages.is_empty() {
            notes.push(format!(
                "the {which} image has no package database: it is compared by its paths"
            ));
        } else if image.summary.commit.is_none() {
            notes.push(format!(
                "the {which} image was not split by this program: its components are told by its package database and its paths"
            ));
        }
    }
    notes
}

type Packages<'a> = BTreeMap<(&'a str, &'a str), &'a InspectedPackage>;

fn by_name(packages: &[InspectedPackage]) -> Packages<'_> {
    let pairs = packages
        .iter()
        .map(|p| ((p.name.as_str(), p.architecture.as_str()), p));
    pairs.collect()
}

fn fetched_layer(
    at: usize,
    old: &InspectedImage,
    new: &InspectedImage,
    sources: &BTreeSet<&str>,
) -> FetchedLayer {
    let layer = &new.summary.layers[at];
    let updated = layer
        .components
        .iter()
        .filter(|component| sources.contains(source(component)));
    let updated: Vec<String> = updated.cloned().collect();
    let (mut unchanged_bytes, mut time_bytes) = (0, 0);
    let mut files = Vec::new();
    for (path, file) in new.files.iter().filter(|(_, file)| file.layer == at) {
        let before = old.files.get(path);
        let same = before.is_some_and(|before| before.identity == file.identity);
        let same_time = before.is_some_and(|before| before.mtime == file.mtime);
        let same_code = file.timeless.is_some()
            && before.is_some_and(|before| before.timeless == file.timeless);
        if same && same_time {
            unchanged_bytes += file.size;
            continue;
        }
        let only_time = same || same_code;
        if only_time {
            time_bytes += file.size;
        }
        if only_time || updated.is_empty() {
            files.push(ChangedFile {
                path: path.clone(),
                size: file.size,
                only_time,
            });
        }
    }
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    files.truncate(NAMED_FILES);
    FetchedLayer {
        layer: at,
        digest: layer.digest.clone(),
        size: layer.size,
        components: layer.components.clone(),
        updated,
        unchanged_bytes,
        time_bytes,
        files,
    }
}
