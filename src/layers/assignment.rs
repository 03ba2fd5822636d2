//! From components and a plan over them to the entries of each layer.

use std::collections::HashMap;

use crate::checksum::Checksum;
use crate::component::{ComponentId, Ownership};
use crate::ostree::ContentObjects;
use crate::plan::Plan;
use crate::tree::{EntryId, Kind, Tree};

/// Bytes of a tar header.
const HEADER: u64 = 512;

/// Equal files of different components are one file from this size on, in bytes. A smaller one is in the layer of each:
/// a component must not change because a licence that it shares with another one is gone from there.
const SHARED: u64 = 1 << 20;

/// Whether files that are hard links of each other stay together, whoever owns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// They do, as one file in one layer.
    Keep,
    /// They do not: a commit knows no hard links, and its image has the layers of the rootfs's.
    Ignore,
}

/// Where each entry is at home. Equal files of a component are one object, in one layer only: they
/// are at home with the first of them, and so are hard links where they are kept. Empty files, links and empty
/// directories stay with their own component; other directories come with what is in them.
struct Homes<'a> {
    links: HardLinks,
    tree: &'a Tree,
    objects: &'a ContentObjects,
    ownership: &'a Ownership,
    /// The first file of a content, among all or those of one component.
    first: HashMap<(Checksum, Option<ComponentId>), EntryId>,
}

impl<'a> Homes<'a> {
    fn new(
        tree: &'a Tree,
        objects: &'a ContentObjects,
        ownership: &'a Ownership,
        links: HardLinks,
    ) -> Self {
        let mut homes = Self {
            links,
            tree,
            objects,
            ownership,
            first: HashMap::new(),
        };
        for id in tree.ids() {
            if let (Kind::Regular, 1..) = (tree.entry(id).kind, tree.entry(id).size) {
                let key = homes.key(id);
                let first = homes.file(id);
                homes.first.entry(key).or_insert(first);
            }
        }
        homes
    }

    /// The entry that stands for the file `id`: its first hard link, where they are kept.
    fn file(&self, id: EntryId) -> EntryId {
        match self.links {
            HardLinks::Keep => self.tree.inode(id),
            HardLinks::Ignore => id,
        }
    }

    /// What files have in common that are one file in the image.
    fn key(&self, id: EntryId) -> (Checksum, Option<ComponentId>) {
        let owner = self.ownership.owner(self.file(id));
        let alone = self.tree.entry(id).size < SHARED;
        (self.objects.checksum(id), alone.then_some(owner))
    }

    /// The entry whose owner decides about `id`; none for a directory with something in it.
    fn of(&self, id: EntryId) -> Option<EntryId> {
        let entry = self.tree.entry(id);
        match entry.kind {
            Kind::Directory => self.tree.children(id).is_empty().then_some(id),
            Kind::Regular if entry.size > 0 => self.first.get(&self.key(id)).copied(),
            Kind::Regular => Some(self.file(id)),
            Kind::Symlink => Some(id),
        }
    }
}

/// What each component weighs in a layer, in bytes of tar: headers and padding counted, equal
/// files once. What directories weigh on disk does not count: it differs between file systems.
pub fn component_sizes(tree: &Tree, objects: &ContentObjects, ownership: &Ownership) -> Vec<u64> {
    // Both formats have one plan.
    let homes = Homes::new(tree, objects, ownership, HardLinks::Ignore);
    let mut sizes = vec![0; ownership.components().len()];
    for id in tree.ids() {
        let Some(home) = homes.of(id) else { continue };
        let content = match home == id {
            true => tree.entry(id).size.div_ceil(HEADER).saturating_mul(HEADER),
            false => 0,
        };
        let size: &mut u64 = &mut sizes[ownership.owner(home).index()];
        // A hostile tree can have sparse files of exabytes.
        *size = size.saturating_add(content).saturating_add(HEADER);
    }
    sizes
}

/// The entries of every planned layer, in canonical order, each in exactly one; directories that
/// have something in them in none.
#[derive(Debug)]
pub struct Assignment {
    layers: Vec<Vec<EntryId>>,
}

impl Assignment {
    /// Spreads the entries of `tree` over the layers of `plan`, whose items are the components
    /// in `items`.
    pub fn new(
        tree: &Tree,
        objects: &ContentObjects,
        ownership: &Ownership,
        items: &[ComponentId],
        plan: &Plan,
        links: HardLinks,
    ) -> Self {
        let mut layer_of: HashMap<ComponentId, usize> = HashMap::new();
        for (at, layer) in plan.layers.iter().enumerate() {
            layer_of.extend(layer.items.iter().map(|item| (items[*item], at)));
        }
        let homes = Homes::new(tree, objects, ownership, links);
        let mut layers = vec![Vec::new(); plan.layers.len()];
        for id in tree.ids() {
            let layer = homes
                .of(id)
                .and_then(|home| layer_of.get(&ownership.owner(home)));
            if let Some(layer) = layer {
                layers[*layer].push(id);
            }
        }
        Self { layers }
    }

    /// The entries of each layer.
    pub fn layers(&self) -> &[Vec<EntryId>] {
        &self.layers
    }
}
