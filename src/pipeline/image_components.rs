//! The components of an image that was read from its layers. Its files are turned into a tree
//! again, and the rules of a build decide which component owns what, so that images made by other
//! programs have components too.
//!
//! In goes what the layers gave (paths, sizes, links, dpkg's database), out comes for each path a
//! component and a package, and the components of each layer. What an image does not carry, such as
//! hints that a user gave with `user.component`, is not known here: where a layer has one component
//! by its label, that name holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use camino::Utf8Path as Path;
use serde::Serialize;

use super::inspect::{ImageFile, InspectedLayer};
use crate::component::{Ownership, owned_entries};
use crate::dpkg::{Database, Files};
use crate::tree::{EntryId, Kind, Metadata, Tree, TreeBuilder};

/// A component of an image in one of its layers. A component is in several where files are shared.
#[derive(Debug, Clone, Serialize)]
pub struct ImageComponent {
    /// Its name.
    pub name: String,
    /// Its layer.
    pub layer: usize,
    /// Bytes of its files.
    pub size: u64,
    /// How many files it has.
    pub files: usize,
    /// The chance that it changes until the next pull.
    pub chance: f64,
    /// The installed packages that it has files of, by name.
    pub packages: Vec<String>,
}

/// Who has a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The component.
    pub component: &'a str,
    /// The package, where one has it.
    pub package: Option<&'a str>,
}

/// For each file of an image its component and its package.
#[derive(Debug, Default)]
pub struct FileOwners {
    /// Names with the chance to change.
    components: Vec<(String, f64)>,
    packages: Vec<String>,
    by_path: HashMap<String, (u32, Option<u32>)>,
}

impl FileOwners {
    /// Finds the owners of `files`. `database` is what dpkg knows, read through `read`; `layers`
    /// have the names that the image's label tells.
    ///
    /// # Errors
    /// When a list of dpkg's cannot be read.
    pub fn find(
        files: &BTreeMap<String, ImageFile>,
        database: Option<&Database>,
        read: &dyn Files,
        layers: &[InspectedLayer],
    ) -> Result<Self> {
        let tree = tree(files)?;
        let owned = owned_entries(&tree, database, read)?;
        let ownership = Ownership::of_tree(&tree, database, read, None)?;
        let known = ownership.components().iter();
        let mut owners = Self {
            components: known.map(|c| (c.name.clone(), c.chance)).collect(),
            packages: database.map_or_else(Vec::new, |database| {
                database
                    .packages
                    .iter()
                    .map(|p| p.name().to_owned())
                    .collect()
            }),
            by_path: HashMap::with_capacity(files.len()),
        };
        for id in tree.ids() {
            let path = tree.path(id).into_string();
            let Some(file) = files.get(&path) else {
                continue;
            };
            let component = ownership.owner(id).index() as u32;
            let component = owners.labelled(&path, component, layers.get(file.layer));
            owners.by_path.insert(path, (component, owned[id.index()]));
        }
        Ok(owners)
    }

    /// `component`, or what the label of its layer has in its place: a plan joins parts of a
    /// source, and what a user named a component is known from there only.
    fn labelled(&mut self, path: &str, component: u32, layer: Option<&InspectedLayer>) -> u32 {
        let Some(layer) = layer.filter(|layer| !layer.components.is_empty()) else {
            return component;
        };
        let name = &self.components[component as usize].0;
        if layer.components.contains(name) {
            return component;
        }
        let source = source(name);
        let of_source = || {
            layer
                .components
                .iter()
                .filter(|c| self::source(c) == source)
        };
        let has_path = |c: &&String| match c.split_once(':') {
            Some((_, part)) => Path::new(path).starts_with(part),
            None => true,
        };
        let best = of_source().filter(has_path).max_by_key(|c| c.len());
        let best = best.or_else(|| of_source().next());
        let Some(best) = best.or_else(|| {
            layer
                .components
                .first()
                .filter(|_| layer.components.len() == 1)
        }) else {
            return component;
        };
        let known = self.components.iter().position(|(name, _)| name == best);
        let at = known.unwrap_or_else(|| {
            let chance = layer.chance.unwrap_or(1.0);
            self.components.push((best.clone(), chance));
            self.components.len() - 1
        });
        at as u32
    }

