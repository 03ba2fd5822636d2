//! What became of each component from one image to the next, and which cost most of what a client
//! fetches.
//!
//! A layer's bytes as stored are shared out among its components by the bytes of their files, so
//! that what is told of components adds up to what is told of layers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::image_components::source;
use super::inspect::{Inspected, InspectedImage};
use crate::checksum::Checksum;

/// How many of what costs most are named.
const NAMED_COSTS: usize = 5;
/// The name that stands for a layer without files: that of the commit.
const COMMIT: &str = "(the commit)";

/// What became of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Its layer is kept: nothing is fetched.
    Kept,
    /// Its source has another version.
    Updated,
    /// No package of it has changed, but files of it have: they are generated, or written by hand.
    Changed,
    /// Only times of its files have changed.
    Time,
    /// Nothing of it has changed, but its layer has.
    Along,
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Gone,
}

/// A component, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct ComponentChange {
    /// Its name.
    pub name: String,
    /// Its layer in the second image; in the first for one that is gone.
    pub layer: usize,
    /// What became of it.
    pub change: Change,
    /// Bytes of its files.
    pub size: u64,
    /// Its share of the bytes to fetch, as stored.
    pub fetched: u64,
    /// Versions of its source in the first image, where that is a package.
    pub from: Option<String>,
    /// Versions of its source in the second image.
    pub to: Option<String>,
    /// The installed packages that it has files of.
    pub packages: Vec<String>,
}

/// What a source, or something that no package owns, costs.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The source or component.
    pub name: String,
    /// Its share of the bytes to fetch.
    pub bytes: u64,
    /// Why: what became of the costliest part of it.
    pub change: Change,
    /// Its versions in the first image.
    pub from: Option<String>,
    /// Its versions in the second image.
    pub to: Option<String>,
}

/// What became of all components.
pub struct ComponentChanges {
    pub components: Vec<ComponentChange>,
    pub costs: Vec<Cost>,
    pub floor_bytes: u64,
}

#[derive(Default)]
struct FileSums {
    changed: u64,
    time: u64,
}

impl ComponentChanges {
    /// Compares `old` and `new`, of whose layers a client of the old one has those that are `known`
    /// by digest.
    pub fn of(old: &InspectedImage, new: &InspectedImage, known: &BTreeSet<&str>) -> Self {
        let layers = &new.summary.layers;
        let is_kept = |layer: usize| known.contains(layers[layer].digest.as_str());
        let identities: BTreeSet<Checksum> = old.files.values().map(|f| f.identity).collect();
        let mut sums: BTreeMap<(usize, &str), FileSums> = BTreeMap::new();
        let mut new_bytes = vec![0; layers.len()];
        for (path, file) in &new.files {
            if is_kept(file.layer) {
                continue;
            }
            let name = new.owners.owner(path).map_or("", |owner| owner.component);
            let sum = sums.entry((file.layer, name)).or_default();
            match old.files.get(path) {
                Some(o) if o.identity == file.identity && o.mtime == file.mtime => {}
                Some(o) if o.identity == file.identity => sum.time += file.size,
                Some(o) if file.timeless.is_some() && o.timeless == file.timeless => {
                    sum.time += file.size;
                }
                // An empty file is a change, too.
                _ => sum.changed += file.size.max(1),
            }
            if !identities.contains(&file.identity) {
                new_bytes[file.layer] += file.size;
            }
        }
        // Bytes of a layer as stored for bytes of its files.
        let stored = |layer: usize, bytes: u64| {
            let layer = &layers[layer];
            let share = u128::from(layer.size) * u128::from(bytes);
            (share / u128::from(layer.file_bytes.max(1))) as u64
        };
        let versions = (versions(&old.summary), versions(&new.summary));
        let old_names: BTreeSet<&str> = names(&old.summary);
        let new_names: BTreeSet<&str> = names(&new.summary);
        let mut components = Vec::new();
        for component in &new.summary.components {
            let source = source(&component.name);
            let (from, to) = (versions.0.get(source), versions.1.get(source));
            let sum = sums.get(&(component.layer, component.name.as_str()));
            let change = match sum {
                _ if is_kept(component.layer) => Change::Kept,
                _ if !old_names.contains(component.name.as_str()) && from.is_none() => {
                    Change::Added
                }
                Some(sum) if sum.changed > 0 && to.is_some() && from != to => Change::Updated,
                Some(sum) if sum.changed > 0 => Change::Changed,
                Some(sum) if sum.time > 0 => Change::Time,
                _ => Change::Along,
            };
            components.push(ComponentChange {
                name: component.name.clone(),
                layer: component.layer,
                change,
                size: component.size,
                fetched: match change {
                    Change::Kept => 0,
                    _ => stored(component.layer, component.size),
                },
                from: from.cloned(),
                to: to.cloned(),
                packages: component.packages.clone(),
            });
        }
        for (at, layer) in layers.iter().enumerate() {
            if layer.file_bytes == 0 && !is_kept(at) {
                components.push(ComponentChange::commit(at, layer.size));
            }
        }
        let gone = old.summary.components.iter();
        for component in gone.filter(|c| !new_names.contains(c.name.as_str())) {
            components.push(ComponentChange {
                name: component.name.clone(),
                layer: component.layer,
                change: Change::Gone,
                size: component.size,
                fetched: 0,
                from: versions.0.get(source(&component.name)).cloned(),
                to: versions.1.get(source(&component.name)).cloned(),
                packages: component.packages.clone(),
            });
        }
        let floor = new_bytes.iter().enumerate();
        Self {
            floor_bytes: floor.map(|(layer, bytes)| stored(layer, *bytes)).sum(),
            costs: costs(&components),
            components,
        }
    }
}

impl ComponentChange {
    fn commit(layer: usize, size: u64) -> Self {
        Self {
            name: COMMIT.to_owned(),
            layer,
            change: Change::Changed,
            size,
            fetched: size,
            from: None,
            to: None,
            packages: Vec::new(),
        }
    }
}

fn names(image: &Inspected) -> BTreeSet<&str> {
    image.components.iter().map(|c| c.name.as_str()).collect()
}

/// The versions of each source; a system may have packages of several.
fn versions(image: &Inspected) -> BTreeMap<String, String> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &image.packages {
        let versions = found.entry(&package.source).or_default();
        versions.insert(&package.source_version);
    }
    let joined = |versions: BTreeSet<&str>| versions.into_iter().collect::<Vec<_>>().join(", ");
    let pairs = found
        .into_iter()
        .map(|(s, versions)| (s.to_owned(), joined(versions)));
    pairs.collect()
}

/// What costs most, parts of a source joined.
fn costs(components: &[ComponentChange]) -> Vec<Cost> {
    let mut costs: BTreeMap<&str, (Cost, u64)> = BTreeMap::new();
    for component in components.iter().filter(|c| c.fetched > 0) {
        let name = source(&component.name);
        let (cost, largest) = costs.entry(name).or_insert_with(|| {
            let cost = Cost {
                name: name.to_owned(),
                bytes: 0,
                change: component.change,
                from: component.from.clone(),
                to: component.to.clone(),
            };
            (cost, 0)
        });
        cost.bytes += component.fetched;
        if component.fetched > *largest {
            *largest = component.fetched;
            cost.change = component.change;
        }
    }
    let mut costs: Vec<Cost> = costs.into_values().map(|(cost, _)| cost).collect();
    costs.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    costs.truncate(NAMED_COSTS);
    costs
}