    /// Who has `path`, which is written as in
    /// [`InspectedImage::files`](super::InspectedImage::files).
    pub fn owner(&self, path: &str) -> Option<Owner<'_>> {
        let (component, package) = self.by_path.get(path)?;
        Some(Owner {
            component: &self.components[*component as usize].0,
            package: package.map(|at| self.packages[at as usize].as_str()),
        })
    }

    /// The components by layer, the largest first.
    pub fn components(
        &self,
        files: &BTreeMap<String, ImageFile>,
        layers: &[InspectedLayer],
    ) -> Vec<ImageComponent> {
        let mut found: BTreeMap<(usize, u32), (u64, usize, BTreeSet<u32>)> = BTreeMap::new();
        for (path, file) in files {
            let Some((component, package)) = self.by_path.get(path) else {
                continue;
            };
            let sum = found.entry((file.layer, *component)).or_default();
            sum.0 += file.size;
            sum.1 += 1;
            sum.2.extend(package);
        }
        let describe = |((layer, component), (size, files, packages)): (
            (usize, u32),
            (u64, usize, BTreeSet<u32>),
        )| {
            let (name, chance) = &self.components[component as usize];
            let packages = packages
                .iter()
                .map(|at| self.packages[*at as usize].clone());
            // A layer that holds several parts is as likely to change as its label says at most.
            let most = layers.get(layer).and_then(|layer| layer.chance);
            ImageComponent {
                name: name.clone(),
                layer,
                size,
                files,
                chance: chance.min(most.unwrap_or(1.0)),
                packages: packages.collect(),
            }
        };
        let mut components: Vec<ImageComponent> = found.into_iter().map(describe).collect();
        components.sort_by(|a, b| (a.layer, b.size, &a.name).cmp(&(b.layer, a.size, &b.name)));
        components
    }
}

/// The files as a tree; of directories only the names are known.
fn tree(files: &BTreeMap<String, ImageFile>) -> Result<Tree> {
    let mut builder = TreeBuilder::new(Metadata::directory(0o755));
    let mut directories: HashMap<&str, EntryId> = HashMap::from([("", EntryId::ROOT)]);
    for (path, file) in files {
        // A file below something that is itself a file cannot be seen.
        let Some(parent) = directory(&mut builder, &mut directories, files, parent(path))? else {
            continue;
        };
        let metadata = Metadata {
            kind: match file.target {
                Some(_) => Kind::Symlink,
                None => Kind::Regular,
            },
            permissions: 0o644,
            mtime: file.mtime,
            size: file.size,
            ..Metadata::directory(0)
        };
        let target = file.target.as_deref().unwrap_or_default();
        builder.push(parent, name(path), target, metadata)?;
    }
    Ok(builder.finish().0)
}

/// The directory `path`, made with those above it.
fn directory<'a>(
    builder: &mut TreeBuilder,
    known: &mut HashMap<&'a str, EntryId>,
    files: &BTreeMap<String, ImageFile>,
    path: &'a str,
) -> Result<Option<EntryId>> {
    let mut missing = Vec::new();
    let mut at = path;
    let mut id = loop {
        if let Some(id) = known.get(at) {
            break *id;
        }
        if files.contains_key(at) {
            return Ok(None);
        }
        missing.push(at);
        at = parent(at);
    };
    for path in missing.into_iter().rev() {
        id = builder.push(id, name(path), "", Metadata::directory(0o755))?;
        known.insert(path, id);
    }
    Ok(Some(id))
}

/// The source of a component: a part of a large one is named after it, `perl:usr/share/perl`.
pub(super) fn source(component: &str) -> &str {
    component.split(':').next().unwrap_or_default()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
